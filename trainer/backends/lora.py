"""The adapter's linear layers as one operation each: less memory and less time than layer by layer.

y = x W^T + scale (x A^T) B^T, where the second product is added onto the first in place. PEFT keeps owning the
parameters, so that saving and loading stay PEFT's own. Axes: T tokens, I inputs, O outputs, R rank.
"""

from functools import partial
from typing import Any

import torch
from peft.tuners.lora.layer import Linear


class _LoraProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_TI: torch.Tensor, weight_OI: torch.Tensor, a_RI: torch.Tensor, b_OR: torch.Tensor, scale: float) -> torch.Tensor:
        a, b = a_RI.to(x_TI.dtype), b_OR.to(x_TI.dtype)
        low_TR = x_TI @ a.T
        ctx.save_for_backward(x_TI, weight_OI, a, b, low_TR)
        ctx.scale = scale
        return (x_TI @ weight_OI.T).addmm_(low_TR, b.T, alpha=scale)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x_TI, weight_OI, a, b, low_TR = ctx.saved_tensors
        grad_TO = grads[0]
        grad_TR = (grad_TO @ b).mul_(ctx.scale)
        grad_x = (grad_TO @ weight_OI).addmm_(grad_TR, a) if ctx.needs_input_grad[0] else None
        grad_a = (grad_TR.T @ x_TI).float()
        grad_b = (grad_TO.T @ low_TR).float().mul_(ctx.scale)
        return grad_x, None, grad_a, grad_b, None


def fuse(model: torch.nn.Module) -> None:
    """Let every plain LoRA layer of a PEFT model compute as one operation. A repeat is harmless; `unfuse` takes it back."""
    for module in model.modules():
        if type(module) is Linear and type(module.base_layer) is torch.nn.Linear:
            module.forward = partial(_forward, module)


def unfuse(model: torch.nn.Module) -> None:
    """Let every layer compute as PEFT itself does."""
    for module in model.modules():
        module.__dict__.pop("forward", None)


def _forward(module: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    adapter = _only_adapter(module)
    if adapter is None or args or kwargs or x.dtype != module.base_layer.weight.dtype:
        return type(module).forward(module, x, *args, **kwargs)
    a, b = module.lora_A[adapter].weight, module.lora_B[adapter].weight
    base = module.base_layer
    out = _LoraProduct.apply(x.reshape(-1, x.shape[-1]), base.weight, a, b, module.scaling[adapter])
    out = out if base.bias is None else out + base.bias
    return out.view(*x.shape[:-1], -1)


def _only_adapter(module: Any) -> str | None:
    """The one active adapter, if it is of the plain form: no merge, no variant such as DoRA, no dropout at work."""
    if module.disable_adapters or module.merged or len(module.active_adapters) != 1:
        return None
    (name,) = module.active_adapters
    dropout = module.lora_dropout[name] if name in module.lora_A else None
    works = module.training and not isinstance(dropout, torch.nn.Identity)
    plain = dropout is not None and name not in module.lora_variant and not works and not module.lora_bias[name]
    return str(name) if plain else None
