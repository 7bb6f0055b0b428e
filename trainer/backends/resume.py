"""What a resume point holds beside the adapter: step, optimizer moments, random state. Safetensors and JSON, no pickle."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from core.errors import IntegrityError

OPTIMIZER = "optimizer.safetensors"
STATE = "state.json"
MOMENTS = ("exp_avg", "exp_avg_sq")
RANDOM = "random_state"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a training is. `fingerprint` names the training that it belongs to."""

    step: int
    fingerprint: str
    random_state: torch.Tensor


def write_progress(folder: Path, progress: Progress, optimizer: torch.optim.Optimizer, params: Mapping[str, torch.Tensor]) -> None:
    """Write the state of an AdamW optimizer over `params`, and the progress."""
    tensors = {RANDOM: progress.random_state}
    for name, param in params.items():
        for moment in MOMENTS:
            if moment in optimizer.state[param]:
                tensors[f"{name}.{moment}"] = optimizer.state[param][moment].cpu()
    save_file(tensors, folder / OPTIMIZER)
    state = {"step": progress.step, "fingerprint": progress.fingerprint}
    (folder / STATE).write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")


def read_progress(folder: Path, optimizer: torch.optim.Optimizer, params: Mapping[str, torch.Tensor], fingerprint: str) -> Progress:
    """Put the moments back into the optimizer. Raises IntegrityError for a resume point of another training."""
    state = json.loads((folder / STATE).read_bytes())
    if state["fingerprint"] != fingerprint:
        raise IntegrityError(f"{folder} belongs to a training on other rows or settings", hint="it is not used", code="RESUME_FOREIGN")
    tensors = load_file(folder / OPTIMIZER)
    for name, param in params.items():
        if f"{name}.{MOMENTS[0]}" in tensors:
            moments = {moment: tensors[f"{name}.{moment}"].to(param.device) for moment in MOMENTS}
            optimizer.state[param] = {"step": torch.tensor(float(state["step"]), device=param.device), **moments}
    return Progress(state["step"], fingerprint, tensors[RANDOM])
