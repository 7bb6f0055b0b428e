"""The first pass: over the bytes of a file, once, feeding every check that needs no more than its own row.

A block of lines that the screen passes costs one decode. Any other is judged row by row: a row that the typed decoder
takes costs one decode and the ROW checks; only a row that it refuses is parsed again, by a forgiving parser that can
say why.
"""

import gc
import hashlib
import json
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from queue import Queue

from rendering.specs import BAD_JSON, Message, Spec, SpecRow
from validation.album import Album
from validation.case import Case
from validation.checks import Need, checks_for
from validation.checks.files import BOM
from validation.checks.parse import forgiving
from validation.checks.registry import Broken, Line, Opened, Totals, Value
from validation.checks.shape import loosened
from validation.control import ControlTokens
from validation.findings import SHOWN_LINES, Level, Limits, Problem, Severity
from validation.layouts import UNKNOWN, layout_of
from validation.screen import LEAST_BYTES, LEAST_FILE_BYTES, Clean, Screen, has_screen
from validation.segments import Segments
from validation.source import BLOCK_BYTES, Chunk, chunks, lines_of
from validation.tally import Tally

HEAD_BYTES = 512
HASHED_AT_ONCE = 16  # blocks
FAILED_IN_A_ROW = 8  # blocks that the screen did not pass
HASHED_AHEAD = 4  # times as many wait

