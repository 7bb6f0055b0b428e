"""Whose a dropped file is, on a machine with several people (ATTACK-S02, S05).

What is looked at lies in the drop's own folder already, where nobody else can swap it, and is judged by the opened file.
A file with a second name is refused: it may be somebody else's, linked into the inbox. The daemon's own files pass as
anybody's: what it makes itself, such as corrections, is dropped for personas too.
"""

import os
import pwd
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MOST_FILES = 10_000  # of a folder that is one drop


@dataclass(frozen=True, slots=True)
class Objection:
    """Why a drop is refused before it is read."""

    code: str
    problem: str
    hint: str


def objection(paths: list[Path], persona: str, user: str | None) -> Objection | None:
    """What speaks against the files, or folders of files, of one drop; `user` is the one whose files the persona takes, None: anybody's."""
    owner: int | None = None
    if user is not None:
        try:
            owner = pwd.getpwnam(user).pw_uid
        except KeyError:
            what = f"inbox.users gives the persona {persona!r} to {user!r}, and this machine has no such user"
            return Objection("OWNER_UNKNOWN", what, "correct inbox.users in config.json, then drop the file again")
    for path in paths:
        for inner in _files(path):
            if found := _of_file(inner, persona, user, owner):
                return found
    return None


def _of_file(path: Path, persona: str, user: str | None, owner: int | None) -> Objection | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except PermissionError:
        found = path.lstat()  # the gate will say that it cannot be read; whose it is can be seen all the same
    except OSError:
        return None  # a link, a FIFO, gone: others say what is wrong with it
    else:
        found = os.fstat(fd)
        os.close(fd)
    if not stat.S_ISREG(found.st_mode):
        return None
    if owner is not None and found.st_uid not in (owner, os.geteuid()):
        what = f"{path.name!r} belongs to {_name(found.st_uid)!r}; drops of the persona {persona!r} are taken from {user!r} alone"
        return Objection("OWNER_FOREIGN", what, f"drop it into your own folder of the inbox, or have {user!r} copy it")
    if found.st_nlink != 1:
        what = f"{path.name!r} has {found.st_nlink} names (hard links): it may be another's file"
        return Objection("HARD_LINK", what, "copy the file into the inbox instead of linking it")
    return None


def _files(path: Path) -> Iterator[Path]:
    if path.is_symlink() or not path.is_dir():
        yield path
        return
    count = 0
    for root, _, names in os.walk(path):
        for name in names:
            count += 1
            if count > MOST_FILES:
                return
            yield Path(root, name)


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"
