"""A drop that is a folder: one file of rows, and beside it the pictures that its rows name. Nothing in it is followed."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from validation.findings import Finding, Level, Severity, shown
from validation.report import Report

SUFFIX = ".jsonl"
SIDECAR_SUFFIX = ".job.json"
MOST_ENTRIES = 1_000_000


def rows_file(folder: Path) -> tuple[Path, str]:
    """(the file of rows, "") or (the folder, why there is none). Raises OSError where the machine failed."""
    try:
        return _rows_file(folder)
    except PermissionError as error:
        return folder, f"{shown(os.path.basename(error.filename))} in the folder may not be read by the user that runs lorad (uid {os.geteuid()})"


def unread(name: str, schema_id: str, level: Level, obstacle: str) -> Report:
    """The report on a folder that has no file of rows."""
    hint = "make a folder NAME.drop with one .jsonl file and its pictures in it, then rename the folder into the inbox as a whole"
    finding = Finding(id="F11", severity=Severity.ERROR, name="file.link", message=obstacle, hint=hint)
    return Report(file=name, sha256="", schema=schema_id, level=level, rows=0, findings=(finding,))


def _rows_file(folder: Path) -> tuple[Path, str]:
    found: list[str] = []
    for count, (path, mode) in enumerate(_entries(folder), start=1):
        name = str(path.relative_to(folder))
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            kind = "a symbolic link" if stat.S_ISLNK(mode) else "no regular file"
            return folder, f"{shown(name)} in the folder is {kind}; nothing is followed: copy the file itself"
        if count > MOST_ENTRIES:
            return folder, f"the folder has more than {MOST_ENTRIES:,} entries"
        if name.endswith(SUFFIX) and stat.S_ISREG(mode):
            found.append(name)
    if not found:
        return folder, f"the folder holds no {SUFFIX} file"
    if len(found) > 1:
        told = ", ".join(shown(name) for name in sorted(found)[:5])
        return folder, f"the folder holds {len(found)} {SUFFIX} files ({told}); a drop has one file of rows"
    if os.sep in found[0]:
        return folder, f"{shown(found[0])} lies in a folder of the drop; the file of rows lies at its top"
    return folder / found[0], ""


def _entries(folder: Path) -> Iterator[tuple[Path, int]]:
    """Every entry below, with its own mode."""
    waiting = [folder]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                mode = entry.stat(follow_symlinks=False).st_mode
                yield Path(entry.path), mode
                if stat.S_ISDIR(mode):
                    waiting.append(Path(entry.path))
