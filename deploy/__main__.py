"""`python -m deploy pack <run folder>` carries out a PackTask; `python -m deploy link <config path> <target name>` is a link."""

import errno
import logging
import signal
import sys
from pathlib import Path
from types import FrameType

from core.errors import ChildError, IntegrityError, LoradError
from core.exits import ChildExit
from core.tasks import ExitNote, PackTask
from deploy.link import Stopped, clock, run_link, stop_with_parent
from deploy.pack import pack
from store import codec

log = logging.getLogger("deploy")

USAGE = "usage: python -m deploy pack <run folder> | python -m deploy link <config path> <target name>"
CRASHED = 1


def carry_out(run: Path) -> ExitNote:
    """Make the release that spec.json asks for. Raises LoradError."""
    try:
        task = codec.read(PackTask, run / "spec.json")
    except IntegrityError as error:
        raise ChildError(error.what, hint=error.hint, code="SPEC_WRONG", exit_code=ChildExit.BAD_SPEC) from None
    release = pack(task, run, clock())
    return ExitNote(code=ChildExit.DONE, ended_at=clock(), release=release, reason=f"packed {task.adapter} v{task.version} as {release[:12]}")


def answer(run: Path) -> ExitNote:
    """What exit.json will say. The border of the child: whatever goes wrong becomes a code of the protocol."""
    try:
        return carry_out(run)
    except Stopped:
        return ExitNote(code=ChildExit.STOPPED, ended_at=clock(), reason="stopped on request")
    except MemoryError:
        return ExitNote(code=ChildExit.OUT_OF_MEMORY, ended_at=clock(), reason="out of memory", error="OUT_OF_MEMORY")
    except LoradError as error:
        code = error.exit_code if isinstance(error, ChildError) else ChildExit.BAD_DATA
        return ExitNote(code=code, ended_at=clock(), reason=error.what, hint=error.hint, error=error.code)
    except Exception as error:
        log.exception("crashed")
        is_full = isinstance(error, OSError) and error.errno == errno.ENOSPC
        hint = "free space under home" if is_full else ""
        return ExitNote(code=CRASHED, ended_at=clock(), reason=f"{type(error).__name__}: {error}", hint=hint, error="DISK_FULL" if is_full else "CHILD_CRASHED")


def _stop(signum: int, frame: FrameType | None) -> None:
    raise Stopped


def main_pack(run: Path) -> int:
    """Run one PackTask. Writes into the run folder only, exit.json last. Returns the exit status."""
    signal.signal(signal.SIGTERM, _stop)
    note = answer(run)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the answer is known: let it reach the disk
    codec.write(run / "exit.json", note)
    log.info("%s", note.reason, extra={"action": "packed"})
    return note.code


def main_link(config_path: Path, target: str) -> int:
    """Run a link until told to stop. Returns the exit status: 40 stopped, 75 another link runs, 3 wrong config."""
    try:
        stop_with_parent()
        run_link(config_path, target)
    except Stopped:
        return ChildExit.STOPPED
    except LoradError as error:
        log.error("%s (%s): %s", error.what, error.code, error.hint, extra={"action": "link_ended"})
        return error.exit_status


def main(argv: list[str]) -> int:
    """The command line of the two children."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    match argv[1:]:
        case ["pack", run]:
            return main_pack(Path(run))
        case ["link", config_path, target]:
            return main_link(Path(config_path), target)
    log.error(USAGE)
    return ChildExit.BAD_SPEC


if __name__ == "__main__":
    sys.exit(main(sys.argv))
