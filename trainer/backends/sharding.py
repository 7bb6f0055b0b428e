"""A base that is split over the processes of a training (FSDP2): each holds its part of every decoder layer.

A layer is put together as its forward or backward pass begins and let go after it, so that a device holds one whole layer at
a time, the embeddings, the head, and the adapter, which is small and stays whole in every process: its gradients, optimizer
and checkpoints are those of any other training. Since every pass is made by all processes together, each makes as many as
the one with the most; whoever fails in the midst of one ends, and the others with it.

Run with gloo on CPUs alone; nccl was never run. The hot loop of `trainer.backends.flat` holds a copy of all weights side by
side and cannot be split: a split base takes transformers' own layers.
"""

import logging
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from core.config import Config
from core.errors import ChildError
from core.exits import ChildExit
from trainer.backends.batches import Forward
from trainer.backends.model import Place
from trainer.backends.objective import Objective, TokenObjective
from trainer.backends.plain import PaddedForward
from trainer.settling import weights_bytes

log = logging.getLogger(__name__)

FITS = 0.8  # of a GPU's memory that the base alone may take; the rest is for activations


def wants_split(config: Config, base: Path, place: Place, size: int) -> bool:
    """Whether the base is split over `size` processes, by distributed.shard_base; `auto`: where it does not fit one GPU by its files' size.

    Raises ChildError BAD_SPEC where that was asked for and cannot be done.
    """
    asked = config.distributed.shard_base
    if size == 1 or asked == "off":
        return False
    if asked == "auto":
        return config.method == "lora" and place.device == "cuda" and weights_bytes(str(base)) > FITS * torch.cuda.get_device_properties("cuda").total_memory
    if config.method != "lora":
        raise _refused(f"distributed.shard_base splits a base that stays as it is, and method is {config.method!r}", "set method to lora, or shard_base to off")
    return True


def split(model: Any, place: Place) -> None:
    """Split the decoder layers of a PEFT model that lies on the CPU over all processes, and move the rest of it to the device, layer by layer.

    Raises ChildError BAD_SPEC for a model without a list of decoder layers.
    """
    decoder = model.get_base_model().get_decoder()
    layers = getattr(decoder, "layers", None)
    if layers is None:
        raise _refused(f"{type(decoder).__name__} names no list of layers that could be split", "set distributed.shard_base to off")
    mesh = init_device_mesh(place.device, (dist.get_world_size(),))
    whole = {param for param in model.parameters() if param.requires_grad}  # the adapter
    for layer in layers:
        fully_shard(layer, mesh=mesh, reshard_after_forward=True, ignored_params=whole)
    inside = {id(param) for layer in layers for param in layer.parameters()}
    rest = {param for param in model.parameters() if id(param) not in inside}
    fully_shard(decoder, mesh=mesh, ignored_params=whole | rest)  # holds no weights; it orders what its layers do
    for tensor in (*model.parameters(), *model.buffers()):
        if not isinstance(tensor, DTensor):
            tensor.data = tensor.data.to(place.device)
    held = sum(param.to_local().numel() for param in model.parameters() if isinstance(param, DTensor))
    log.info("the base is split: %d of its weights in layers lie in this process, %d layers in all", held, len(layers))


def require_even(forward: Forward, objective: Objective) -> None:
    """Raises ChildError BAD_SPEC where a batch is not one pass: the processes would wait for one another for ever."""
    if isinstance(forward, PaddedForward) and forward.one_row:
        raise _refused("a split base cannot learn one row at a time, as this model needs it", "set distributed.shard_base to off, or lower max_length")
    if not isinstance(objective, TokenObjective):
        raise _refused("a split base learns no pairs and no judged answers", "set distributed.shard_base to off, or drop plain rows only")


def _refused(what: str, hint: str) -> ChildError:
    return ChildError(what, hint=hint, code="NOT_SPLITTABLE", exit_code=ChildExit.BAD_SPEC)
