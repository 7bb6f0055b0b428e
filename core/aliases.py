"""Understands the config keys of other tools: PEFT, TRL, Axolotl, LLaMA-Factory, ms-swift, Unsloth, mlx-lm, Soup, OpenAI. Pure.

A key is looked up by its name alone below grouping words such as `training` or `lora_config`. What it becomes is told key
by key (`Became`), so that nothing of a file is dropped unseen: it is a value of lorad's, or what lorad does anyway, or it
belongs to something else and is left out with a reason; a key that would silently train something else is an error.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from core.aliastable import GROUPS, LATER, NAMES, UNREAD, Skip, read_range
from core.config import flatten, leaves, nearest, nest
from core.errors import ConfigError

RANGED = re.compile(
    r"^(lora\.(r|alpha|dropout)|learning_rate|max_length|training\.(epochs|max_steps|warmup_steps|warmup_ratio|weight_decay|max_grad_norm|seed))$"
)
BATCHES = ("batch_size", "@device", "@accumulate", "@effective")
PSEUDO_WORDS = {
    "@device": "the rows of a pass on a device",
    "@accumulate": "the gradient accumulation",
    "@effective": "the effective batch",
    "@tuner": "what is trained",
    "@bits": "the quantisation of the base",
    "@scale": "the adapter's scale",
    "@base": "the base model",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Became:
    """What one foreign key of a file became. `key` is empty where no value of lorad's came of it; then `note` says why."""

    alias: str
    key: str = ""
    value: Any = None
    note: str = ""
    is_lost: bool = False  # whether the file asked for something that does not happen

    @property
    def words(self) -> str:
        """For people: `lora_rank -> lora.r = 16`."""
        told = f"{self.alias} -> {self.key} = {self.value!r}" if self.key else f"{self.alias}: {self.note}"
        return f"{told} ({self.note})" if self.key and self.note else told


