"""Parts of one file surveyed at the same time, each by a process of its own.

    python -m validation.shards      reads one Order (JSON) on stdin, writes frames to stdout

A frame is its length (4 bytes, big-endian) and MessagePack: a number (bytes done since the last frame), or in the end a
Result. A process that lost its parent ends at its next frame. Nothing here is pickled: the rows are untrusted.
"""

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

import msgspec

from core.errors import LoradError
from rendering.specs import SPECS, Spec
from validation.checks import CHECKS
from validation.context import Sheet, Surroundings
from validation.control import ControlTokens
from validation.findings import Level, Limits
from validation.segments import Segment
from validation.survey import Surveyor, SurveyPlan
from validation.tally import Tally

LEAST_BYTES = 32 << 20  # of a part; below this a process costs more than it saves
_LENGTH = 4

OnProgress = Callable[[int], None]


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What a process surveys. The plan's own segments are all of the file's; `part` are the ones to read."""

    file: str
    schema_id: str
    own_spec: str
    columns: tuple[str, ...]
    level: Level
    limits: Limits
    around: Surroundings
    special_tokens: tuple[str, ...]
    off: tuple[str, ...]
    segments: tuple[Segment, ...]
    part: tuple[Segment, ...]
    keep_rows: bool


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What a process found; or why it could not go on: (what, hint, code)."""

    sheet: dict[str, Any] | None = None
    tally: dict[str, Any] | None = None
    not_run: dict[str, str] = {}
    error: tuple[str, str, str] | None = None


def parts_of(segments: Sequence[Segment], processes: int) -> list[tuple[Segment, ...]]:
    """The segments in as many runs of about equal size as are worth a process; at least one."""
    total = sum(segment.size_bytes for segment in segments)
    count = max(1, min(processes, total // LEAST_BYTES))
    parts: list[list[Segment]] = [[] for _ in range(count)]
    done = 0
    for segment in segments:
        parts[min(count - 1, done * count // max(total, 1))].append(segment)
        done += segment.size_bytes
    return [tuple(part) for part in parts if part] or [()]


class Shard:
    """A process that surveys one part: `found` once, then `end`."""

    def __init__(self, plan: SurveyPlan, part: Sequence[Segment], on_progress: OnProgress) -> None:
        self._on_progress = on_progress
        self._result: Result | None = None
        self._process = subprocess.Popen([sys.executable, "-m", "validation.shards"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._thread = threading.Thread(target=self._listen, name="shard", daemon=True)
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(msgspec.json.encode(_order(plan, part)))
            self._process.stdin.close()
        except BrokenPipeError:
            pass  # it died at once: `found` says so
        self._thread.start()

    def found(self) -> "tuple[Sheet, Tally]":
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
        return Sheet.of(self._result.sheet), Tally.of(self._result.tally, by_id)

    def end(self) -> None:
        """Kill it where it still runs, and reap it."""
        self._process.kill()
        self._process.wait()
        self._thread.join()
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


def _order(plan: SurveyPlan, part: Sequence[Segment]) -> Order:
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
        segments=tuple(plan.segments),
        part=tuple(part),
        keep_rows=plan.keep_rows,
    )


def _spec(order: Order) -> Spec:
    if order.own_spec:
        from rendering.ownspecs import load_file

        return load_file(Path(order.own_spec)).with_columns(order.columns)
    return SPECS[order.schema_id].with_columns(order.columns)


def _carry_out(order: Order, on_progress: OnProgress) -> Result:
    plan = SurveyPlan(
        file=Path(order.file),
        spec=_spec(order),
        level=order.level,
        limits=order.limits,
        around=order.around,
        control=ControlTokens(order.special_tokens),
        off=frozenset(order.off),
        segments=order.segments,
        keep_rows=order.keep_rows,
    )
    surveyor = Surveyor(plan)
    try:
        surveyor.go(order.part, on_progress)
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


def main() -> int:
    """Carry out one order. Exit 0 once the result is written."""
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=Order)
    encode, out = msgspec.msgpack.encode, sys.stdout.buffer

    def tell(found: int | Result) -> None:
        frame = encode(found)
        out.write(len(frame).to_bytes(_LENGTH) + frame)
        out.flush()

    tell(_carry_out(order, tell))
    return 0


if __name__ == "__main__":
    sys.exit(main())