OnRow = Callable[[int, SpecRow, list[Message]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a file is checked."""

    spec: Spec
    level: Level
    limits: Limits
    control: ControlTokens
    off: frozenset[str] = frozenset()
    keep_rows: bool = False
    images: Path | None = None  # folder that picture paths are relative to


class Scan:
    """The state of one pass. Use once: `opened`, then `read` unless that found an obstacle."""

    def __init__(self, plan: Plan, on_row: OnRow | None = None, on_progress: Callable[[int], None] = lambda size_bytes: None) -> None:
        self.tally = Tally(plan.keep_rows)
        self.totals = Totals(spec=plan.spec)
        self.sha256 = ""
        self.segments = Segments() if plan.level is not Level.QUICK else None
        self._plan = plan
        self._on_row = on_row
        self._on_progress = on_progress
        self._checks = checks_for(plan.spec, plan.level, plan.off)
        self._album = Album(plan.images) if plan.images else None
        self._screen: Screen | None = None
        self._num_tried = self._num_failed = 0  # blocks
        self._blank: list[int] = []  # blank lines since the last row
        self._num_blank = 0

    def opened(self, opened: Opened) -> bool:
        """Judge the file before it is read. False: there is nothing to read."""
        self._run(Need.FILE, opened)
        plan = self._plan
        if opened.size_bytes >= LEAST_FILE_BYTES and not plan.spec.columns and has_screen(plan.spec.row) and plan.limits.max_row_bytes > BLOCK_BYTES:
            self._screen = Screen(plan.spec.row, plan.control.brackets)
        return self.tally.num_errors == 0

    def read(self, blocks: Iterable[bytes]) -> None:
        """Read to the end, hash, and feed every check."""
        with _hashing() as hashing, _no_garbage_collection():
            stream = self._counted(blocks, hashing)
            first = next(stream, b"")
            self._run(Need.HEAD, first[:HEAD_BYTES])
            if self.tally.num_errors:
                for _ in stream:  # the rest is noise, but its hash names the file
                    pass
            else:
                for chunk in chunks(chain((first,), stream), self._plan.limits):
                    self._chunk(chunk)
                self._run(Need.END, self.totals)
        self.sha256 = hashing.hexdigest()

    def _counted(self, blocks: Iterable[bytes], hashing: "_Hashing") -> Iterator[bytes]:
        for block in blocks:
            hashing.add(block)
            self.totals.size_bytes += len(block)
            if self.segments:
                self.segments.add(block)
            self._on_progress(len(block))
            yield block

    def _chunk(self, chunk: Chunk) -> None:
        # A row that is larger than a block may be too large, and the first line may begin with a mark.
        fits = LEAST_BYTES <= len(chunk.content) <= 2 * BLOCK_BYTES and self.totals.lines > 0
        if self._screen and fits and not chunk.cut and chunk.content.endswith(b"\n") and self._is_worth_screening():
            clean = self._screen.clean(chunk.content)
            self._num_failed = 0 if clean else self._num_failed + 1
            if clean:
                self._clean_rows(chunk.content, clean)
                return
        for line in lines_of(chunk, self.totals.lines + 1, self._plan.limits):
            self._line(line)

    def _is_worth_screening(self) -> bool:
        """Where block after block fails, as in a file whose rows have metadata, only some are still tried: a try costs a decode."""
        self._num_tried += 1
        return self._num_failed < FAILED_IN_A_ROW or self._num_tried % FAILED_IN_A_ROW == 0

    def _clean_rows(self, content: bytes, clean: Clean) -> None:
        """Rows that no check has anything to say about."""
        totals, spec = self.totals, self._plan.spec
        first_line = totals.lines + 1
        if self._num_blank:
            self._blanks_were_inside()
        totals.lines += clean.num_rows
        totals.rows += clean.num_rows
        totals.typed_rows += clean.num_rows
        totals.learnt_rows += clean.num_rows
        totals.ended = True
        totals.turns += clean.num_turns
        totals.longest_row_bytes = max(totals.longest_row_bytes, clean.longest_row_bytes)
        totals.layout_rows[spec.id] = totals.layout_rows.get(spec.id, 0) + clean.num_rows
        first = totals.layouts.setdefault(spec.id, [])
        if len(first) < SHOWN_LINES:
            first.extend(range(first_line, first_line + min(SHOWN_LINES - len(first), clean.num_rows)))
        if self._on_row and self._screen and (self._plan.keep_rows or not self.tally.num_errors):
            for line, row in enumerate(self._screen.rows(content), start=first_line):
                self._on_row(line, row, spec.messages(row))

    def _line(self, line: Line) -> None:
        totals = self.totals
        totals.lines += 1
        totals.ended = line.ended
        totals.carriage_returns += line.raw.endswith(b"\r")
        if line.number == 1 and line.raw.startswith(BOM):
            line = Line(1, len(BOM), line.raw[len(BOM) :], line.size_bytes - len(BOM), line.ended, line.limits)
        too_large = line.size_bytes > line.limits.max_row_bytes
        if not too_large and not line.raw.strip():
            self._blank_line(line.number)
            return
        self._row_begins(line)
        self._run(Need.LINE, line, line.number)
        if too_large:
            totals.unreadable_rows += 1
            return
        try:
            row = self._plan.spec.decode(line.raw)
        except BAD_JSON as error:
            self._refused_row(line, str(error))
        else:
            self._typed_row(line, row)

    def _blank_line(self, number: int) -> None:
        self.totals.blank_lines += 1
        self._num_blank += 1
        if len(self._blank) < SHOWN_LINES:
            self._blank.append(number)

    def _row_begins(self, line: Line) -> None:
        totals = self.totals
        totals.rows += 1
        totals.longest_row_bytes = max(totals.longest_row_bytes, line.size_bytes)
        if self._num_blank:
            self._blanks_were_inside()

    def _blanks_were_inside(self) -> None:
        totals = self.totals
        totals.num_blank_inside += self._num_blank
        totals.blank_inside += self._blank[: SHOWN_LINES - len(totals.blank_inside)]
        self._blank, self._num_blank = [], 0

    def _typed_row(self, line: Line, row: SpecRow) -> None:
        totals, spec = self.totals, self._plan.spec
        case = self._case(line, row)
        totals.typed_rows += 1
        turns = getattr(row, "messages", None)
        totals.turns += len(turns if type(turns) is list else case.messages)
        totals.learnt_rows += row.weight > 0
        self._note_layout(spec.id, line.number)
        self._judge(case)
        if self._on_row and (self._plan.keep_rows or not self.tally.num_errors):
            self._on_row(line.number, row, case.messages)

    def _case(self, line: Line, row: SpecRow) -> Case:
        case = Case(line.number, line.raw, row, self._plan.spec, self._plan.control)
        case.album = self._album
        return case

    def _judge(self, case: Case) -> None:
        for check in self._checks[Need.ROW]:
            found = check.find(case)
            if found is not None:
                for problem in _each(found):
                    self.tally.add(check, problem, case.line)

    def _refused_row(self, line: Line, complaint: str) -> None:
        text: str | None = None
        try:
            text = line.raw.decode()
            plain, marks = forgiving(text)
        except json.JSONDecodeError as error:
            self._broken(Broken(line, text, error.msg, error.pos))
            return
        except (UnicodeDecodeError, RecursionError) as error:
            self._broken(Broken(line, text, str(error), 0))
            return
        spec = self._plan.spec
        self.totals.unreadable_rows += not isinstance(plain, dict)
        if isinstance(plain, dict):
            layout = layout_of(plain, spec)
            self._note_layout(layout.id if layout else UNKNOWN, line.number)
        value = Value(line, plain, spec, complaint, marks)
        for check in self._checks[Need.VALUE]:
            for problem in _each(check.find(value)):
                value.num_errors += (problem.severity or check.severity) is Severity.ERROR
                self.tally.add(check, problem, line.number)
        # A project's own spec may fail on a row, which is why the row was refused: its turns are not asked for again.
        row = None if spec.file else loosened(value)
        if row is not None:
            self._judge(self._case(line, row))

    def _broken(self, broken: Broken) -> None:
        self.totals.unreadable_rows += 1
        for check in self._checks[Need.BROKEN]:
            problem = check.find(broken)
            if isinstance(problem, Problem):
                self.tally.add(check, problem, broken.line.number)
                return

    def _note_layout(self, name: str, line: int) -> None:
        totals = self.totals
        if name == UNKNOWN:
            return
        totals.layout_rows[name] = totals.layout_rows.get(name, 0) + 1
        first = totals.layouts.setdefault(name, [])
        if len(first) < SHOWN_LINES:
            first.append(line)

    def _run(self, need: Need, fed: object, line: int = 0) -> None:
        for check in self._checks[need]:
            for problem in _each(check.find(fed)):
                self.tally.add(check, problem, line)


def _each(found: Problem | Iterable[Problem] | None) -> Iterable[Problem]:
    if found is None:
        return ()
    return (found,) if isinstance(found, Problem) else found


class _Hashing:
    """SHA-256 of a stream, worked out beside the pass: the digest of a large block needs no lock of the interpreter."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._blocks: list[bytes] = []
        self._queue: Queue[list[bytes] | None] = Queue(HASHED_AHEAD)
        self._thread: threading.Thread | None = None

    def add(self, block: bytes) -> None:
        self._blocks.append(block)
        if len(self._blocks) >= HASHED_AT_ONCE:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="sha256", daemon=True)
                self._thread.start()
            self._queue.put(self._blocks)
            self._blocks = []

    def _work(self) -> None:
        while blocks := self._queue.get():
            self._digest.update(b"".join(blocks))

    def end(self) -> None:
        if self._thread:
            self._queue.put(None)
            self._thread.join()
        self._digest.update(b"".join(self._blocks))

    def hexdigest(self) -> str:
        return self._digest.hexdigest()


@contextmanager
def _hashing() -> Iterator[_Hashing]:
    hashing = _Hashing()
    try:
        yield hashing
    finally:
        hashing.end()


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Rows hold no cycles, and the collector would look at each of them."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
