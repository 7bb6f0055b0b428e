"""What checks of the survey may look at besides the rows, and where they write what they count."""

from array import array
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import msgspec

from rendering.specs import Spec

if TYPE_CHECKING:
    from rendering.tokens import Renderer
from validation import loaded
from validation.case import Case
from validation.plainrows import PlainRows

T = TypeVar("T")
_ESCAPE = int.from_bytes(b"\\u", "little")
MOST_KEYS = 200_000  # of one counter; rare keys beyond it are dropped, the common ones stay


class Known(msgspec.Struct, frozen=True):
    """An earlier accepted drop of the adapter: the folder with rows.jsonl.zst and index.jsonl."""

    folder: str
    schema_id: str
    sha256: str


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """What lies around a file. Plain values only: it travels to the processes that survey parts of the file."""

    base: str = ""  # folder of the sealed base: tokenizer, chat template
    max_length: int = 0  # tokens; 0: not known
    max_overlong_share: float = 0.05
    references: tuple[str, ...] = ()  # evaluation sets that must not be inside
    train: str = ""  # the file is the validation set of this training file
    images: str = ""  # folder that picture paths are relative to; empty: the file's own
    embedder: str = ""  # folder of the sealed sentence model; empty: none
    known: tuple[Known, ...] = ()  # the adapter's earlier accepted drops, in order
    limits: Mapping[str, Mapping[str, float]] = {}  # check id -> limit -> value, where the profile differs from the defaults
    seed: int = 0


class Context:
    """Surroundings made ready in one process."""

    def __init__(self, spec: Spec, file: Path, around: Surroundings, defaults: Mapping[str, Mapping[str, float]]) -> None:
        self.spec = spec
        self.file = file
        self.around = around
        self._defaults = defaults
        self._made: dict[str, object] = {}

    def limit(self, check: str, name: str) -> float:
        """A limit of a check, by profile, else its default. Raises KeyError for one that the check does not declare."""
        set_here = self.around.limits.get(check, {})
        return set_here[name] if name in set_here else self._defaults[check][name]

    def once(self, name: str, make: Callable[[], T]) -> T:
        """A thing that is made once a process: a compiled pattern, an index of references."""
        if name not in self._made:
            self._made[name] = make()
        return cast(T, self._made[name])

    @property
    def renderer(self) -> "Renderer | None":
        """Tokenizer and template of the job's base; None where no base is known. Raises LoradError for a damaged one."""
        if not self.around.base:
            return None
        return self.once("renderer", lambda: loaded.renderer(Path(self.around.base)))

    @property
    def images(self) -> Path:
        """The folder that picture paths are relative to."""
        return Path(self.around.images) if self.around.images else self.file.parent


@dataclass
class Batch:
    """Some hundred typed rows in order; `sampled` are those of them that belong to the stratified sample.

    Where all of them are plain conversations, `plain` has their texts, and a check that looks at these alone makes no cases.
    """

    cases: Sequence[Case]
    sampled: list[Case]
    context: Context
    plain: PlainRows | None = None

    @cached_property
    def raw(self) -> bytes:
        """The bytes of all rows, one a line: one look at them tells what is in none."""
        return self.plain.block if self.plain else b"\n".join([case.raw for case in self.cases])

    def holding(self, texts: Sequence[int]) -> list[Case]:
        """Of plain rows those that hold some of `plain.texts`, by their places there."""
        return [self.cases[place] for place in self.plain.places(texts)] if self.plain else []

    @cached_property
    def has_escapes(self) -> bool:
        """Whether a backslash and a "u" stand side by side in a row."""
        import numpy as np

        # Two bytes as one number, at even and at odd places: many times as fast as a search for two common bytes.
        halves = (np.frombuffer(self.raw, "<u2", (len(self.raw) - odd) // 2, odd) for odd in (0, 1))
        return any(bool((half == _ESCAPE).any()) for half in halves)

    @cached_property
    def beyond_ascii(self) -> list[Case]:
        """The rows whose texts may hold more than ASCII."""
        if self.has_escapes:
            return [case for case in self.cases if not case.raw.isascii() or b"\\u" in case.raw]
        return [] if self.raw.isascii() else [case for case in self.cases if not case.raw.isascii()]


class Sheet:
    """What checks wrote while they surveyed a part of the rows. Sheets of parts merge in order of the parts."""

    def __init__(self) -> None:
        self._counters: dict[str, Counter[str]] = {}
        self._columns: dict[str, array[int]] = {}
        self.num_rows = 0
        self.num_sampled = 0

    def counter(self, name: str) -> Counter[str]:
        """A counter of texts under this name."""
        return self._counters.setdefault(name, Counter())

    def column(self, name: str) -> "array[int]":
        """A column of unsigned 64-bit numbers; append one a row."""
        return self._columns.setdefault(name, array("Q"))

    def merge(self, later: "Sheet") -> None:
        """Add the sheet of the part that follows."""
        for name, counts in later._counters.items():
            self.counter(name).update(counts)
        for name, values in later._columns.items():
            self.column(name).extend(values)
        self.num_rows += later.num_rows
        self.num_sampled += later.num_sampled

    def bounded(self) -> None:
        """Drop the rare keys of counters that grew too large."""
        for name, counts in self._counters.items():
            if len(counts) > MOST_KEYS:
                self._counters[name] = Counter(dict(counts.most_common(MOST_KEYS // 2)))

    def to_plain(self) -> dict[str, Any]:
        """For another process."""
        columns = {name: values.tobytes() for name, values in self._columns.items()}
        return {"counters": self._counters, "columns": columns, "num_rows": self.num_rows, "num_sampled": self.num_sampled}

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> "Sheet":
        """From another process."""
        sheet = cls()
        sheet._counters = {name: Counter(counts) for name, counts in plain["counters"].items()}
        for name, values in plain["columns"].items():
            sheet.column(name).frombytes(values)
        sheet.num_rows, sheet.num_sampled = plain["num_rows"], plain["num_sampled"]
        return sheet


@dataclass(frozen=True, slots=True)
class Pair:
    """A row of the small sample that models look at: question and answer as text."""

    line: int
    question: str
    answer: str
