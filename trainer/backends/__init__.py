"""Trainers by name. A backend is a class with `train` and `score`; its code is imported only when it is asked for.

To add one: a module with such a class, and a line in BACKENDS.
"""

from importlib import import_module
from typing import Protocol

from core.errors import ChildError
from core.exits import ChildExit
from core.tasks import ScoreTask, TrainTask
from trainer.run import RunFolder

BACKENDS = {
    "unsloth": "trainer.backends.unsloth:UnslothBackend",
    "peft": "trainer.backends.peft:PeftBackend",
    "mlx": "trainer.backends.mlx:MlxBackend",
    "stub": "trainer.backends.stub:StubBackend",
}
EXTRAS = {"unsloth": "unsloth", "mlx": "mlx"}  # backend -> extra of lorad that installs its packages; else cpu


class Backend(Protocol):
    """What carries out tasks. Both write below `run.root` only, every file whole or not at all.

    Raise ChildError for what the exit protocol has a code for, Stopped for a stop on request.
    """

    def train(self, task: TrainTask, run: RunFolder) -> None:
        """Seal checkpoints and resume points. Looks at `run.stopping`; a crash loses what came after the last resume point."""

    def score(self, task: ScoreTask, run: RunFolder) -> None:
        """Write the score files that the task names. A repeat in a new folder gives the same numbers."""


def find(name: str) -> Backend:
    """The backend of that name. Raises ChildError BAD_SPEC."""
    if name not in BACKENDS:
        known = ", ".join(sorted(BACKENDS))
        raise ChildError(f"unknown backend {name!r}", hint=f"known are {known}", code="BACKEND_UNKNOWN", exit_code=ChildExit.BAD_SPEC)
    module, attribute = BACKENDS[name].split(":")
    try:
        made: Backend = getattr(import_module(module), attribute)()
    except ModuleNotFoundError as error:
        raise ChildError(
            f"backend {name!r} needs the package {error.name!r}, which is not installed",
            hint=f"install lorad with its extra: pip install 'lorad[{EXTRAS.get(name, 'cpu')}]'",
            code="BACKEND_NOT_INSTALLED",
            exit_code=ChildExit.BAD_SPEC,
        ) from None
    return made
