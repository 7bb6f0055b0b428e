"""The second pass, for standard and deep: typed rows in batches, over the bytes that the first pass has hashed.

The first pass cuts the file into segments at line ends and keeps a hash of each. A process that surveys a part reads
its segments again and refuses bytes whose hash is another, so both passes have judged the same file.
"""

import gc
import os
import threading
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import xxhash

from rendering.specs import BAD_JSON, Spec
from validation.case import Case
from validation.checks import CHECKS, checks_for
from validation.checks.files import BOM
from validation.checks.registry import SURVEYED, Check, Need, Totals
from validation.context import Batch, Context, Pair, Sheet, Surroundings
from validation.control import ControlTokens
from validation.findings import Level, Limits, Problem
from validation.plainrows import LazyCases, PlainReader, PlainRows
from validation.segments import Segment, read_segment
from validation.tally import Tally

if TYPE_CHECKING:
    from validation.shards import Shards

BLOCK_ROWS = 128  # lines that are plain rows together, or are looked at one by one
BATCH_ROWS = 16 * BLOCK_ROWS
SELDOM = 100_000  # new objects between two runs of the garbage collector
MOST_SEGMENT_BYTES = 256 << 20  # only a row without end makes a larger one
SAMPLE_ROWS = 50_000
PAIRS = 1_000  # at least; at most twice as many
RUN = 20  # neighbours of that sample
_NEWLINE = b"\n"[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class SurveyPlan:
    """What is surveyed and how."""

    file: Path
    spec: Spec
    level: Level
    limits: Limits
    around: Surroundings
    control: ControlTokens
    off: frozenset[str] = frozenset()
    num_lines: int = 0  # physical lines of the file
    segments: Sequence[Segment] = ()  # all of the file's, once it was read
    keep_rows: bool = False


def defaults() -> dict[str, dict[str, float]]:
    """Every limit of every check."""
    found: dict[str, dict[str, float]] = {}
    for check in CHECKS:
        found.setdefault(check.id, {}).update(check.limits)
    return found


class Part(NamedTuple):
    """What one process found; `not_run` is check id -> why."""

    sheet: Sheet
    tally: Tally
    not_run: dict[str, str]


class Surveyor:
    """Surveys some segments in this process."""

    def __init__(self, plan: SurveyPlan) -> None:
        self.plan = plan
        self.context = Context(plan.spec, plan.file, plan.around, defaults())
        self.sheet = Sheet()
        self.tally = Tally(plan.keep_rows)
        self.not_run: dict[str, str] = {}
        self._checks = self._ready(checks_for(plan.spec, plan.level, plan.off))
        self._sample = Stratified(plan.num_lines, SAMPLE_ROWS, plan.around.seed)
        self._reader = PlainReader(plan.spec, plan.limits.max_row_bytes)

    def _ready(self, checks: Any) -> dict[Need, tuple[Check, ...]]:
        ready: dict[Need, tuple[Check, ...]] = {}
        for need in SURVEYED:
            for check in checks[need]:
                if reason := check.ready(self.context):
                    self.not_run[check.id] = reason
            ready[need] = tuple(check for check in checks[need] if check.id not in self.not_run)
        return ready

    @property
    def concluding(self) -> list[Check]:
        """The checks that speak once all rows are read."""
        return [check for checks in self._checks.values() for check in checks if check.conclude]

    def go(self, segments: Iterable[Segment], on_progress: Callable[[int], None] = lambda size_bytes: None) -> None:
        """Feed the rows of the segments to the checks. Raises LoradError FILE_CHANGED, OSError."""
        fd = os.open(self.plan.file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        thresholds = gc.get_threshold()
        gc.set_threshold(SELDOM, *thresholds[1:])  # a batch makes thousands of texts and hardly a cycle
        try:
            for segment in segments:
                if segment.size_bytes > MOST_SEGMENT_BYTES:
                    last = segment.first_line + segment.num_lines - 1
                    self.not_run[f"lines {segment.first_line:,} to {last:,}"] = "they hold a row too large to be read"
                    continue
                self._segment(read_segment(fd, segment, self.plan.file), segment)
                on_progress(segment.size_bytes)
        finally:
            gc.set_threshold(*thresholds)
            os.close(fd)

    def _segment(self, content: bytes, segment: Segment) -> None:
        """Feed the rows of a segment, in order: plain ones together, the others as cases."""
        cases: list[Case] = []
        plain: list[PlainRows] = []
        for number, block in blocks_of(content, segment.first_line):
            rows = self._reader.read(block, number)
            if rows is None:
                self._plain_batch(plain)
                plain = []
                cases += cases_of(block, number, self.plan)
            else:
                self._batch(cases)
                cases = []
                plain.append(rows)
            if len(cases) >= BATCH_ROWS:
                self._batch(cases)
                cases = []
            if len(plain) * BLOCK_ROWS >= BATCH_ROWS:
                self._plain_batch(plain)
                plain = []
        self._plain_batch(plain)
        self._batch(cases)

    def _plain_batch(self, parts: list[PlainRows]) -> None:
        if parts:
            rows = PlainRows.joined(parts)
            cases = LazyCases(rows, partial(_case, self.plan))
            wanted = self._sample.lines(rows.lines[0], rows.lines[-1])
            self._judge(Batch(cases, [cases[line - rows.first_line] for line in rows.lines if line in wanted], self.context, rows))

    def _batch(self, cases: list[Case]) -> None:
        if cases:
            wanted_lines = self._sample.lines(cases[0].line, cases[-1].line)
            self._judge(Batch(cases, [case for case in cases if case.line in wanted_lines], self.context))

    def _judge(self, batch: Batch) -> None:
        self.sheet.num_rows += len(batch.cases)
        self.sheet.num_sampled += len(batch.sampled)
        for check in self._checks[Need.BATCH]:
            for line, problem in check.find(batch, self.sheet) or ():
                self.tally.add(check, problem, line)
        for need, wanted in ((Need.EACH, batch.cases), (Need.SAMPLE, batch.sampled)):
            for check in self._checks[need]:
                find = check.find
                for case in wanted:
                    found = find(case, self.context)
                    if found is not None:
                        for problem in (found,) if isinstance(found, Problem) else found:
                            self.tally.add(check, problem, case.line)
        self.sheet.bounded()


class Stratified:
    """Which lines belong to a sample of at least `wanted`: one of each stratum of neighbours, at a place that the seed draws."""

    def __init__(self, num_lines: int, wanted: int, seed: int = 0) -> None:
        self.step = max(1, num_lines // wanted)
        self._seed = seed

    def holds(self, line: int) -> bool:
        """Whether the line is in the sample."""
        return line == self._of((line - 1) // self.step)

    def lines(self, first: int, last: int) -> "Container[int]":
        """The lines of the sample between two lines, and some around them."""
        if self.step == 1:
            return range(first, last + 1)
        return {self._of(stratum) for stratum in range((first - 1) // self.step, (last - 1) // self.step + 1)}

    def _of(self, stratum: int) -> int:
        return stratum * self.step + xxhash.xxh3_64_intdigest(stratum.to_bytes(8, "little"), self._seed) % self.step + 1


def blocks_of(content: bytes, first_line: int) -> Iterator[tuple[int, bytes]]:
    """The content in blocks of whole lines, each with the number of its first line."""
    import numpy as np

    ends = (np.flatnonzero(np.frombuffer(content, np.uint8) == _NEWLINE) + 1)[BLOCK_ROWS - 1 :: BLOCK_ROWS].tolist()
    if not ends or ends[-1] < len(content):
        ends.append(len(content))
    start = 0
    for place, end in enumerate(ends):
        yield first_line + place * BLOCK_ROWS, content[start:end]
        start = end


def cases_of(content: bytes, first_line: int, plan: SurveyPlan, only: "set[int] | None" = None) -> Iterator[Case]:
    """The typed rows of some lines' bytes, or those at some of them; those that the first pass has refused are left out."""
    most = plan.limits.max_row_bytes
    for number, raw in enumerate(content.split(b"\n"), start=first_line):
        if only is not None and number not in only:
            continue
        if number == 1:
            raw = raw.removeprefix(BOM)
        if not raw or len(raw) > most or raw.isspace():
            continue
        try:
            case = _case(plan, number, raw)
        except BAD_JSON:
            continue
        yield case


def _case(plan: SurveyPlan, line: int, raw: bytes) -> Case:
    row, plain = plan.spec.decode_plain(raw)
    case = Case(line, raw, row, plan.spec, plan.control)
    case.plain = plain
    return case


@dataclass
class Survey:
    """The whole survey, for checks that conclude: everything that was written, and a way back to the rows."""

    plan: SurveyPlan
    context: Context
    sheet: Sheet
    totals: Totals
    embedder: "Callable[[Sequence[str]], Any] | None" = None
    """Sentence embeddings as a float32 array (texts, dimensions) of unit length; None where no model is installed."""
    notes: dict[str, str] = field(default_factory=dict)
    """Check id -> why it, or a part of it, did not run."""
    stats: dict[str, Any] = field(default_factory=dict)
    """Figures for the report, by name."""

    def rows_at(self, lines: Iterable[int]) -> dict[int, Case]:
        """The typed rows of these lines, read again."""
        wanted = sorted(set(lines))
        found: dict[int, Case] = {}
        fd = os.open(self.plan.file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            for segment in self.plan.segments:
                here = {line for line in wanted if segment.first_line <= line < segment.first_line + segment.num_lines}
                if here:
                    content = read_segment(fd, segment, self.plan.file)
                    found |= {case.line: case for case in cases_of(content, segment.first_line, self.plan, here)}
        finally:
            os.close(fd)
        return found

    @cached_property
    def pairs(self) -> list[Pair]:
        """Question and answer of a small stratified sample, for models, in order: runs of neighbours, so that a shift shows."""
        sample = Stratified(-(-self.plan.num_lines // RUN), PAIRS // RUN, self.plan.around.seed)
        lines = [line for line in range(1, self.plan.num_lines + 1) if sample.holds((line - 1) // RUN + 1)]
        cases = self.rows_at(lines)
        return [Pair(case.line, case.question, case.answer) for case in cases.values() if case.question.strip() and case.answer.strip()]


@dataclass(kw_only=True)
class Surveyed:
    """What a survey found."""

    tally: Tally
    sheet: Sheet
    context: Context
    not_run: dict[str, str]
    stats: dict[str, Any]


def survey(plan: SurveyPlan, totals: Totals, told: "Progress", shards: "Shards | None" = None) -> Surveyed:
    """Survey a whole file; `shards` survey a part of it already. Raises LoradError FILE_CHANGED, SURVEY_DIED, OSError."""
    told.begin()
    surveyor = Surveyor(plan)
    if shards is None:
        surveyor.go(plan.segments, told.add)
    else:
        surveyor.go(shards.rest(plan.segments), told.add)
        sheet, tally = Sheet(), Tally(plan.keep_rows)
        for found in (*shards.found(), Part(surveyor.sheet, surveyor.tally, surveyor.not_run)):
            sheet.merge(found.sheet)
            tally.merge(found.tally)
            surveyor.not_run |= found.not_run
        surveyor.sheet, surveyor.tally = sheet, tally
    whole = Survey(plan, surveyor.context, surveyor.sheet, totals, embedder=_embedder(plan), notes=surveyor.not_run)
    for check in surveyor.concluding:
        assert check.conclude is not None
        for problem in check.conclude(whole):
            surveyor.tally.add(check, problem)
    return Surveyed(tally=surveyor.tally, sheet=surveyor.sheet, context=surveyor.context, not_run=surveyor.not_run, stats=whole.stats)


def _embedder(plan: SurveyPlan) -> "Callable[[Sequence[str]], Any] | None":
    if not plan.around.embedder:
        return None
    from store.embedding import Embedder

    return Embedder(Path(plan.around.embedder))


class Progress:
    """Sums up what several threads have done, and tells it once the survey has begun."""

    def __init__(self, total_bytes: int, stage: str, on_progress: Callable[[str, int, int], None]) -> None:
        self._total, self._stage, self._on_progress = total_bytes, stage, on_progress
        self._done = 0
        self._begun = False
        self._lock = threading.Lock()

    def begin(self) -> None:
        """From now on it is told."""
        self._begun = True

    def add(self, size_bytes: int) -> None:
        """More bytes are done."""
        with self._lock:
            self._done += size_bytes
            if self._begun:
                self._on_progress(self._stage, self._done, self._total)
