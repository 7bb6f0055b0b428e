"""Parts of one file surveyed at the same time, each by a process of its own, while the first pass still reads the file.

    python -m validation.shards      reads an Order and then Segments on stdin, one a line as JSON; writes frames to stdout

The first parts go to the processes, segment by segment as the first pass has hashed them; the rest is surveyed by the
process that read the file, once it has. Where parts end is worked out from the size of the file alone, so that every
run finds the same.

A frame is its length (4 bytes, big-endian) and MessagePack: a number (bytes done since the last frame), or in the end a
Result. A process that lost its parent ends at its next frame. Nothing here is pickled: the rows are untrusted.
"""

import signal
import subprocess
import sys
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Any

import msgspec

from core.errors import LoradError
from rendering.specs import SPECS, Spec
from validation.checks import CHECKS
from validation.context import Sheet, Surroundings
from validation.control import ControlTokens
from validation.findings import Level, Limits
from validation.segments import Segment
from validation.survey import Part, Surveyor, SurveyPlan
from validation.tally import Tally

LEAST_BYTES = 32 << 20  # of a part; below this a process costs more than it saves
FIRST_PASS = {Level.STANDARD: 0.08, Level.DEEP: 0.01}  # its work, where that of a survey at this level is 1
_LENGTH = 4

OnProgress = Callable[[int], None]


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """How a process surveys the segments that follow on its stdin."""

    file: str
    schema_id: str
    own_spec: str
    columns: tuple[str, ...]
    level: Level
    limits: Limits
    around: Surroundings
    special_tokens: tuple[str, ...]
    off: tuple[str, ...]
    num_lines: int
    keep_rows: bool


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What a process found; or why it could not go on: (what, hint, code)."""

    sheet: dict[str, Any] | None = None
    tally: dict[str, Any] | None = None
    not_run: dict[str, str] = {}
    error: tuple[str, str, str] | None = None


def borders_of(size_bytes: int, processes: int, level: Level) -> list[int]:
    """Where the parts of a file end that others survey than the process that reads it first; none where that is worth no process."""
    count = max(1, min(processes, size_bytes // LEAST_BYTES))
    share = min((1 + FIRST_PASS[level]) / count, 1 / (count - 1)) if count > 1 else 0.0
    return [int(size_bytes * share * (number + 1)) for number in range(count - 1)]


class Shards:
    """The processes of one survey. Give them what the first pass has hashed, then ask `found`; `end` always."""

    def __init__(self, plan: SurveyPlan, borders: Sequence[int], on_progress: OnProgress) -> None:
        self.num_lines = plan.num_lines
        self._borders = borders
        self._shards: list[Shard] = []
        self._num_given = 0
        try:
            for _ in borders:
                self._shards.append(Shard(plan, on_progress))
        except BaseException:
            self.end()
            raise

    def give(self, segments: Sequence[Segment]) -> None:
        """The segments of the file so far, in order."""
        for segment in segments[self._num_given :]:
            self._num_given += 1
            place = bisect_right(self._borders, segment.offset)
            if place < len(self._shards):
                self._shards[place].survey(segment)

    def rest(self, segments: Sequence[Segment]) -> list[Segment]:
        """The segments of the whole file that none of the processes surveys. There are no others to come."""
        self.give(segments)
        for shard in self._shards:
            shard.finish()
        return [segment for segment in segments if segment.offset >= self._borders[-1]]

    def found(self) -> Iterator[Part]:
        """What each process found, in order of the file. Raises LoradError as `Shard.found` does."""
        return (shard.found() for shard in self._shards)

    def end(self) -> None:
        """Kill those that still run."""
        for shard in self._shards:
            shard.end()


class Shard:
    """A process that surveys one part: `survey` its segments, `finish`, `found` once, then `end`."""

    def __init__(self, plan: SurveyPlan, on_progress: OnProgress) -> None:
        self._on_progress = on_progress
        self._result: Result | None = None
        self._process = subprocess.Popen([sys.executable, "-m", "validation.shards"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._thread = threading.Thread(target=self._listen, name="shard", daemon=True)
        self._tell(_order(plan))
        self._thread.start()

    def survey(self, segment: Segment) -> None:
        """One more segment of the part."""
        self._tell(segment)

    def finish(self) -> None:
        """The part is complete."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()

    def _tell(self, what: Order | Segment) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it died: `found` says so
            self._process.stdin.write(msgspec.json.encode(what) + b"\n")
            self._process.stdin.flush()

    def found(self) -> Part:
        """What the process wrote, once it has ended. Raises LoradError: what it met, or that it died (SURVEY_DIED)."""
        self._thread.join()
        status = self._process.wait()
        if self._result is None:
            raise LoradError(
                f"a process of the survey died ({_cause(status)})",
                hint="lower validation.processes, or raise validation.memory_mb; where it ran out of CPU time, raise validation.cpu_s",
                code="SURVEY_DIED",
            )
        if self._result.error:
            what, hint, code = self._result.error
            raise LoradError(what, hint=hint, code=code)
        assert self._result.sheet is not None
        assert self._result.tally is not None
        by_id = {check.id: check for check in reversed(CHECKS)}
        return Part(Sheet.of(self._result.sheet), Tally.of(self._result.tally, by_id), self._result.not_run)

    def end(self) -> None:
        """Kill it where it still runs, and reap it."""
        self._process.kill()
        self._process.wait()
        self._thread.join()
        self.finish()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        while frame := _read_frame(self._process.stdout):
            found = msgspec.msgpack.decode(frame)
            if isinstance(found, int):
                self._on_progress(found)
            else:
                self._result = msgspec.convert(found, Result)


