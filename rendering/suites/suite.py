"""A suite file: JSON Lines, one item a line, a first line about the suite where one likes. Torch-free.

    {"suite": "capitals", "about": "capitals of countries", "max_new_tokens": 32}
    {"id": "fr", "prompt": "What is the capital of France?", "choices": ["Paris.", "Lyon.", "Nice."], "right": 0}
    {"id": "it", "prompt": "What is the capital of Italy?", "check": [{"kind": "contains", "texts": ["Rome"]}]}

An item is asked by `prompt` (one user turn) or `messages`, with `tools` where it has some, and judged in one of two ways:

- `choices`: answers of which the one at `right` is right. Nothing is generated: each is scored by its likelihood, and the
  value of the item is the right one's share of the probability that the model gives to all of them together.
- `check`: the model writes an answer, greedily; the value is the share of the checks that hold (`rendering.suites.checks`).

Items of one `group` (default: the item alone) are resampled together. A file with a fault is refused, with every fault named.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import msgspec

from core.errors import ConfigError
from rendering.specs import BAD_JSON, Message
from rendering.suites.checks import AnyCheck, Check

MAX_NEW_TOKENS = 96
MOST_FAULTS = 20  # told of one file
MOST_BYTES = 64 << 20


class About(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The first line of a suite file."""

    suite: str
    about: str = ""
    max_new_tokens: Annotated[int, msgspec.Meta(ge=1, le=4096)] = MAX_NEW_TOKENS


class _Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    id: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    prompt: str = ""
    messages: tuple[Message, ...] = ()
    tools: tuple[dict[str, Any], ...] = ()
    group: str = ""
    choices: tuple[str | Message, ...] = ()
    right: Annotated[int, msgspec.Meta(ge=0)] | None = None
    check: tuple[AnyCheck, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One question: what is asked, and of which group it is."""

    id: str
    group: str
    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices(Item):
    """Judged by the likelihood of answers; nothing is generated."""

    choices: tuple[Message, ...]
    right: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Written(Item):
    """Judged by checks of a generated answer."""

    checks: tuple[Check, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """A suite file, read. `sha256` is over its bytes."""

    name: str
    sha256: str
    about: str = ""
    max_new_tokens: int = MAX_NEW_TOKENS
    items: tuple[Choices | Written, ...] = field(default=())

    @property
    def is_generated(self) -> bool:
        """Whether some of its items ask for a written answer."""
        return any(isinstance(item, Written) for item in self.items)


def value_of(item: Written, answer: str) -> float:
    """The share of the item's checks that hold for this answer, 0 to 1."""
    return sum(check.holds(answer) for check in item.checks) / len(item.checks)


_about = msgspec.json.Decoder(About)
_line = msgspec.json.Decoder(_Line)


def read_suite(path: Path, name: str = "") -> Suite:
    """The suite of a file, under its stem or `name`. Raises ConfigError SUITE_DAMAGED, which names every line that is wrong."""
    name = name or path.stem
    try:
        if path.stat().st_size > MOST_BYTES:
            raise _damaged(path, [f"it has more than {MOST_BYTES >> 20} MiB"])
        raw = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"the suite {name!r} cannot be read: {path}: {error.strerror}", hint="`lorad suites list` shows which there are", code="SUITE_MISSING"
        ) from None
    about, items, faults = About(suite=name), list[Choices | Written](), list[str]()
    seen: dict[str, int] = {}
    for number, line in enumerate(raw.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            if number == 1 and b'"suite"' in line and _is_about(line):
                about = _about.decode(line)
                continue
            item = _item(_line.decode(line))
        except (*BAD_JSON, ValueError) as error:
            faults.append(f"line {number}: {error}")
            continue
        if item.id in seen:
            faults.append(f"line {number}: the id {item.id!r} stands in line {seen[item.id]} too")
        seen.setdefault(item.id, number)
        items.append(item)
    if not items and not faults:
        faults.append("it holds no item")
    if faults:
        raise _damaged(path, faults)
    return Suite(name=name, sha256=hashlib.sha256(raw).hexdigest(), about=about.about, max_new_tokens=about.max_new_tokens, items=tuple(items))


def _is_about(line: bytes) -> bool:
    value = msgspec.json.decode(line)
    return isinstance(value, dict) and "suite" in value


def _item(line: _Line) -> Choices | Written:
    """The item of a line. Raises ValueError in words."""
    if bool(line.prompt) == bool(line.messages):
        raise ValueError("give either `prompt` (one user turn) or `messages`")
    messages = line.messages or (Message("user", line.prompt),)
    if messages[-1].role not in ("user", "tool"):
        raise ValueError(f"the last message is of {messages[-1].role!r}; the answer must be the model's")
    asked: Mapping[str, Any] = {"id": line.id, "group": line.group or line.id, "messages": messages, "tools": line.tools}
    if bool(line.choices) == bool(line.check):
        raise ValueError("give either `choices` with `right`, or `check`")
    if line.check:
        if line.right is not None:
            raise ValueError("`right` belongs to `choices`")
        if troubles := [trouble for check in line.check if (trouble := check.trouble())]:
            raise ValueError("; ".join(troubles))
        return Written(**asked, checks=line.check)
    return Choices(**asked, choices=_choices(line.choices), right=_right(line))


def _choices(given: Sequence[str | Message]) -> tuple[Message, ...]:
    choices = tuple(Message("assistant", choice) if isinstance(choice, str) else choice for choice in given)
    if len(choices) < 2:
        raise ValueError("one choice is no choice: give at least two")
    if any(choice.role != "assistant" or not (choice.content.strip() or choice.tool_calls) for choice in choices):
        raise ValueError("each of `choices` is an answer of the assistant that says something")
    if len({msgspec.json.encode(choice) for choice in choices}) < len(choices):
        raise ValueError("two of `choices` are the same")
    return choices


def _right(line: _Line) -> int:
    if line.right is None or line.right >= len(line.choices):
        raise ValueError(f"`right` is the place of the right one among {len(line.choices)} choices, from 0; it is {line.right!r}")
    return line.right


def _damaged(path: Path, faults: Sequence[str]) -> ConfigError:
    more = f"\n  and {len(faults) - MOST_FAULTS} more" if len(faults) > MOST_FAULTS else ""
    told = "".join(f"\n  {fault}" for fault in faults[:MOST_FAULTS])
    return ConfigError(f"{path} is no suite:{told}{more}", hint="see docs/howto/own-suite.md; `lorad suites show FILE` tries again", code="SUITE_DAMAGED")
