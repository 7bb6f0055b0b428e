"""The list of checks. One check is one small function that says what it needs; one pass over the file feeds them all.

To add one: write the function in the module of its kind, decorate it with `@entered(Check(...))`. Nothing else.

    FILE   what is known before reading            (Opened)   -> Problem | None
    HEAD   the first 512 bytes                     (bytes)    -> Problem | None
    LINE   a physical line, blank ones left out    (Line)     -> Problem | None
    BROKEN a line that is not JSON; in order of `rank`, the first check that answers ends the search
    VALUE  a line that is JSON, but no row of the spec        (Value) -> problems
    ROW    a typed row                             (Case)     -> Problem | None
    END    what the whole file adds up to          (Totals)   -> Problem | None
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from rendering.specs import Message, Spec, SpecRow
from validation.control import ControlTokens
from validation.findings import Level, Limits, Problem, Severity


class Need(StrEnum):
    """What a check is fed with."""

    FILE = "file"
    HEAD = "head"
    LINE = "line"
    BROKEN = "broken"
    VALUE = "value"
    ROW = "row"
    END = "end"


@dataclass(frozen=True, slots=True)
class Opened:
    """A file before it is read: why it cannot be (a sentence), or its size."""

    obstacle: str
    size_bytes: int
    limits: Limits


@dataclass(slots=True)
class Line:
    """A physical line without its "\\n". `raw` is cut where `size_bytes` is over the limit."""

    number: int
    offset: int  # of its first byte in the file
    raw: bytes
    size_bytes: int
    ended: bool  # whether a "\n" follows
    limits: Limits


@dataclass(frozen=True, slots=True)
class Broken:
    """A line that is not JSON. `text` is None where it is not UTF-8; `error` and `position` are the parser's own, in characters."""

    line: Line
    text: str | None
    error: str
    position: int


@dataclass(slots=True)
class Value:
    """A line that is JSON, but not a row of the spec. `complaint` is the typed decoder's own sentence."""

    line: Line
    plain: Any
    spec: Spec
    complaint: str
    marks: "Marks"
    num_errors: int = 0  # that checks of a lower rank found in this line


@dataclass(slots=True)
class Marks:
    """What the forgiving parser saw on its way: things that JSON parsers pass over in silence."""

    duplicates: list[str] = field(default_factory=list)
    nonfinite: list[str] = field(default_factory=list)
    surrogate: bool = False
    depth: int = 0


@dataclass(slots=True)
class Case:
    """A typed row with the turns that it is rendered to."""

    raw: bytes
    row: SpecRow
    messages: list[Message]
    control: ControlTokens


@dataclass(slots=True)
class Totals:
    """What a pass counted."""

    spec: Spec
    size_bytes: int = 0
    lines: int = 0
    rows: int = 0
    typed_rows: int = 0
    unreadable_rows: int = 0
    learnt_rows: int = 0
    turns: int = 0
    longest_row_bytes: int = 0
    blank_lines: int = 0
    blank_inside: list[int] = field(default_factory=list)  # the first few
    num_blank_inside: int = 0
    layouts: dict[str, list[int]] = field(default_factory=dict)  # layout -> its first lines
    layout_rows: dict[str, int] = field(default_factory=dict)


Finder = Callable[[Any], Problem | Iterable[Problem] | None]


@dataclass(frozen=True, slots=True)
class Check:
    """One unit. `specs` empty means every spec; of checks with one need, a lower `rank` runs first."""

    id: str
    name: str
    severity: Severity
    need: Need
    hint: str
    specs: tuple[str, ...] = ()
    level: Level = Level.QUICK
    rank: int = 0
    find: Finder = lambda fed: None


CHECKS: list[Check] = []


def entered(check: Check) -> Callable[[Finder], Finder]:
    """Decorates the function of a check and enters both into the registry."""

    def enter(find: Finder) -> Finder:
        CHECKS.append(replace(check, find=find))
        return find

    return enter


def checks_for(spec: Spec | None, level: Level) -> Mapping[Need, tuple[Check, ...]]:
    """The checks that run on a file, by what they need, in order."""
    wanted = [one for one in CHECKS if one.level in level.included and (spec is None or not one.specs or spec.id in one.specs)]
    return {need: tuple(sorted((one for one in wanted if one.need is need), key=lambda one: one.rank)) for need in Need}
