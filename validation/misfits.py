"""Where a JSON value is not what a row type wants: every place with its path, for any spec, by the types of its rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

import msgspec

from rendering.rowtypes import Turn, VisionRow

MOST_MISFITS = 200  # of one row: a hostile one could have a million
Fault = Literal["missing", "unknown", "type", "literal", "range", "null", "not_learnt", "picture"]


@dataclass(slots=True)
class Kind:
    """What a value may be. `item` is that of a list's values, `struct` that of an object with known keys."""

    anything: bool = False
    text: bool = False
    integer: bool = False
    real: bool = False
    boolean: bool = False
    null: bool = False
    least: float | None = None
    most: float | None = None
    literals: tuple[Any, ...] = ()
    item: "Kind | None" = None
    free_object: bool = False
    struct: "Struct | None" = None

    @property
    def words(self) -> tuple[str, ...]:
        """The kinds in words."""
        told = [
            (self.text, "a text"),
            (self.real, "a number"),
            (self.integer and not self.real, "a whole number"),
            (self.boolean, "true or false"),
            (self.item is not None, "a list"),
            (self.free_object or self.struct is not None, "an object"),
        ]
        return tuple(words for wanted, words in told if wanted)

    @property
    def is_nested(self) -> bool:
        """Whether a value is a list or an object, never a text."""
        return not self.text and not self.literals and (self.item is not None or self.free_object or self.struct is not None)


@dataclass(slots=True)
class Struct:
    """The keys of an object."""

    row: type
    required: frozenset[str] = frozenset()
    keys: dict[str, Kind] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Misfit:
    """One place. `owner` is the type of the object that has, or lacks, `key`; it is `within`."""

    fault: Fault
    path: str
    owner: type
    key: str
    value: Any
    kind: Kind
    within: Mapping[str, Any]
    keys: Sequence[str] = ()  # those that the owner knows


@lru_cache(maxsize=64)
def struct_of(row: type) -> Struct:
    """The keys of a struct type by its annotations."""
    import msgspec.inspect as inspect

    return _struct(inspect.type_info(row), {})


def _struct(info: Any, known: dict[type, Struct]) -> Struct:
    if info.cls not in known:
        made = known[info.cls] = Struct(info.cls)
        made.required = frozenset(one.encode_name for one in info.fields if one.required)
        made.keys = {one.encode_name: _kind(one.type, known) for one in info.fields}
    return known[info.cls]


def _kind(info: Any, known: dict[type, Struct]) -> Kind:
    kind = Kind()
    for one in getattr(info, "types", (info,)):
        _add(kind, one, known)
    return kind


def _add(kind: Kind, info: Any, known: dict[type, Struct]) -> None:
    match type(info).__name__:
        case "StrType":
            kind.text = True
        case "IntType" | "FloatType" as name:
            kind.integer, kind.real = True, kind.real or name == "FloatType"
            kind.least, kind.most = info.ge, info.le
        case "BoolType":
            kind.boolean = True
        case "NoneType":
            kind.null = True
        case "LiteralType":
            kind.literals += tuple(info.values)
        case "ListType" | "VarTupleType":
            kind.item = _kind(info.item_type, known)
        case "DictType":
            kind.free_object = True
        case "StructType":
            kind.struct = _struct(info, known)
        case _:
            kind.anything = True  # a type that JSON brings in another dress: the decoder judges it


def misfits_of(plain: Mapping[str, Any], row: type, columns: Sequence[str] = ()) -> list[Misfit]:
    """Every place where a row is not of the type; at most MOST_MISFITS. `columns` may hold anything."""
    search = _Search(row, columns)
    search.object(plain, struct_of(row), "$")
    return search.found


@dataclass(frozen=True, slots=True)
class _Held:
    """Where a value stands: the type of the object that holds it, its key, the object."""

    owner: type
    key: str
    within: Mapping[str, Any]


