"""SEALED: a folder of finished bytes exists only with this file, which names the SHA-256 of every other file.

It is written last. The format is that of `sha256sum`, so that `sha256sum -c SEALED` checks a folder by hand.
"""

import hashlib
from pathlib import Path

from core.errors import IntegrityError
from store.durable import replace_file, sync_tree
from store.together import inside, sync_together

SEAL = "SEALED"


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes, hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_files(folder: Path, leave_out: tuple[str, ...] = (SEAL,)) -> dict[str, str]:
    """Relative path -> SHA-256 of every file below `folder`, sorted by path."""
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    return {name: hash_file(folder / name) for name in names if name not in leave_out}


def seal(folder: Path) -> str:
    """Sync everything below `folder`, then write SEALED. Returns the SHA-256 of SEALED, which names the whole folder."""
    text = "".join(f"{digest}  {name}\n" for name, digest in hash_files(folder).items())
    sync_tree(folder)
    replace_file(folder / SEAL, text)
    return hashlib.sha256(text.encode()).hexdigest()


def seal_aside(folder: Path, *, durable: bool) -> None:
    """The same for a folder that nobody looks at before it is renamed to its place: all is synced at once, or by whoever renames it."""
    text = "".join(f"{digest}  {name}\n" for name, digest in hash_files(folder).items())
    replace_file(folder / SEAL, text, durable=False)
    if durable:
        sync_together(*inside(folder))


def is_sealed(folder: Path) -> bool:
    """Whether the folder has its seal; does not read the sealed files."""
    return (folder / SEAL).is_file()


def seal_hash(folder: Path) -> str:
    """SHA-256 of SEALED. Raises IntegrityError where there is none."""
    try:
        return hash_file(folder / SEAL)
    except OSError:
        raise IntegrityError(f"{folder} has no {SEAL}", hint="it was never finished; make it again", code="SEAL_MISSING") from None


def check_seal(folder: Path) -> str:
    """Compare every file with its seal. Returns `seal_hash`. Raises IntegrityError naming the first difference."""
    digest = seal_hash(folder)
    wanted = {}
    for line in (folder / SEAL).read_text().splitlines():
        want, _, name = line.partition("  ")
        wanted[name] = want
    found = hash_files(folder)
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            problem = "is missing" if name not in found else "was not sealed" if name not in wanted else "has other bytes than were sealed"
            raise IntegrityError(f"{folder / name} {problem}", hint="the disk or a person changed it; delete the folder and make it again", code="SEAL_BROKEN")
    return digest