@dataclass(frozen=True, slots=True, kw_only=True)
class Translated:
    """A layer in lorad's own keys, nested, and what its foreign keys became."""

    layer: dict[str, Any]
    became: tuple[Became, ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the file asks for and does not get."""
        return tuple(found.words for found in self.became if found.is_lost)


@dataclass(slots=True)
class _Reading:
    """One file while it is read: values by canonical or pseudo key, and under which name each was found."""

    where: str
    values: dict[str, Any] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    became: list[Became] = field(default_factory=list)

    def take(self, key: str, name: str, value: Any) -> None:
        if key in self.names:
            what = PSEUDO_WORDS.get(key, repr(key))
            raise ConfigError(f"{self.names[key]!r} and {name!r} in {self.where} both set {what}", hint="write it once", code="CONFIG_CONFLICT")
        self.values[key], self.names[key] = value, name

    def note(self, name: str, note: str, *, is_lost: bool = False) -> None:
        self.became.append(Became(alias=name, note=note, is_lost=is_lost))

    def pop(self, key: str) -> Any:
        return self.values.pop(key, None)


def translate(tree: Mapping[str, Any], where: str, also: Sequence[str] = ()) -> Translated:
    """The same settings in lorad's own keys.

    Args: tree: a config file's mapping, nested or dotted. where: what it is called in an error. also: keys besides lorad's config keys.
    Raises ConfigError: two names of one key in one file, a foreign value that cannot be had, or a key that is nearly a foreign one.
    """
    reading = _Reading(where)
    own = {*(key for key, _ in leaves()), *also}
    flat = flatten(tree)
    for name, value in flat.items():
        _read(reading, own, name, value)
    _combine_batches(reading)
    _combine_method(reading)
    _combine_scale(reading)
    _place_base(reading)
    for key, value in reading.values.items():
        if reading.names[key] != key or value != flat.get(key):
            reading.became.append(Became(alias=reading.names[key], key=key, value=value))
    return Translated(layer=nest(reading.values), became=tuple(reading.became))


def _read(reading: _Reading, own: set[str], name: str, value: Any) -> None:
    """Put one key of the file where it belongs."""
    *groups, last = name.split(".")
    if name in own and name not in ("batch_size", "method") and not (name == "lora.targets" and isinstance(value, list)):
        found = _value(reading, name, value, read_range) if RANGED.match(name) and isinstance(value, str) else value
        _keep(reading, name, name, found)
    elif later := next((start for start in LATER if name == start or name.startswith(f"{start}.")), ""):
        if all(found.alias != later for found in reading.became):
            reading.note(later, LATER[later], is_lost=True)
    elif set(groups) <= GROUPS and last in UNREAD:
        reading.note(name, UNREAD[last])
    elif set(groups) <= GROUPS and (rule := NAMES.get(name) or NAMES.get(last)):
        key, read = rule
        _keep(reading, key, name, _value(reading, name, value, read))
    else:
        if not any(key.startswith(f"{name}.") for key in own):  # a section of lorad's, which may be empty
            _reject_nearly(reading, own, name)
        reading.take(name, name, value)  # the schema says what is wrong with it


def _keep(reading: _Reading, key: str, name: str, value: Any) -> None:
    if isinstance(value, Skip):
        reading.note(name, value.why)
    else:
        reading.take(key, name, value)


def _value(reading: _Reading, name: str, value: Any, read: Any) -> Any:
    try:
        return read(value)
    except ValueError as error:
        raise ConfigError(f"{name} = {value!r} in {reading.where}: {error}", hint="correct the value or take it out", code="CONFIG_FOREIGN") from None


def _reject_nearly(reading: _Reading, own: set[str], name: str) -> None:
    """A key that is nearly a foreign one, and nearer to it than to any of lorad's."""
    *groups, _ = name.split(".")
    foreign = {*NAMES, *UNREAD} - own
    if not set(groups) <= GROUPS:
        return
    close = nearest(name, sorted({*own, *foreign}))
    if any(repr(known) in close for known in foreign):
        raise ConfigError(f"unknown key {name!r} in {reading.where}", hint=nearest(name, sorted(foreign)), code="CONFIG_UNKNOWN_KEY")


# ---------------------------------------------------------------- keys that mean something together


def _combine_batches(reading: _Reading) -> None:
    """Rows of a pass, accumulation and effective batch. A pass that is "dynamic" is the trainer's own choice."""
    names = {key: reading.names[key] for key in BATCHES if key in reading.names}
    batch, device, accumulate, effective = (reading.pop(key) for key in BATCHES)
    for key in BATCHES:
        reading.names.pop(key, None)
    if batch is not None and effective is not None:
        raise ConfigError(
            f"{names['batch_size']!r} and {names['@effective']!r} in {reading.where} both set 'batch_size'", hint="write it once", code="CONFIG_CONFLICT"
        )
    if accumulate is not None and device is None and batch is not None:
        device, batch = batch, None
        names["@device"] = names["batch_size"]
    whole = next((part for part in (effective, batch) if part is not None), None)
    if whole is not None:
        reading.take("batch_size", names.get("@effective") or names["batch_size"], whole.number)
        if accumulate is not None:
            reading.note(names["@accumulate"], "left out: it follows from batch_size and training.micro_batch")
    elif device is not None and accumulate is not None:
        reading.take("batch_size", f"{names['@device']} x {names['@accumulate']}", device.number * accumulate.number)
    elif accumulate is not None:
        reading.note(names["@accumulate"], "left out: the trainer finds the rows of a pass by itself, and batch_size is the effective batch")
    if device is not None and device.is_dynamic:
        reading.note(names["@device"], "the rows of a pass are the trainer's own choice, by memory")
    elif device is not None:
        reading.take("training.micro_batch", names["@device"], device.number)


def _combine_method(reading: _Reading) -> None:
    """What is trained, and the quantisation of the base: an adapter on a 4-bit base is qlora."""
    names = {key: reading.names.pop(key) for key in ("@tuner", "@bits", "method") if key in reading.names}
    tuner, bits, method = reading.pop("@tuner"), reading.pop("@bits"), reading.pop("method")
    if tuner is not None and method is not None:
        raise ConfigError(f"{names['@tuner']!r} and {names['method']!r} in {reading.where} both set 'method'", hint="write it once", code="CONFIG_CONFLICT")
    asked = method if method is not None else tuner
    if bits is None and asked is None:
        return
    if bits == 4 and asked == "full":
        raise ConfigError(
            f"{reading.where}: a 4-bit base cannot be trained in full", hint="take the quantisation out, or train an adapter", code="CONFIG_CONFLICT"
        )
    said = " + ".join(names[key] for key in ("@tuner", "method", "@bits") if key in names)
    if bits == 4 and asked in (None, "lora", "qlora", "auto"):
        reading.take("method", said, "qlora")
    elif asked is not None:
        reading.take("method", said, asked)
    else:
        reading.note(names["@bits"], "the base is not quantised, as lorad does where it fits")


def _combine_scale(reading: _Reading) -> None:
    """mlx-lm's scale is alpha / r."""
    name, scale = reading.names.pop("@scale", ""), reading.pop("@scale")
    if scale is None:
        return
    rank = reading.values.get("lora.r")
    if not isinstance(rank, int):
        raise ConfigError(f"{name} = {scale!r} in {reading.where} is alpha / rank, and no rank stands beside it", hint="add lora.r", code="CONFIG_FOREIGN")
    reading.take("lora.alpha", name, max(1, round(scale * rank)))


def _place_base(reading: _Reading) -> None:
    """A base named by a path or a hub id is lorad's model_path, one named by a word its model_name."""
    name, base = reading.names.pop("@base", ""), reading.pop("@base")
    if base is not None:
        is_path = isinstance(base, str) and ("/" in base or base.startswith((".", "~")))
        reading.take("model_path" if is_path else "model_name", name, base)


def foreign_names() -> Iterator[tuple[str, str]]:
    """(foreign name, lorad's key) of every alias that stands for a value, for the documentation."""
    yield from ((name, key) for name, (key, _) in NAMES.items() if not key.startswith("@"))