class _Search:
    """One search through one row."""

    def __init__(self, row: type, columns: Sequence[str]) -> None:
        self.found: list[Misfit] = []
        self._row = row
        self._columns = columns
        self._pictures = issubclass(row, VisionRow)

    def object(self, plain: Mapping[str, Any], struct: Struct, path: str) -> None:
        known = struct.keys
        for key, value in plain.items():
            if key in known:
                self._value(value, known[key], f"{path}.{key}", _Held(struct.row, key, plain))
            elif path != "$" or key not in self._columns:
                self._add("unknown", path, struct, _Held(struct.row, key, plain))
        missing = [key for key in known if key in struct.required and key not in plain]
        for key in missing:
            self._add("missing", f"{path}.{key}", struct, _Held(struct.row, key, plain))
        if struct.row is Turn:
            self._turn(plain, struct, path)

    def _turn(self, plain: Mapping[str, Any], struct: Struct, path: str) -> None:
        """What the types of a turn do not say."""
        calls, role, content = plain.get("tool_calls"), plain.get("role"), _Held(Turn, "content", plain)
        if "content" not in plain and not calls:
            self._add("missing", f"{path}.content", struct, content)
        elif plain.get("content", "") is None and not calls:
            self._add("null", f"{path}.content", struct, content)
        if isinstance(role, str) and role in ("system", "developer", "user", "tool"):
            weight = plain.get("weight", 1)
            if type(weight) in (int, float) and 0 <= weight < 1:
                self._add("not_learnt", f"{path}.weight", struct, _Held(Turn, "weight", plain))
            if calls and isinstance(calls, list):
                self._add("not_learnt", f"{path}.tool_calls", struct, _Held(Turn, "tool_calls", plain))
        parts = plain.get("content")
        if not self._pictures and isinstance(parts, list):
            for index, part in enumerate(parts):
                if isinstance(part, dict) and part.get("type") == "image":
                    self._add("picture", f"{path}.content[{index}]", struct, content)

    def _value(self, value: Any, kind: Kind, path: str, held: "_Held") -> None:
        fault = _fault(value, kind)
        if fault:
            self._append(Misfit(fault, path, held.owner, held.key, value, kind, held.within))
        elif isinstance(value, list) and kind.item is not None:
            for index, inner in enumerate(value):
                if len(self.found) >= MOST_MISFITS:
                    return
                self._value(inner, kind.item, f"{path}[{index}]", held)
        elif isinstance(value, dict) and kind.struct is not None:
            self.object(value, kind.struct, path)

    def _add(self, fault: Fault, path: str, struct: Struct, held: "_Held") -> None:
        keys = tuple(struct.keys) + (tuple(self._columns) if struct.row is self._row else ())
        kind = struct.keys.get(held.key, Kind())
        self._append(Misfit(fault, path, held.owner, held.key, held.within.get(held.key), kind, held.within, keys))

    def _append(self, misfit: Misfit) -> None:
        if len(self.found) < MOST_MISFITS:
            self.found.append(misfit)


def _fault(value: Any, kind: Kind) -> Fault | None:
    """What is wrong with the value itself, not with what it holds."""
    if kind.anything:
        return None
    if value is None:
        return None if kind.null else "type"
    if isinstance(value, bool):
        return None if kind.boolean else "type"
    if isinstance(value, str):
        return _of_text(value, kind)
    if isinstance(value, int | float):
        return _of_number(value, kind)
    fits = kind.item is not None if isinstance(value, list) else (kind.free_object or kind.struct is not None)
    return None if fits else "type"


def _of_text(value: str, kind: Kind) -> Fault | None:
    if kind.text or value in kind.literals:
        return None
    return "literal" if any(isinstance(one, str) for one in kind.literals) else "type"


def _of_number(value: float, kind: Kind) -> Fault | None:
    if any(isinstance(one, int) for one in kind.literals):
        return None if type(value) is int and value in kind.literals else "literal"
    if not kind.integer or (isinstance(value, float) and not kind.real):
        return "type"
    outside = (kind.least is not None and value < kind.least) or (kind.most is not None and value > kind.most)
    return "range" if outside else None


def mended(plain: Mapping[str, Any], row: type[msgspec.Struct], roles: Mapping[str, str]) -> Any:
    """A typed row without what does not belong there, so that the rest of it can be judged all the same. None: not possible.

    Args: roles: right names of roles.
    """
    copy = _Copy(struct_of(row), roles)
    try:
        return msgspec.convert(copy.object(plain, copy.struct), row)
    except (msgspec.MsgspecError, UnicodeError, TypeError, RecursionError):
        return None


class _Copy:
    """Copies a row without its unknown keys and without optional values that do not fit."""

    def __init__(self, struct: Struct, roles: Mapping[str, str]) -> None:
        self.struct = struct
        self._roles = roles

    def object(self, plain: Mapping[str, Any], struct: Struct) -> dict[str, Any]:
        copied = {}
        for key, value in plain.items():
            kind = struct.keys.get(key)
            if kind is None:
                continue
            if struct.row is Turn and key == "role" and isinstance(value, str):
                value = self._roles.get(value.strip().lower(), value)
            if _fault(value, kind) and key in ("metadata", "id", "weight", "name"):
                continue
            copied[key] = self._value(value, kind)
        return copied

    def _value(self, value: Any, kind: Kind) -> Any:
        if isinstance(value, list) and kind.item is not None:
            return [self._value(inner, kind.item) for inner in value]
        if isinstance(value, dict) and kind.struct is not None:
            return self.object(value, kind.struct)
        return value
