"""What a backend trains, on what: the same for all of them. No tensors."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from core.config import Config
from core.tasks import TrainTask
from trainer.examples import Example, Examples
from trainer.identity import Identity


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What is trained, on what; `config` is settled."""

    task: TrainTask
    config: Config
    train: Examples
    dev: Sequence[Example]
    new_model: Callable[[Path, Config], Any] | None = None
    """How the model with what is trained of it is made, where not by transformers and PEFT alone."""

    @cached_property
    def identity(self) -> Identity:
        """Tells whether a resume point belongs to this training: same base, same rows, same settings."""
        return Identity.of(self.task, self.config, self.train.totals.names_sha256, len(self.train.kept))

    @property
    def fingerprint(self) -> str:
        """The identity as one hash, for a backend that only has to know whether it is the same."""
        return hashlib.sha256(json.dumps(asdict(self.identity), sort_keys=True).encode()).hexdigest()
