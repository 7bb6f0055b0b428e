"""`python -m deploy pack <run folder>` carries out a PackTask; `python -m deploy link <config path> <target name>` is a link."""

import logging
import sys
from pathlib import Path

from core.errors import ChildError, IntegrityError, LoradError
from core.exits import ChildExit
from core.tasks import ExitNote, PackTask
from deploy.link import run_link, stop_with_parent
from deploy.pack import pack
from store import codec
from store.child import Stopped, clock, log_to_stderr, run_child

log = logging.getLogger("deploy")

USAGE = "usage: python -m deploy pack <run folder> | python -m deploy link <config path> <target name>"


def carry_out(run: Path) -> ExitNote:
    """Make the release that spec.json asks for. Raises LoradError."""
    try:
        task = codec.read(PackTask, run / "spec.json")
    except IntegrityError as error:
        raise ChildError(error.what, hint=error.hint, code="SPEC_WRONG", exit_code=ChildExit.BAD_SPEC) from None
    release = pack(task, run, clock())
    return ExitNote(code=ChildExit.DONE, ended_at=clock(), release=release, reason=f"packed {task.adapter} v{task.version} as {release[:12]}")


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
    log_to_stderr()
    match argv[1:]:
        case ["pack", run]:
            return run_child(Path(run), carry_out, unfit=ChildExit.BAD_DATA)
        case ["link", config_path, target]:
            return main_link(Path(config_path), target)
    log.error(USAGE)
    return ChildExit.BAD_SPEC


if __name__ == "__main__":
    sys.exit(main(sys.argv))
