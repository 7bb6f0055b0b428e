"""Tries three learning rates for a few steps each, from the same start, and takes the one with the least dev loss.

Each trial is a whole short `Training`, warm-up and decay included, in a folder of its own that is deleted; its signs of
life are those of the run. A resumed training takes the rate that its earlier run wrote down, and tries nothing.
"""

import gc
import logging
import math
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from core.config import Config
from core.errors import ChildError
from core.hyperparameters import TRIAL_FACTORS, trial_steps
from store.runs import read_settings
from trainer.backends.setup import Setup
from trainer.backends.training import Training
from trainer.run import RunFolder, Stage
from trainer.settling import note_rate

log = logging.getLogger(__name__)

MOST_DEV_ROWS = 64
TRIALS = "trials"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One rate and the dev loss (nats per token) that it came to; infinite where it failed."""

    rate: float
    dev_loss: float


class _TrialFolder(RunFolder):
    """A run folder inside another: its signs of life, rests and stops are the outer one's, its progress is nobody's."""

    def __init__(self, root: Path, outer: RunFolder) -> None:
        super().__init__(root)
        self._outer = outer

    def beat(self) -> None:
        self._outer.beat()

    def rest(self) -> None:
        self._outer.rest()

    def report(self, stage: Stage, *, last: bool = False, **values: object) -> None:
        self._outer.report("load")


def with_tried_rate(setup: Setup, run: RunFolder) -> Setup:
    """The setup with the best of three rates around its own, and settings.json of the run says why. Raises Stopped, ChildError."""
    if (earlier := _earlier_rate(setup)) is not None:
        rate, why = earlier
    elif not setup.dev:
        return setup
    else:
        trials = [_try(setup, run, float(f"{setup.config.learning_rate * factor:.6g}")) for factor in TRIAL_FACTORS]
        rate, why = choose(trials, setup.config.learning_rate)
        log.info("learning rate %g: %s", rate, why)
    note_rate(run.root, rate, why)
    return replace(setup, config=setup.config.model_copy(update={"learning_rate": rate}))


def choose(trials: list[Trial], rate: float) -> tuple[float, str]:
    """(the rate of the least dev loss, why); `rate` where all trials failed. Of equal losses the smaller rate wins."""
    told = ", ".join(f"{trial.rate:g}: {trial.dev_loss:.4f}" if math.isfinite(trial.dev_loss) else f"{trial.rate:g}: failed" for trial in trials)
    best = min(trials, key=lambda trial: (trial.dev_loss, trial.rate))
    if not math.isfinite(best.dev_loss):
        return rate, f"none of the rates tried gave a dev loss ({told})"
    return best.rate, f"the least dev loss of the rates tried ({told})"


def _try(setup: Setup, run: RunFolder, rate: float) -> Trial:
    folder = run.root / TRIALS / f"{rate:g}"
    folder.mkdir(parents=True, exist_ok=True)
    dev = [setup.dev[place] for place in range(min(MOST_DEV_ROWS, len(setup.dev)))]
    short = replace(setup, config=_short(setup.config, rate, len(setup.train.kept)), dev=dev, task=replace(setup.task, checkpoint=None))
    trial = _TrialFolder(folder, run)
    try:
        training = Training(short, trial)
        training.go()
        losses = [] if training.best.dev_loss is None else [training.best.dev_loss]  # of its one checkpoint
    except ChildError as error:  # a rate at which the loss is no number any more
        log.warning("learning rate %g: %s", rate, error.what)
        losses = []
    finally:
        shutil.rmtree(run.root / TRIALS, ignore_errors=True)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return Trial(rate=rate, dev_loss=losses[-1] if losses and math.isfinite(losses[-1]) else math.inf)


def _short(config: Config, rate: float, num_rows: int) -> Config:
    steps = trial_steps(config, num_rows)
    training = config.training.model_copy(update={"max_steps": steps, "checkpoints": 1, "patience": 0, "auto_rate": False})
    return config.model_copy(update={"learning_rate": rate, "training": training, "stages": ()})  # one rate is sought for all


def _earlier_rate(setup: Setup) -> tuple[float, str] | None:
    """(rate, why) of the run that left the resume point; None where there is none or it did not say."""
    if setup.task.checkpoint is None:
        return None
    found = read_settings(Path(setup.task.checkpoint).parents[1]).get("values", {}).get("learning_rate", {})
    try:
        return float(found["value"]), str(found["why"])
    except (KeyError, TypeError, ValueError):
        return None
