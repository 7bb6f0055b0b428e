"""A project's own specs: small files that the config names, beside the specs that lorad knows.

A JSON file says which keys a row has and which messages it becomes. A Python file says the same by a
`rendering.specs.Spec` named SPEC, for what placeholders cannot do. Python runs with the rights of whoever starts lorad:
only the config can name such a file, a drop cannot.
"""

import difflib
import hashlib
import json
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import msgspec

from core.errors import ConfigError
from rendering.rowtypes import ROLES, Common, OwnRow, Role
from rendering.specs import BAD_JSON, ROW_OPTIONAL, SPECS, Message, Spec, SpecRow

KINDS: Mapping[str, Any] = MappingProxyType({"string": str, "number": int | float, "boolean": bool, "object": dict[str, Any], "array": list[Any]})
_EXAMPLES: Mapping[str, object] = MappingProxyType({"string": "…", "number": 1, "boolean": True, "object": {}, "array": []})
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_BRACES = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


class _Turn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A message of a JSON spec; its content holds placeholders."""

    role: str
    content: str


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A JSON spec as it is written."""

    id: str
    keys: dict[str, str]
    messages: list[_Turn]
    title: str = ""
    example: dict[str, Any] = {}
    hint: str = ""


def load_specs(entries: Mapping[str, str], folder: Path) -> Mapping[str, Spec]:
    """The specs that lorad knows and the project's own: `entries` maps an id to a file, relative to `folder`.

    Raises ConfigError with path, value and what to do.
    """
    found = dict(SPECS)
    for id, name in entries.items():
        if id in SPECS:
            raise ConfigError(f"specs.{id}: {id!r} is a spec of lorad's own", hint=f"give yours another id, such as {_other(id)!r}", code="SPEC_ID")
        spec = load_file(folder / name)
        if spec.id != id:
            raise ConfigError(f"specs.{id}: {name!r} holds the spec {spec.id!r}", hint="write the same id in both places", code="SPEC_ID")
        found[id] = spec
    return MappingProxyType(found)


def load_file(path: Path) -> Spec:
    """The spec in one file, `*.json` or `*.py`; `Spec.file` is its whole path. Raises ConfigError."""
    path = path.absolute()
    if path.suffix not in _LOADERS:
        raise _wrong(path, f"ends in {path.suffix!r}", "a spec is a .json or a .py file")
    if not path.is_file():
        raise _wrong(path, "is not there", "a path in the config's `specs` is relative to the folder of the config")
    spec = _LOADERS[path.suffix](path)
    if not _ID.fullmatch(spec.id):
        raise _wrong(path, f"has the id {spec.id!r}", "an id is made of letters, digits, _, - and .")
    if spec.id in SPECS:
        raise _wrong(path, f"has the id {spec.id!r}, which is a spec of lorad's own", f"give it another, such as {_other(spec.id)!r}")
    spec = replace(spec, file=str(path)).decoding()
    _check_example(spec, path)
    return spec


def _other(id: str) -> str:
    return f"my_{id}"


def _wrong(path: Path, what: str, hint: str) -> ConfigError:
    return ConfigError(f"{path} {what}", hint=hint, code="SPEC_FILE")


def _check_example(spec: Spec, path: Path) -> None:
    try:
        messages = spec.messages(spec.decode(spec.example.encode()))
    except BAD_JSON as error:
        raise _wrong(path, f"has an example that is not a row of it: {error}", "write one whole row as `example`") from None
    if not any(message.role == "assistant" and message.content.strip() for message in messages):
        raise _wrong(path, "makes no assistant text of its example, so nothing would be learnt", "give one message the role assistant and a placeholder")


# --- JSON


