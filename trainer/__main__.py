"""`python -m trainer <run folder>`: carry out the spec in that folder, write exit.json, exit with the same code."""

import logging
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from core.errors import ChildError
from core.exits import ChildExit
from core.tasks import EmbedTask, ExitNote, ExportTask, ScoreTask, TrainTask
from store import codec
from store.child import HOLD, clock, log_to_stderr, run_child
from trainer.backends import find
from trainer.embedding import embed
from trainer.engine import TrainerEngine
from trainer.export import export
from trainer.follower import own_folder
from trainer.isolation import Network, leave_network
from trainer.run import RunFolder
from trainer.space import full_disk

USAGE = 64
log = logging.getLogger("trainer")


def read_task(path: Path) -> TrainTask | ScoreTask | EmbedTask | ExportTask:
    """The task in spec.json. Raises ChildError BAD_SPEC."""
    try:
        task: TrainTask | ScoreTask | EmbedTask | ExportTask
        task = codec.parse(TrainTask | ScoreTask | EmbedTask | ExportTask, path.read_bytes())  # type: ignore[arg-type]
    except (OSError, ValueError) as error:
        raise ChildError(
            f"{path} is not a task to train, to score, to embed or to export: {error}",
            hint="the daemon writes it; look at its log",
            code="SPEC_DAMAGED",
            exit_code=ChildExit.BAD_SPEC,
        ) from None
    return task


def carry_out(run: RunFolder, *, in_own_process: bool) -> None:
    """Do what spec.json asks. Raises what the border below turns into an exit code."""
    task = read_task(run.spec)
    run.network = (leave_network() if in_own_process and not _may_use_network(task) else Network.OPEN).value
    log.info("network: %s", run.network)
    run.report("load")
    if isinstance(task, EmbedTask):
        embed(task, run)
        return
    if isinstance(task, ExportTask):
        export(task, run)
        return
    if isinstance(task, TrainTask):
        TrainerEngine(task, run).run()
        return
    backend = find(task.backend)
    with full_disk(run.root):
        backend.score(task, run)


def _may_use_network(task: TrainTask | ScoreTask | EmbedTask | ExportTask) -> bool:
    """Whether the job's config says so; looked up before anything is checked, and false for whatever is not plainly true."""
    settings = task.settings if not isinstance(task, EmbedTask) else {}
    training = settings.get("training")
    return isinstance(training, Mapping) and training.get("network") is True


def main(arguments: list[str], *, in_own_process: bool = False) -> int:
    """Returns the exit status: one of ChildExit, or 1 for a crash. exit.json says the same, with every whole result.

    Args: in_own_process: whether this process may be cut off from the network for good, as it ends with this task.
    """
    log_to_stderr()
    if len(arguments) != 1:
        log.error("usage: python -m trainer <run folder>")
        return USAGE
    hold = os.environ.get(HOLD)
    run = RunFolder(own_folder(Path(arguments[0]).absolute()), hold=Path(hold) if hold else None)

    def work(folder: Path) -> ExitNote:
        signal.signal(signal.SIGTERM, run.on_term)
        carry_out(run, in_own_process=in_own_process)
        return ExitNote(code=ChildExit.DONE, ended_at=clock())

    return run_child(run.root, work, unfit=ChildExit.BAD_SPEC, results=run.results)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], in_own_process=True))
