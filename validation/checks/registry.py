"""The list of checks. One check is one small function that says what it needs; one pass over the file feeds them all.

To add one: write the function in the module of its kind, decorate it with `@entered(Check(...))`. Nothing else.

While the bytes are read once (every level):

    FILE   what is known before reading            (Opened)   -> Problem | None
    HEAD   the first 512 bytes                     (bytes)    -> Problem | None
    LINE   a physical line, blank ones left out    (Line)     -> Problem | None
    BROKEN a line that is not JSON; in order of `rank`, the first check that answers ends the search
    VALUE  a line that is JSON, but no row of the spec        (Value) -> problems
    ROW    a typed row                             (Case)     -> Problem | None
    END    what the whole file adds up to          (Totals)   -> Problem | None

While the rows are surveyed (standard and deep), in one process or in several:

    EACH   every typed row                         (Case, Context)  -> problems
    SAMPLE the rows of the stratified sample       (Case, Context)  -> problems
    BATCH  some hundred typed rows at a time       (Batch, Sheet)   -> (line, Problem) pairs

A surveyed check may also have `conclude`: called once at the end with the Survey, whose sheet holds what all processes
wrote. Every row that has a problem counts once. A check with the limit `warn_share` is silent at or under that share of
the rows that it saw; one with `error_share` refuses the file from that share on. Limits are set by profile.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from rendering.specs import Spec
from validation.findings import Level, Limits, Problem, Severity

if TYPE_CHECKING:
    from validation.context import Context
    from validation.survey import Survey


class Need(StrEnum):
    """What a check is fed with."""

    FILE = "file"
    HEAD = "head"
    LINE = "line"
    BROKEN = "broken"
    VALUE = "value"
    ROW = "row"
    END = "end"
    EACH = "each"
    SAMPLE = "sample"
    BATCH = "batch"


SURVEYED = (Need.EACH, Need.SAMPLE, Need.BATCH)


@dataclass(frozen=True, slots=True)
class Opened:
    """A file before it is read: why it cannot be (a sentence), or its size."""

    obstacle: str
    size_bytes: int
    limits: Limits
    name: str = ""


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
    shape: Any = None  # what the checks of the shape work out once


@dataclass(slots=True)
class Marks:
    """What the forgiving parser saw on its way: things that JSON parsers pass over in silence."""

    duplicates: list[str] = field(default_factory=list)
    nonfinite: list[str] = field(default_factory=list)
    surrogate: bool = False
    depth: int = 0
    big_integer: str = ""


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
    carriage_returns: int = 0  # lines that end with "\r\n"
    ended: bool = True  # whether the last line ends with "\n"
    layouts: dict[str, list[int]] = field(default_factory=dict)  # layout -> its first lines
    layout_rows: dict[str, int] = field(default_factory=dict)
    moved: Callable[[], str] = lambda: ""  # whether the file changed while it was read: how, in words


Finder = Callable[..., Any]


def _ready(context: "Context") -> str:
    return ""


@dataclass(frozen=True, slots=True)
class Check:
    """One unit. Of checks with one need, a lower `rank` runs first."""

    id: str
    name: str
    severity: Severity
    need: Need
    hint: str  # what to do
    why: str = ""  # why it matters, in one sentence
    specs: tuple[str, ...] = ()  # ids; empty means every spec
    families: tuple[str, ...] = ()  # of specs; empty means every family
    level: Level = Level.QUICK
    rank: int = 0
    limits: Mapping[str, float] = field(default_factory=dict)  # defaults by name; a profile may set others
    ready: "Callable[[Context], str]" = _ready  # why the check cannot run here; empty: it can
    find: Finder = lambda *fed: None
    conclude: "Callable[[Survey], Iterable[Problem]] | None" = None

    def applies_to(self, spec: Spec) -> bool:
        """Whether the check is for rows of this spec."""
        return (not self.specs or spec.id in self.specs) and (not self.families or spec.family in self.families)


CHECKS: list[Check] = []


def entered(check: Check) -> Callable[[Finder], Finder]:
    """Decorates the function of a check and enters both into the registry."""

    def enter(find: Finder) -> Finder:
        CHECKS.append(replace(check, find=find))
        return find

    return enter


def checks_for(spec: Spec, level: Level, off: frozenset[str] = frozenset()) -> Mapping[Need, tuple[Check, ...]]:
    """The checks that run on a file, by what they need, in order; those whose id is in `off` do not."""
    wanted = [one for one in CHECKS if one.level in level.included and one.applies_to(spec) and one.id not in off]
    return {need: tuple(sorted((one for one in wanted if one.need is need), key=lambda one: one.rank)) for need in Need}
