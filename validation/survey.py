"""The second pass, for standard and deep: typed rows in batches, over the bytes that the first pass has hashed.

The first pass cuts the file into segments at line ends and keeps a hash of each. A process that surveys a part reads
its segments again and refuses bytes whose hash is another, so both passes have judged the same file.
"""

import gc
import os
import threading
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import xxhash

from rendering.specs import BAD_JSON, Spec
from validation.case import Case
from validation.checks import CHECKS, checks_for
from validation.checks.files import BOM
from validation.checks.registry import SURVEYED, Check, Need, Totals
from validation.context import Batch, Context, Pair, Sheet, Surroundings
from validation.control import ControlTokens
from validation.findings import Level, Limits, Problem
from validation.segments import Segment, read_segment
from validation.tally import Tally

BATCH_ROWS = 512
SELDOM = 100_000  # new objects between two runs of the garbage collector
MOST_SEGMENT_BYTES = 256 << 20  # only a row without end makes a larger one
SAMPLE_ROWS = 50_000
PAIRS = 1_000  # at least; at most twice as many
RUN = 20  # neighbours of that sample


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
    segments: Sequence[Segment] = ()
    keep_rows: bool = False

    @property
    def num_lines(self) -> int:
        """Physical lines of all segments."""
        return sum(segment.num_lines for segment in self.segments)


def defaults() -> dict[str, dict[str, float]]:
    """Every limit of every check."""
    found: dict[str, dict[str, float]] = {}
    for check in CHECKS:
        found.setdefault(check.id, {}).update(check.limits)
    return found


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
        cases: list[Case] = []
        for case in cases_of(content, segment, self.plan):
            cases.append(case)
            if len(cases) >= BATCH_ROWS:
                self._batch(cases)
                cases = []
        if cases:
            self._batch(cases)

    def _batch(self, cases: list[Case]) -> None:
        wanted_lines = self._sample.lines(cases[0].line, cases[-1].line)
        sampled = [case for case in cases if case.line in wanted_lines]
        batch = Batch(cases, sampled, self.context)
        self.sheet.num_rows += len(cases)
        self.sheet.num_sampled += len(sampled)
        for check in self._checks[Need.BATCH]:
            for line, problem in check.find(batch, self.sheet) or ():
                self.tally.add(check, problem, line)
        for need, wanted in ((Need.EACH, cases), (Need.SAMPLE, sampled)):
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


def cases_of(content: bytes, segment: Segment, plan: SurveyPlan, only: "set[int] | None" = None) -> Iterator[Case]:
    """The typed rows of a segment's bytes, or those at some lines; those that the first pass has refused are left out."""
    decode, spec, control, most = plan.spec.decode_plain, plan.spec, plan.control, plan.limits.max_row_bytes
    for number, raw in enumerate(content.split(b"\n"), start=segment.first_line):
        if only is not None and number not in only:
            continue
        if number == 1:
            raw = raw.removeprefix(BOM)
        if not raw or len(raw) > most or raw.isspace():
            continue
        try:
            row, plain = decode(raw)
        except BAD_JSON:
            continue
        case = Case(number, raw, row, spec, control)
        case.plain = plain
        yield case


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
                    found |= {case.line: case for case in cases_of(content, segment, self.plan, here)}
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


def survey(plan: SurveyPlan, totals: Totals, processes: int, on_progress: Callable[[str, int, int], None]) -> Surveyed:
    """Survey a whole file, in as many processes as it is worth. Raises LoradError FILE_CHANGED, SURVEY_DIED, OSError."""
    from validation.shards import Shard, parts_of

    told = _Progress(sum(segment.size_bytes for segment in plan.segments), plan.level.value, on_progress)
    own, *others = parts_of(plan.segments, processes)
    shards = [Shard(plan, part, told.add) for part in others]
    try:
        surveyor = Surveyor(plan)
        surveyor.go(own, told.add)
        for shard in shards:
            sheet, tally = shard.found()
            surveyor.sheet.merge(sheet)
            surveyor.tally.merge(tally)
    finally:
        for shard in shards:
            shard.end()
    whole = Survey(plan, surveyor.context, surveyor.sheet, totals, embedder=_embedder(plan), notes=surveyor.not_run)
    for check in surveyor.concluding:
        assert check.conclude is not None
        for problem in check.conclude(whole):
            surveyor.tally.add(check, problem)
    return Surveyed(tally=surveyor.tally, sheet=surveyor.sheet, context=surveyor.context, not_run=surveyor.not_run, stats=whole.stats)


def _embedder(plan: SurveyPlan) -> "Callable[[Sequence[str]], Any] | None":
    if not plan.around.embedder:
        return None
    from validation.embedding import Embedder

    return Embedder(Path(plan.around.embedder))


class _Progress:
    """Sums up what several threads have done."""

    def __init__(self, total_bytes: int, stage: str, on_progress: Callable[[str, int, int], None]) -> None:
        self._total, self._stage, self._on_progress = total_bytes, stage, on_progress
        self._done = 0
        self._lock = threading.Lock()

    def add(self, size_bytes: int) -> None:
        """More bytes are done."""
        with self._lock:
            self._done += size_bytes
            self._on_progress(self._stage, self._done, self._total)
