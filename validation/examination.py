"""One file through the gate: the first pass, the survey, the report."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rendering.specs import Spec
from validation.checks.registry import SURVEYED, Check, Need
from validation.commands import Options, named
from validation.context import Surroundings
from validation.control import ControlTokens
from validation.findings import Level, Limits
from validation.report import Report, Sampled
from validation.scan import OnRow, Plan, Scan
from validation.segments import Segment
from validation.source import Source
from validation.survey import Progress, Surveyed, SurveyPlan, survey

if TYPE_CHECKING:
    from validation.shards import Shards

MOST_UNREADABLE = 0.5  # share of rows that are not of the schema, above which a survey would say nothing of use

OnProgress = Callable[[str, int, int], None]


def _silent(stage: str, done: int, total: int) -> None:
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """How files are examined.

    `off` are ids of checks that do not run; `keep_rows` remembers every line with a problem, for quarantine and repair;
    `on_progress` is told (stage, bytes done, bytes in all).
    """

    limits: Limits = field(default_factory=Limits)
    around: Surroundings = field(default_factory=Surroundings)
    off: frozenset[str] = frozenset()
    profile: str = "default"
    processes: int = 1
    keep_rows: bool = False
    on_progress: OnProgress = _silent
    options: Options | None = None
    """Options that the commands of a report carry; None: worked out from the rest."""
    is_schema_said: bool = True
    """Whether a person said the schema; else it is the default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """The report on a file, and what is known of single rows where the setting keeps it: line -> ids of its checks.

    `error_rows` are those whose problem is an error by itself; a share may make errors of the others.
    """

    report: Report
    rows: Mapping[int, set[str]] = field(default_factory=dict)
    error_rows: Mapping[int, set[str]] = field(default_factory=dict)
    surveyed: Surveyed | None = None


