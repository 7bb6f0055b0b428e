"""Records to JSON and back, strictly typed. Unknown keys of a newer lorad are ignored, missing ones are errors."""

from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from core.errors import IntegrityError
from store.durable import replace_file

T = TypeVar("T")


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def dump(record: object, *, indent: int | None = None) -> str:
    """A record as JSON text."""
    kind: Any = type(record)
    return _adapter(kind).dump_json(record, indent=indent).decode()


def dump_as(kind: Any, record: object) -> str:
    """A value of a composed type, such as dict[str, Job], as JSON text."""
    return _adapter(kind).dump_json(record).decode()


def parse(kind: type[T], text: str | bytes) -> T:
    """JSON text as a record. Raises ValueError."""
    hashable: Any = kind
    adapter: TypeAdapter[T] = _adapter(hashable)
    return adapter.validate_json(text)


def to_plain(record: object) -> Any:
    """A record as plain JSON values."""
    kind: Any = type(record)
    return _adapter(kind).dump_python(record, mode="json")


def write(path: Path, record: object, *, durable: bool = True) -> None:
    """Replace `path` by the record as JSON."""
    replace_file(path, dump(record, indent=1) + "\n", durable=durable)


def put(path: Path, record: object) -> None:
    """Write the record as JSON into a folder that nobody sees yet. Nothing is synced."""
    path.write_text(dump(record, indent=1) + "\n", encoding="utf-8")


def read(kind: type[T], path: Path) -> T:
    """The record in `path`. Raises FileNotFoundError; IntegrityError when it is not such a record."""
    try:
        return parse(kind, path.read_bytes())
    except ValidationError as error:
        raise IntegrityError(
            f"{path} is not a {kind.__name__}: {error.errors()[0]['msg']}",
            hint="restore it from a backup or move it away; lorad never edits records by hand",
            code="RECORD_DAMAGED",
        ) from None


def read_if_whole(kind: type[T], path: Path) -> T | None:
    """The record in `path`, or None where it is missing or not whole."""
    try:
        return parse(kind, path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