def _of_json(path: Path) -> Spec:
    try:
        plain = msgspec.json.decode(path.read_bytes())
        file = msgspec.convert(plain, _File)
    except (*BAD_JSON, OSError) as error:
        raise _wrong(path, f"is not a spec: {error}", f"a spec has {', '.join(_File.__struct_fields__)}; see docs/howto/own-spec.md") from None
    fields = _fields(file, path)
    turns = [_template(turn, fields, f"{path} messages[{index}]") for index, turn in enumerate(file.messages)]
    if not any(turn.role == "assistant" for turn in turns):
        raise _wrong(path, "has no message of the role assistant, so nothing would be learnt", 'add {"role": "assistant", "content": "{…}"}')
    row = msgspec.defstruct(
        f"Row_{re.sub('[^A-Za-z0-9]', '_', file.id)}",
        [field.definition for field in fields.values()],
        bases=(OwnRow,),
        rename={field.name: key for key, field in fields.items()},
        frozen=True,
        forbid_unknown_fields=True,
        omit_defaults=True,
        kw_only=True,
    )
    example = file.example or {key: _EXAMPLES[field.kind] for key, field in fields.items()}
    return Spec(
        id=file.id,
        title=file.title or "rows of this project",
        row=cast(type[SpecRow], row),
        required=tuple(key for key, field in fields.items() if not field.optional),
        own=tuple(key for key, field in fields.items() if field.optional),
        turns=lambda row: [message for turn in turns if (message := turn.message(row))],
        example=json.dumps(example, ensure_ascii=False),
        hint=file.hint or f"rows of {file.id} look like its example",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Field:
    """A key of a row and the attribute that holds it: keys may be any text, attributes may not."""

    name: str
    kind: str
    optional: bool

    @property
    def definition(self) -> tuple[str, Any] | tuple[str, Any, Any]:
        kind = KINDS[self.kind]
        return (self.name, kind | msgspec.UnsetType, msgspec.UNSET) if self.optional else (self.name, kind)


def _fields(file: _File, path: Path) -> dict[str, _Field]:
    if not file.keys:
        raise _wrong(path, "names no keys", 'say which a row has: "keys": {"question": "string", "answer": "string"}')
    fields = {}
    for place, (key, kind) in enumerate(file.keys.items()):
        if key in ROW_OPTIONAL:
            raise _wrong(path, f"names the key {key!r}, which every spec has", "leave it out of `keys`")
        if kind.removesuffix("?") not in KINDS:
            raise _wrong(path, f"gives the key {key!r} the type {kind!r}", f"types are {', '.join(KINDS)}; a ? behind one means that the key may be left out")
        fields[key] = _Field(name=f"key_{place}", kind=kind.removesuffix("?"), optional=kind.endswith("?"))
    return fields


@dataclass(frozen=True, slots=True, kw_only=True)
class _Template:
    """A content cut at its placeholders: plain texts, and attributes of the row between them."""

    role: Role
    parts: tuple[str, ...]
    """Plain text at even places, an attribute's name at odd ones."""

    def message(self, row: SpecRow) -> Message | None:
        """The message; None for a system text of which nothing was given."""
        values = [getattr(row, name) for name in self.parts[1::2]]
        if self.role == "system" and values and all(value is msgspec.UNSET for value in values):
            return None
        shown = [_shown(value) for value in values]
        return Message(self.role, "".join(part for pair in zip(self.parts[::2], [*shown, ""], strict=True) for part in pair))


def _shown(value: object) -> str:
    if value is msgspec.UNSET:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _template(turn: _Turn, fields: Mapping[str, _Field], place: str) -> _Template:
    if turn.role not in ROLES[:3]:
        raise ConfigError(f"{place} has the role {turn.role!r}", hint=f"roles are {', '.join(ROLES[:3])}", code="SPEC_FILE")
    parts, text, end = [], "", 0
    for found in _BRACES.finditer(turn.content):
        text += turn.content[end : found.start()]
        end = found.end()
        if found[0] in ("{{", "}}"):
            text += found[0][0]
        elif found[1] is None:
            raise ConfigError(f"{place} has a {found[0]!r} that belongs to no placeholder", hint="write {{ and }} for braces in the text", code="SPEC_FILE")
        else:
            parts += [text, _field(found[1], fields, place).name]
            text = ""
    return _Template(role=turn.role, parts=(*parts, text + turn.content[end:]))


def _field(key: str, fields: Mapping[str, _Field], place: str) -> _Field:
    if key in fields:
        return fields[key]
    near = difflib.get_close_matches(key, fields, n=1)
    hint = f"did you mean {{{near[0]}}}?" if near else f"`keys` has {', '.join(fields)}; write {{{{ and }}}} for braces in the text"
    raise ConfigError(f"{place} has the placeholder {{{key}}}, which `keys` does not name", hint=hint, code="SPEC_FILE")


# --- Python


def _of_python(path: Path) -> Spec:
    name = f"lorad_own_spec_{hashlib.sha256(str(path).encode()).hexdigest()[:16]}"  # copies of one spec lie in several drops
    found = spec_from_file_location(name, path)
    assert found is not None, "a .py file has a loader"
    assert found.loader is not None
    module = module_from_spec(found)
    sys.modules[name] = module  # row types look their annotations up there
    try:
        found.loader.exec_module(module)
    except Exception as error:  # whatever a person's own file raises is a fault of that file
        del sys.modules[name]
        raise _wrong(path, f"does not run: {type(error).__name__}: {error}", "try it with: python FILE") from None
    spec = getattr(module, "SPEC", None)
    if not isinstance(spec, Spec):
        raise _wrong(path, f"has no `SPEC` of the type rendering.specs.Spec (it is {type(spec).__name__})", "see docs/howto/own-spec.md")
    if not (issubclass(spec.row, Common) and spec.row.__struct_config__.forbid_unknown_fields):
        raise _wrong(path, f"has the row type {spec.row.__name__}", "derive it from rendering.rowtypes.OwnRow with forbid_unknown_fields=True")
    declared, held = set(spec.keys), set(spec.row.__struct_encode_fields__)
    if declared != held:
        differ = ", ".join(sorted(declared ^ held))
        raise _wrong(path, f"names other keys in `required` and `own` than its row type has: {differ}", "name each key of the row type once")
    return spec


_LOADERS: Mapping[str, Callable[[Path], Spec]] = MappingProxyType({".json": _of_json, ".py": _of_python})