class Examination:
    """One file of a known schema. Use once: `begin`, then `read`, then `end`."""

    def __init__(self, source: Source, spec: Spec, level: Level, setting: Setting, control: ControlTokens, on_row: OnRow | None = None) -> None:
        self._source, self._spec, self._level, self._setting, self._control = source, spec, level, setting, control
        self._started = time.monotonic()
        self._read_bytes = 0
        self._shards: Shards | None = None
        self._told = Progress(source.opened.size_bytes, level.value, setting.on_progress)
        images = Path(setting.around.images) if setting.around.images else source.path.parent
        plan = Plan(spec=spec, level=level, limits=setting.limits, control=control, off=setting.off, keep_rows=setting.keep_rows, images=images)
        self.scan = Scan(plan, on_row, self._progress)
        self.scan.totals.moved = source.moved

    def begin(self) -> bool:
        """Judge the file before it is read. False: there is nothing to read."""
        return self.scan.opened(self._source.opened)

    def read(self, blocks: Iterable[bytes]) -> None:
        """The first pass. Other processes begin the survey of a large file meanwhile."""
        self._shards = self._begin_survey()
        try:
            self.scan.read(blocks)
        except BaseException:
            self._end_shards()
            raise

    def end(self, name: str) -> Examined:
        """The survey where the level asks for one, and the report. Raises LoradError FILE_CHANGED, OSError."""
        scan, surveyed = self.scan, None
        try:
            if self._level is not Level.QUICK and self._can_be_surveyed():
                surveyed = self._survey()
                scan.tally.merge(surveyed.tally)
        finally:
            self._end_shards()
        report = self._report(name, surveyed)
        return Examined(report=report, rows=scan.tally.rows or {}, error_rows=scan.tally.error_rows, surveyed=surveyed)

    def _can_be_surveyed(self) -> bool:
        totals = self.scan.totals
        return totals.typed_rows > 0 and totals.typed_rows >= (1 - MOST_UNREADABLE) * totals.rows

    def _survey(self) -> Surveyed:
        assert self.scan.segments is not None
        segments = self.scan.segments.end()
        num_lines = sum(segment.num_lines for segment in segments)
        if self._shards and self._shards.num_lines != num_lines:  # the file grew or shrank meanwhile: another sample
            self._end_shards()
        return survey(self._survey_plan(num_lines, segments), self.scan.totals, self._told, self._shards)

    def _begin_survey(self) -> "Shards | None":
        """Processes for parts of the file, where it is worth some."""
        if self._level is Level.QUICK or self._source.opened.obstacle:
            return None
        from validation.shards import Shards, borders_of

        borders = borders_of(self._source.opened.size_bytes, self._setting.processes, self._level)
        return Shards(self._survey_plan(self._source.num_lines()), borders, self._told.add) if borders else None

    def _end_shards(self) -> None:
        if self._shards:
            self._shards.end()
            self._shards = None

    def _survey_plan(self, num_lines: int, segments: Sequence[Segment] = ()) -> SurveyPlan:
        return SurveyPlan(
            file=self._source.path,
            spec=self._spec,
            level=self._level,
            limits=self._setting.limits,
            around=self._setting.around,
            control=self._control,
            off=self._setting.off,
            num_lines=num_lines,
            segments=segments,
            keep_rows=self._setting.keep_rows,
        )

    def _progress(self, size_bytes: int) -> None:
        self._read_bytes += size_bytes
        if self._shards and self.scan.segments:
            self._shards.give(self.scan.segments.done)
        self._setting.on_progress("read", self._read_bytes, self._source.opened.size_bytes)

    def _report(self, name: str, surveyed: Surveyed | None) -> Report:
        scan, totals = self.scan, self.scan.totals
        sheet = surveyed.sheet if surveyed else None

        def seen(check: Check) -> int:
            if check.need is Need.SAMPLE and sheet:
                return sheet.num_sampled
            return sheet.num_rows if check.need in SURVEYED and sheet else totals.rows

        findings = scan.tally.findings(name, seen, surveyed.context.limit if surveyed else None)
        ran = tuple(level for level in self._level.included if level is Level.QUICK or surveyed)
        stats: dict[str, Any] = {
            "bytes": totals.size_bytes,
            "lines": totals.lines,
            "blank_lines": totals.blank_lines,
            "rows_of_the_schema": totals.typed_rows,
            "turns": totals.turns,
            "longest_row_bytes": totals.longest_row_bytes,
            "levels_run": [level.value for level in ran],
            "profile": self._setting.profile,
            "checks_off": sorted(self._setting.off),
            "checks_not_run": dict(surveyed.not_run) if surveyed else {},
        }
        if self._level is not Level.DEEP:
            around = self._setting.around
            unread = {"D04": around.references, "D06": (around.train,) if around.train else ()}
            stats["checks_not_run"] |= {id: "the named files are compared at level deep" for id, files in unread.items() if files}
        if self._level is not Level.QUICK and surveyed is None and totals.rows:
            stats["checks_not_run"] |= {self._level.value: "too many rows are not of the schema: mend those first"}
        report = Report(
            file=name,
            sha256=scan.sha256,
            schema=self._spec.id,
            level=self._level,
            rows=totals.rows,
            findings=findings,
            stats=stats | (surveyed.stats if surveyed else {}),
            sampled=Sampled.of_rows(sheet.num_sampled, sheet.num_rows) if sheet else None,
            seconds=time.monotonic() - self._started,
        )
        return report.with_options(self._options())

    def _options(self) -> Options:
        """What the report's commands carry: what was typed, else what this examination was told."""
        if self._setting.options is not None:
            # A schema that nobody said, and that no row has, is no more than a guess.
            is_guess = not self._setting.is_schema_said and not self.scan.totals.typed_rows
            return tuple(option for option in self._setting.options if option[0] != "--schema") if is_guess else self._setting.options
        around = self._setting.around
        found = named(self._spec.id, self._spec.columns, None if self._level is Level.QUICK else around)
        return (*found, ("--images", around.images)) if around.images else found
