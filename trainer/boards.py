"""Where the curves of a training also go: TensorBoard files in the run folder, W&B, MLflow, each by its own library.

A board only hears what progress.jsonl says. One that is not installed, or that fails, is named in the log and left out:
a picture of a training is no reason to lose it.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

log = logging.getLogger(__name__)

EVENTS = "events"
CURVES = ("loss", "dev_loss", "lr", "tokens_per_s", "grad_norm", "memory_mb", "gpu_use", "celsius", "share_of_limit")
INSTALL = {"tensorboard": "pip install 'lorad[cpu]'", "wandb": "pip install wandb", "mlflow": "pip install mlflow"}


class Board(Protocol):
    """One place that draws curves."""

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Values of a step by name."""

    def close(self) -> None:
        """Write what is left."""


class TensorBoard:
    """TensorBoard event files, written without torch: `tensorboard --logdir RUN/events` shows them."""

    def __init__(self, root: Path, job: str) -> None:
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._writer = EventFileWriter(str(root / EVENTS))

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """One event with all values."""
        import time

        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        summary = Summary(value=[Summary.Value(tag=f"train/{name}", simple_value=value) for name, value in values.items()])
        self._writer.add_event(Event(wall_time=time.time(), step=step, summary=summary))

    def close(self) -> None:
        """Flush and close the file."""
        self._writer.close()


class WandB:
    """Weights & Biases. Without a network it writes into the run folder, to be synchronised by `wandb sync` later."""

    def __init__(self, root: Path, job: str) -> None:
        import os

        import wandb

        mode = os.environ.get("WANDB_MODE") or ("online" if _may_connect(root) else "offline")
        self._run = wandb.init(project=os.environ.get("WANDB_PROJECT", "lorad"), name=job, dir=str(root), mode=mode)

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Log the values at the step."""
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        """End the run on the board."""
        self._run.finish()


class MLflow:
    """MLflow, at MLFLOW_TRACKING_URI; without one, files in the run folder."""

    def __init__(self, root: Path, job: str) -> None:
        import os

        import mlflow

        if not os.environ.get("MLFLOW_TRACKING_URI"):
            mlflow.set_tracking_uri((root / "mlruns").as_uri())
        mlflow.set_experiment("lorad")
        mlflow.start_run(run_name=job)
        self._mlflow = mlflow

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Log the values at the step."""
        self._mlflow.log_metrics(dict(values), step=step)

    def close(self) -> None:
        """End the run on the board."""
        self._mlflow.end_run()


BOARDS: dict[str, Callable[[Path, str], Board]] = {"tensorboard": TensorBoard, "wandb": WandB, "mlflow": MLflow}


class Boards:
    """The boards of one training. They are opened with the first values, so that no step waits for their libraries."""

    def __init__(self, names: Sequence[str], root: Path, job: str) -> None:
        self._names, self._root, self._job = names, root, job
        self._open: dict[str, Board] | None = None

    def hear(self, line: Mapping[str, Any]) -> None:
        """A line of progress.jsonl: its curves go to every board. Never raises."""
        values = {name: float(line[name]) for name in CURVES if isinstance(line.get(name), int | float)}
        if not isinstance(line.get("step"), int) or not {"loss", "dev_loss"}.intersection(values):
            return
        for name, board in list(self._opened().items()):
            self._try(name, lambda board=board: board.add(line["step"], values))  # type: ignore[misc]

    def close(self) -> None:
        """Write what is left. Never raises; a repeat is harmless."""
        for name, board in list((self._open or {}).items()):
            self._try(name, board.close)
        self._open = {}

    def _opened(self) -> dict[str, Board]:
        if self._open is None:
            self._open = {}
            for name in self._names:
                self._try(name, lambda name=name: self._open.__setitem__(name, BOARDS[name](self._root, self._job)))  # type: ignore[misc]
        return self._open

    def _try(self, name: str, act: Callable[[], None]) -> None:
        try:
            act()
        except ModuleNotFoundError as error:
            log.warning("board %s: the package %s is not installed (%s)", name, error.name, INSTALL[name])
        except Exception as error:  # the border to other people's services: whatever they raise, the training goes on
            log.warning("board %s is left out: %s: %s", name, type(error).__name__, error)
            if self._open is not None:
                self._open.pop(name, None)


def _may_connect(root: Path) -> bool:
    import json

    from store.runs import SPEC

    try:
        settings = json.loads((root / SPEC).read_bytes())["settings"]
        return bool(settings["training"]["network"])
    except (OSError, ValueError, KeyError, TypeError):
        return False
