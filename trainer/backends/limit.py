"""How fast this device could train at best: its speed at a large matrix product, and the products that a token needs.

A token takes 4 FLOP for each frozen weight of the blocks (2 forward, 2 for the gradient of its input), 6 for each weight
that is trained (2 more for its own gradient), and as many for each weight of the head, but at learnt positions only.
Attention itself is left out, as is everything that is no matrix product: the limit is never reached.
"""

import time
from typing import Any

import torch

SIDE = 2048
TRIES = 3


def product_flops(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP per second of a square product of 2048 on this device, best of three. Takes about a tenth of a second on two cores."""
    left, right = (torch.full((SIDE, SIDE), 0.5, device=device, dtype=dtype) for _ in range(2))  # no random state is touched
    best = float("inf")
    for _ in range(TRIES + 1):  # the first warms up
        _wait(device)
        began = time.perf_counter()
        left @ right
        _wait(device)
        best = min(best, time.perf_counter() - began)
    return 2 * SIDE**3 / best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def flops_per_token(model: Any, supervised_share: float) -> float:
    """FLOP that one token of a training takes at least.

    Args: model: with its adapter, as PEFT makes it. supervised_share: learnt tokens among all, 0 to 1.
    """
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    head = inner.get_output_embeddings()
    ends = {id(weight) for module in (head, inner.get_input_embeddings()) if module is not None for weight in module.parameters()}
    blocks = sum(_flops(weight) for weight in model.parameters() if id(weight) not in ends and weight.dim() >= 2)
    return blocks + _flops(head.weight) * supervised_share


def _flops(weight: torch.Tensor) -> int:
    return (6 if weight.requires_grad else 4) * weight.numel()
