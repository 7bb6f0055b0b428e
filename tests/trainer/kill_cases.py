"""Trainings in child processes that are killed at a chosen step and moment. Imported by the children too."""

import multiprocessing
import os
import random
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MOMENTS = ("between passes", "before the update", "after the update", "while saving", "before the resume point", "any time")
DEADLINE_S = 120.0


@dataclass(frozen=True)
class Fate:
    """When a child is killed, and when it is short of memory. Step 0: never."""

    step: int = 0
    moment: str = ""
    short_at: tuple[int, ...] = ()


def live(root: str, fate: Fate) -> None:
    """Carry out the spec in `root`, up to the end that fate has for it."""
    from trainer import __main__ as child
    from trainer.backends import training

    training.RESUME_EVERY_S = 1e9  # resume points come with checkpoints alone, so that several steps are replayed
    _squeeze(fate.short_at)
    if fate.step:
        _doom(training.Training, fate)
    os._exit(child.main([root]))


def run_child(root: Path, fate: Fate = Fate()) -> int | None:
    """Exit status of a child on that folder; -9 where it was killed. The children are forked from a process that has imported everything."""
    context: Any = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["trainer.__main__", "trainer.backends.peft", "trainer.backends.training", "kill_cases"])
    process = context.Process(target=live, args=(str(root), fate))
    process.start()
    process.join(DEADLINE_S)
    if process.is_alive():
        process.kill()
        process.join()
        raise AssertionError(f"{fate} did not end in {DEADLINE_S} s")
    status: int | None = process.exitcode
    return status


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _squeeze(steps: Sequence[int]) -> None:
    from trainer.memory import Cutter

    real = Cutter.of_step

    def of_step(self: Cutter, step: int, tokens_at_once: Callable[[Any], int]) -> Any:
        if step in steps:
            self.gauge.free_bytes = lambda: 1  # type: ignore[method-assign]
        else:
            self.gauge.__dict__.pop("free_bytes", None)
        return real(self, step, tokens_at_once)

    Cutter.of_step = of_step  # type: ignore[method-assign]


def _doom(kind: Any, fate: Fate) -> None:
    """Let a Training kill its process at the moment of that step; where the moment does not come in that step, in the next one that has it."""
    gradients, update, checkpoint = kind._gradients, kind._update, kind._checkpoint

    def doomed_gradients(self: Any, step: int, examples: Any, batches: Any) -> Any:
        if step >= fate.step and fate.moment == "any time":
            threading.Timer(random.uniform(0, 0.05), _die).start()  # noqa: S311 - a moment, not a secret
        if step >= fate.step and fate.moment == "between passes":
            self.run.beat = _die
        made = gradients(self, step, examples, batches)
        if step >= fate.step and fate.moment == "before the update":
            _die()
        return made

    def doomed_update(self: Any, step: int) -> Any:
        made = update(self, step)
        if step >= fate.step and fate.moment == "after the update":
            _die()
        return made

    def doomed_checkpoint(self: Any) -> None:
        from trainer import checkpoints
        from trainer.backends import training

        if self.run.steps >= fate.step and fate.moment == "before the resume point":
            checkpoints.save_resume = lambda *rest: _die()
        if self.run.steps >= fate.step and fate.moment == "while saving":
            write = training.write_progress

            def torn(*rest: Any) -> None:
                write(*rest)
                _die()

            training.write_progress = torn
        checkpoint(self)

    kind._gradients, kind._update, kind._checkpoint = doomed_gradients, doomed_update, doomed_checkpoint
