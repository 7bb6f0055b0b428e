"""The pictures that lie beside a file: which are there. None is opened; a link is never followed."""

import os
import stat
from pathlib import Path

REMEMBERED = 200_000  # pictures
LISTED = 20_000  # names of a folder that are compared with a missing one


class Album:
    """The folder that picture paths are relative to. What was found out is remembered: rows share pictures."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._real = os.path.realpath(folder)
        self._seen: dict[str, str] = {}
        self._names: dict[str, dict[str, str]] = {}

    def trouble(self, name: str) -> str:
        """What is wrong with a relative path: "missing", "folder" (not even its folder is there), "empty", "link", "kind", "closed"; "" is nothing."""
        if name not in self._seen:
            if len(self._seen) >= REMEMBERED:
                self._seen.clear()
            self._seen[name] = self._look(name)
        return self._seen[name]

    def _look(self, name: str) -> str:
        path = os.path.join(self._real, os.path.normpath(name))
        try:
            found = os.lstat(path)
        except PermissionError:
            return "closed"
        except (OSError, ValueError):
            return "missing" if os.path.isdir(os.path.dirname(path)) else "folder"
        if os.path.realpath(path) != path:
            return "link"
        if not stat.S_ISREG(found.st_mode):
            return "kind"
        return "" if found.st_size else "empty"

    def nearest(self, name: str) -> str:
        """A picture beside a missing one whose name differs in capitals or in its ending only; empty: none."""
        folder, base = os.path.split(os.path.normpath(name))
        if folder not in self._names:
            self._names[folder] = self._listed(os.path.join(self._real, folder))
        names = self._names[folder]
        return names.get(base.casefold()) or names.get(os.path.splitext(base.casefold())[0], "")

    def _listed(self, folder: str) -> dict[str, str]:
        names: dict[str, str] = {}
        try:
            with os.scandir(folder) as entries:
                for place, entry in enumerate(entries):
                    if place >= LISTED:
                        break
                    names[entry.name.casefold()] = entry.name
                    names.setdefault(os.path.splitext(entry.name.casefold())[0], entry.name)
        except OSError:
            return {}
        return names
