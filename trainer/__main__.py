"""`python -m trainer <run folder>`: carry out the spec in that folder, write exit.json, exit with the same code."""

import logging
import signal
import sys
from pathlib import Path

from core.errors import ChildError, LoradError
from core.exits import ChildExit
from core.tasks import ExitNote, ScoreTask, TrainTask
from store import codec
from trainer.backends import find
from trainer.run import RunFolder, Stopped
from trainer.space import FULL, full_disk

CRASH = 1
USAGE = 64
log = logging.getLogger("trainer")


def read_task(path: Path) -> TrainTask | ScoreTask:
    """The task in spec.json. Raises ChildError BAD_SPEC."""
    try:
        task: TrainTask | ScoreTask = codec.parse(TrainTask | ScoreTask, path.read_bytes())  # type: ignore[arg-type]
    except (OSError, ValueError) as error:
        raise ChildError(
            f"{path} is not a task to train or to score: {error}",
            hint="the daemon writes it; look at its log",
            code="SPEC_DAMAGED",
            exit_code=ChildExit.BAD_SPEC,
        ) from None
    return task


def carry_out(run: RunFolder) -> None:
    """Do what spec.json asks. Raises what the border below turns into an exit code."""
    task = read_task(run.spec)
    backend = find(task.backend)
    with full_disk(run.root):
        if isinstance(task, TrainTask):
            run.stops_at_once = False
            backend.train(task, run)
        else:
            backend.score(task, run)


def note_of(error: BaseException, run: RunFolder) -> ExitNote:
    """The exit protocol: what a failure means to the daemon."""
    match error:
        case Stopped():
            return run.note(ChildExit.STOPPED, reason="stopped on request")
        case ChildError():
            return run.note(error.exit_code, reason=error.what, hint=error.hint, error=error.code)
        case LoradError() if error.code == FULL:
            return run.note(ChildExit.STOPPED, reason=error.what, hint=error.hint, error=error.code)
        case LoradError():
            return run.note(ChildExit.BAD_SPEC, reason=error.what, hint=error.hint, error=error.code)
        case _ if _is_out_of_memory(error):
            hint = "it is tried again with a smaller micro-batch; lower max_length or use a smaller base if that does not help"
            return run.note(ChildExit.OUT_OF_MEMORY, reason=f"out of memory: {error}", hint=hint, error="OUT_OF_MEMORY")
    return run.note(CRASH, reason=f"{type(error).__name__}: {error}", hint="the traceback is in log.txt", error="CRASH")


def _is_out_of_memory(error: BaseException) -> bool:
    # By name: asking for torch.OutOfMemoryError would import torch. The CPU allocator raises a plain RuntimeError.
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)


def main(arguments: list[str]) -> int:
    """Returns the exit status: one of ChildExit, or 1 for a crash."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if len(arguments) != 1:
        log.error("usage: python -m trainer <run folder>")
        return USAGE
    run = RunFolder(Path(arguments[0]).absolute())
    try:
        signal.signal(signal.SIGTERM, run.on_term)
        carry_out(run)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        note = run.note(ChildExit.DONE)
    except (Stopped, Exception) as error:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the outcome is decided; writing it down takes no time
        note = note_of(error, run)
        log.log(logging.INFO if note.code == ChildExit.STOPPED else logging.ERROR, "%s", note.reason, exc_info=error if note.code == CRASH else None)
    try:
        codec.write(run.exit, note)
    except OSError as error:  # a full disk, for one: the exit status says the same in a word
        log.error("exit.json: %s", error)
    return note.code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
