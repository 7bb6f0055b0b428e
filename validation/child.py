"""The gate as a process: one folder after another, each with its own answer.

`result.json` is written last; a folder without it was not finished, and asking again starts it afresh. Whatever a file
does to the checks is an answer too: a bound that it breaks, an exception that nobody foresaw. Only the end of the
process itself is left to the daemon, which then asks once more and refuses the file.
"""

import errno
import logging
import os
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path

from core.errors import LoradError
from core.gate import ACCEPTED_DROP, CRASH_HINT, GATE_RESULT, GATE_SPEC, GateResult, GateSpec
from store import codec
from store.durable import replace_file
from store.seals import seal_aside
from validation.acceptance import PLAIN_ROWS, Judged, judge
from validation.knowngroups import Acquaintances
from validation.report import REPORT_JSON, REPORT_MARKDOWN
from validation.sandbox import Bounds, bounded

log = logging.getLogger("lorad.gate")
Now = Callable[[], datetime]
SYNCED_BYTES = 1 << 20  # a larger drop is synced here; smaller ones by the daemon, many at once
MOST_REMEMBERED = 50_000  # rows of a drop: no drop waits behind one that has more


def serve(requests: Iterable[bytes], now: Now) -> None:
    """Answer each request (the path of a gate folder) until they end. Raises OSError where not even an answer can be written."""
    met = Acquaintances()
    for request in requests:
        folder = Path(os.fsdecode(request.rstrip(b"\n")))
        started = time.monotonic()
        tempfile.tempdir = str(folder)  # texts of rows that a check hands to a child lie here, and go with the folder
        log.info("gate begins action=gate folder=%s", folder.name)
        try:
            result = gate(folder, now, met, is_bounded=True)
        except FileNotFoundError:
            if folder.is_dir():
                raise
            log.warning("gate folder is gone action=gate folder=%s", folder.name)  # whoever asked does not want the answer any more
            continue
        log.info("gate ends action=gate folder=%s verdict=%s code=%s seconds=%.2f", folder.name, result.verdict, result.code, time.monotonic() - started)


def gate(folder: Path, now: Now, met: Acquaintances | None = None, *, is_bounded: bool = False) -> GateResult:
    """Check the file that the folder's spec names. Writes reports, the accepted drop, and `result.json` last.

    Args: met: what this process remembers of earlier drops. is_bounded: whether it is held to the spec's limits meanwhile.
    """
    met = met or Acquaintances()
    started = time.monotonic()
    spec: GateSpec | None = None
    try:
        _clear(folder)
        spec = codec.read(GateSpec, folder / GATE_SPEC)
        met.forget(spec.drop)
        with bounded(_bounds(spec)) if is_bounded else nullcontext():
            judged = judge(folder, spec, met)
        _keep_or_leave(folder, judged)
        result = _verdict(spec.drop, judged, now())
        if result.verdict == "accepted" and len(judged.index) <= MOST_REMEMBERED:
            met.keep(spec.drop, judged.index)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a child's border: no input may end it; a panic of Rust code is no Exception
        # Without the exception's own words: they may quote a row, and no log holds one.
        log.error("gate fails action=gate folder=%s error=%s\n%s", folder.name, type(error).__name__, "".join(traceback.format_tb(error.__traceback__)))
        shutil.rmtree(folder / ACCEPTED_DROP, ignore_errors=True)  # frees the space that the answer may need
        result = _failure(spec, folder.name, error, time.monotonic() - started, now())
    (folder / PLAIN_ROWS).unlink(missing_ok=True)
    codec.write(folder / GATE_RESULT, result, durable=False)  # after a power cut the drop is asked about again
    return result


def _clear(folder: Path) -> None:
    for name in (GATE_RESULT, REPORT_JSON, REPORT_MARKDOWN, PLAIN_ROWS):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / ACCEPTED_DROP, ignore_errors=True)


def _bounds(spec: GateSpec) -> Bounds:
    try:
        size = 0 if spec.accepted else Path(spec.file).lstat().st_size
    except OSError:
        size = 0  # the gate itself says what is wrong with it
    # A folder's own size says nothing of the file in it, and compressed rows nothing of their size.
    is_known = size and not spec.accepted and not Path(spec.file).is_dir()
    return Bounds(memory_mb=spec.memory_mb, cpu_s=spec.cpu_s, file_bytes=min(size, spec.max_file_bytes) if is_known else spec.max_file_bytes)


def _keep_or_leave(folder: Path, judged: Judged) -> None:
    accepted = judged.report.verdict == "accepted"
    if not accepted:
        shutil.rmtree(folder / ACCEPTED_DROP, ignore_errors=True)
    place = folder / ACCEPTED_DROP if accepted else folder
    replace_file(place / REPORT_MARKDOWN, judged.report.to_markdown(), durable=False)
    replace_file(place / REPORT_JSON, judged.report.to_json() + "\n", durable=False)
    if accepted:
        seal_aside(place, durable=judged.size_bytes > SYNCED_BYTES)


def _verdict(drop: str, judged: Judged, ended_at: datetime) -> GateResult:
    report = judged.report
    worst = report.errors[0] if report.errors else None
    return GateResult(
        drop=drop,
        verdict=report.verdict,
        sha256=report.sha256,
        size_bytes=judged.size_bytes,
        rows=report.rows - judged.quarantined,
        quarantined=judged.quarantined,
        new_groups=judged.new_groups,
        objective=judged.objective,
        codes=tuple(dict.fromkeys(finding.id for finding in report.errors)),
        message=worst.message if worst else "",
        hint=worst.hint if worst else "",
        seconds=round(report.seconds, 4),
        ended_at=ended_at,
    )


_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_MEMORY_HINT = "raise validation.memory_mb in config.json, or split the file"


def _failure(spec: GateSpec | None, name: str, error: BaseException, seconds: float, ended_at: datetime) -> GateResult:
    if isinstance(error, LoradError):
        code, message, hint = error.code, error.what, error.hint
    elif isinstance(error, MemoryError):
        most = f"{spec.memory_mb:,} MiB (validation.memory_mb)" if spec else "it has"
        code, message, hint = "OUT_OF_MEMORY", f"the gate needs more memory than {most} for this file", _MEMORY_HINT
    elif isinstance(error, FileNotFoundError):
        code, message, hint = "FILE_VANISHED", f"{error.filename} is gone", "drop the file again"
    elif isinstance(error, OSError) and error.errno in _DISK_FULL:
        code, message, hint = "DISK_FULL", f"no space left to copy the drop: {error}", "free disk space; the drop is checked again by itself"
    elif isinstance(error, OSError) and error.errno == errno.ENOMEM:
        code, message, hint = "OUT_OF_MEMORY", f"the gate was given no more memory: {error}", _MEMORY_HINT
    elif isinstance(error, OSError) and error.errno == errno.EFBIG:
        code, message, hint = "FILE_LIMIT", f"the gate would write more than it may for a file of this size: {error}", "split the file"
    elif isinstance(error, OSError):
        code, message, hint = "IO_ERROR", str(error), "check the disk; the drop is checked again by itself"
    else:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        message = f"the gate failed on this file: {type(error).__name__} in {frame.name} ({Path(frame.filename).name}, line {frame.lineno})"
        code, hint = "GATE_CRASH", CRASH_HINT
    drop = spec.drop if spec else name
    return GateResult(drop=drop, verdict="error", code=code, message=message, hint=hint, seconds=round(seconds, 4), ended_at=ended_at)
