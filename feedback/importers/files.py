"""The records of exported files: JSON, JSON Lines, or the .zip of ChatGPT's data export. They are only ever read as JSON, and within bounds."""

import json
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from core.errors import UsageError
from feedback.importers.port import Record

MOST_BYTES = 1 << 30  # of all files of one import, unpacked: they are read into memory
LISTS = ("data", "feedbacks", "items", "traces", "observations")  # under which keys an API puts its list
IN_ZIP = re.compile(r"(?:.*/)?(?:conversations(?:-\d+)?|message_feedback)\.json")
HINT = "give the export as it came: JSON, JSON Lines, or a .zip"


def records_of(files: Sequence[Path]) -> list[Record]:
    """The records of all files in order. Raises UsageError FILE_MISSING, IMPORT_SIZE, IMPORT_FORMAT; OSError."""
    left, found = MOST_BYTES, list[Record]()
    for file in files:
        if not file.is_file():
            raise UsageError(f"{str(file)!r} is not a file", hint="name the exported file", code="FILE_MISSING")
        for name, text in _texts(file, left):
            left -= len(text)
            found += _records(name, text)
    return found


def _texts(file: Path, left: int) -> Iterator[tuple[str, bytes]]:
    """(name, bytes) of a file, or of the files of an archive that hold conversations."""
    if not zipfile.is_zipfile(file):
        _check(str(file), file.stat().st_size, left)
        yield str(file), file.read_bytes()
        return
    try:
        with zipfile.ZipFile(file) as archive:
            inside = sorted((one for one in archive.infolist() if IN_ZIP.fullmatch(one.filename)), key=lambda one: one.filename)
            if not inside:
                raise UsageError(f"{file} holds no conversations", hint="it is no data export of ChatGPT; unpack it and name a file", code="IMPORT_FORMAT")
            for one in inside:
                _check(f"{file}: {one.filename}", one.file_size, left)
                left -= one.file_size
                with archive.open(one) as packed:
                    yield f"{file}: {one.filename}", packed.read(one.file_size)
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:  # damaged, encrypted, packed in an unknown way
        raise UsageError(f"{file}: {error}", hint="unpack it and name the file inside", code="IMPORT_FORMAT") from None


def _check(name: str, size: int, left: int) -> None:
    if size > left:
        raise UsageError(f"{name} makes the import larger than {MOST_BYTES >> 20:,} MiB", hint="import it in parts", code="IMPORT_SIZE")


def _records(name: str, text: bytes) -> list[Record]:
    try:
        tree: Any = json.loads(text.decode("utf-8-sig"))
    except RecursionError:
        raise UsageError(f"{name} is nested too deep", hint=HINT, code="IMPORT_FORMAT") from None
    except ValueError as error:
        return _lines(name, text, error)
    if isinstance(tree, Mapping):
        tree = next((tree[key] for key in LISTS if isinstance(tree.get(key), list) and "input" not in tree), [tree])
    return [record for record in tree if isinstance(record, Mapping)] if isinstance(tree, list) else []


def _lines(name: str, text: bytes, error: ValueError) -> list[Record]:
    """JSON Lines; what is no whole object of its own is passed over, unless nothing else is there."""
    found = []
    for line in text.split(b"\n"):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, Mapping):
            found.append(record)
    if not found:
        raise UsageError(f"{name} is no JSON: {error}", hint=HINT, code="IMPORT_FORMAT")
    return found
