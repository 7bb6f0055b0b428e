"""What a resume point holds beside the adapter: how far the training is, the optimizer's state, the random states.

Safetensors and JSON, no pickle. Written and read back, every bit is the same, so that the next step is too.
"""

import json
import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from core.errors import IntegrityError
from trainer.identity import Identity, differences

OPTIMIZER = "optimizer.safetensors"
STATE = "state.json"
RANDOM = "random."


@dataclass(frozen=True, slots=True)
class RandomStates:
    """The random states that a step may draw from, as tensors: of torch, of each GPU, of Python and of numpy."""

    tensors: Mapping[str, torch.Tensor]

    @classmethod
    def seed(cls, seed: int) -> "RandomStates":
        """Every generator of this process as it stands after this seed."""
        torch.manual_seed(seed)  # GPUs too
        random.seed(seed)
        np.random.seed(seed % (1 << 32))
        return cls.now()

    @classmethod
    def now(cls) -> "RandomStates":
        """The states as they are."""
        own = random.getstate()
        _, keys, place, has_gauss, cached = np.random.get_state(legacy=True)
        found = {
            "torch": torch.get_rng_state(),
            "python": torch.tensor(own[1], dtype=torch.int64),
            "python_gauss": torch.tensor([float("nan") if own[2] is None else own[2]], dtype=torch.float64),
            "numpy": torch.tensor([*map(int, keys), int(place), int(has_gauss)], dtype=torch.int64),
            "numpy_gauss": torch.tensor([float(cached)], dtype=torch.float64),
        }
        if torch.cuda.is_available():
            found |= {f"cuda{index}": state for index, state in enumerate(torch.cuda.get_rng_state_all())}
        return cls(found)

    def restore(self) -> None:
        """Put every generator back to where it was. GPUs beyond those of this machine are left out."""
        tensors = self.tensors
        torch.set_rng_state(tensors["torch"])
        gauss = float(tensors["python_gauss"])
        random.setstate((3, tuple(tensors["python"].tolist()), None if gauss != gauss else gauss))
        *keys, place, has_gauss = tensors["numpy"].tolist()
        np.random.set_state(("MT19937", np.array(keys, dtype=np.uint32), place, has_gauss, float(tensors["numpy_gauss"])))
        for index in range(torch.cuda.device_count()):
            if f"cuda{index}" in tensors:
                torch.cuda.set_rng_state(tensors[f"cuda{index}"], index)


@dataclass(slots=True)
class Best:
    """The best dev loss of a stage's checkpoints so far, and how many came after it."""

    dev_loss: float | None = None
    step: int = 0
    since: int = 0
    began: float | None = None
    """The dev loss as the stage began; None in a training without stages."""
    last: float | None = None
    """That of the newest checkpoint."""

    def see(self, dev_loss: float | None, step: int) -> None:
        """A checkpoint was judged. Without a dev loss the newest counts as the best."""
        self.last = dev_loss
        if dev_loss is None or self.dev_loss is None or dev_loss < self.dev_loss:
            self.dev_loss, self.step, self.since = dev_loss, step, 0
        else:
            self.since += 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a training is, and which training it is."""

    step: int
    identity: Identity
    random: RandomStates
    threads: int
    best: Best = field(default_factory=Best)


def write_progress(folder: Path, progress: Progress, optimizer: torch.optim.Optimizer, params: Mapping[str, torch.Tensor]) -> None:
    """Write the state of an optimizer over `params`, whatever it keeps for each, and the progress."""
    tensors = {f"{RANDOM}{name}": state for name, state in progress.random.tensors.items()}
    scalars: dict[str, dict[str, Any]] = {}
    for name, param in params.items():
        for key, value in optimizer.state.get(param, {}).items():
            if isinstance(value, torch.Tensor):
                tensors[f"{name}.{key}"] = value.detach().cpu().clone()  # 8-bit optimizers share their code books
            elif value is not None:
                scalars.setdefault(name, {})[key] = value
    save_file(tensors, folder / OPTIMIZER)
    state = {"step": progress.step, "threads": progress.threads, "best": asdict(progress.best), "training": asdict(progress.identity), "scalars": scalars}
    (folder / STATE).write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")


def read_progress(folder: Path, optimizer: torch.optim.Optimizer, params: Mapping[str, torch.Tensor], identity: Identity) -> Progress:
    """Put the optimizer's state back. Raises IntegrityError RESUME_DIFFERENT, which names every difference, for a resume point of another training."""
    state = json.loads((folder / STATE).read_bytes())
    told = differences(Identity(**state["training"]), _as_read(identity)) if "training" in state else ["an earlier lorad wrote it"]
    if told:
        raise IntegrityError(
            f"the resume point {folder.name} of run {folder.parents[1].name} is of another training: {'; '.join(told)}",
            hint="train with what it was made with, or begin anew without it",
            code="RESUME_DIFFERENT",
        )
    tensors = load_file(folder / OPTIMIZER)
    known = {name: {**state["scalars"].get(name, {})} for name in params}
    for key, tensor in tensors.items():
        name, _, entry = key.rpartition(".")
        if name in known:
            known[name][entry] = tensor.to(params[name].device)
    for name, param in params.items():
        if known[name]:
            optimizer.state[param] = known[name]
    randoms = RandomStates({key.removeprefix(RANDOM): tensor for key, tensor in tensors.items() if key.startswith(RANDOM)})
    return Progress(step=state["step"], identity=identity, random=randoms, threads=state["threads"], best=Best(**state["best"]))


def _as_read(identity: Identity) -> Identity:
    """The identity as JSON gives it back: tuples are lists there."""
    return Identity(**json.loads(json.dumps(asdict(identity))))