def _cause(status: int) -> str:
    return signal.strsignal(-status) or f"signal {-status}" if status < 0 else f"exit status {status}"


def _order(plan: SurveyPlan) -> Order:
    return Order(
        file=str(plan.file),
        schema_id=plan.spec.id,
        own_spec=plan.spec.file,
        columns=plan.spec.columns,
        level=plan.level,
        limits=plan.limits,
        around=plan.around,
        special_tokens=plan.control.special_tokens,
        off=tuple(sorted(plan.off)),
        num_lines=plan.num_lines,
        keep_rows=plan.keep_rows,
    )


def _spec(order: Order) -> Spec:
    if order.own_spec:
        from rendering.ownspecs import load_file

        return load_file(Path(order.own_spec)).with_columns(order.columns)
    return SPECS[order.schema_id].with_columns(order.columns)


def _carry_out(order: Order, part: Iterable[Segment], on_progress: OnProgress) -> Result:
    plan = SurveyPlan(
        file=Path(order.file),
        spec=_spec(order),
        level=order.level,
        limits=order.limits,
        around=order.around,
        control=ControlTokens(order.special_tokens),
        off=frozenset(order.off),
        num_lines=order.num_lines,
        keep_rows=order.keep_rows,
    )
    surveyor = Surveyor(plan)
    try:
        surveyor.go(part, on_progress)
    except LoradError as error:
        return Result(error=(error.what, error.hint, error.code))
    except OSError as error:
        return Result(error=(f"{order.file} cannot be read: {error.strerror or error}", "check the path and the disk", "IO_ERROR"))
    except MemoryError:
        return Result(error=("the survey ran out of memory", "raise validation.memory_mb, or lower validation.processes", "OUT_OF_MEMORY"))
    return Result(sheet=surveyor.sheet.to_plain(), tally=surveyor.tally.to_plain(), not_run=surveyor.not_run)


def _read_frame(stream: IO[bytes]) -> bytes:
    head = stream.read(_LENGTH)
    return stream.read(int.from_bytes(head)) if len(head) == _LENGTH else b""


def _segments(lines: IO[bytes]) -> Iterator[Segment]:
    """The segments that stand on stdin, read ahead: who writes them never waits for the survey."""
    queue: SimpleQueue[bytes] = SimpleQueue()

    def read() -> None:
        for line in lines:
            queue.put(line)
        queue.put(b"")

    threading.Thread(target=read, name="segments", daemon=True).start()
    while line := queue.get():
        yield msgspec.json.decode(line, type=Segment)


def main() -> int:
    """Carry out one order. Exit 0 once the result is written."""
    order = msgspec.json.decode(sys.stdin.buffer.readline(), type=Order)
    encode, out = msgspec.msgpack.encode, sys.stdout.buffer

    def tell(found: int | Result) -> None:
        frame = encode(found)
        out.write(len(frame).to_bytes(_LENGTH) + frame)
        out.flush()

    tell(_carry_out(order, _segments(sys.stdin.buffer), tell))
    return 0


if __name__ == "__main__":
    sys.exit(main())
