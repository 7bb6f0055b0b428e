"""The adapter's linear layers as one operation each: less memory and less time than layer by layer.

y = x W^T + scale (x A^T) B^T, where the second product is added onto the first in place. PEFT keeps owning the
parameters, so that saving and loading stay PEFT's own. Axes: T tokens, I inputs, O outputs, R rank.
"""

from collections.abc import Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Part:
    """One linear layer of a product: its rows in the product's output, its ranks, and its adapter's parameters, if it has one."""

    outs: slice
    ranks: slice
    low: tuple[torch.nn.Parameter, torch.nn.Parameter] | None  # A (rank, inputs) and B (outs, rank)
    scale: float


class Product:
    """Linear layers that read the same input, with their adapters, as one matrix product each way.

    y = [x | x A^T] [W | s B]^T: base and adapter are added up in the product's fp32 accumulator and rounded once. In bf16
    a second rounding would swallow the small steps of an adapter. One matrix (O + R) x (I + R) holds [[W, s B], [A, 0]]:
    its upper half is the forward product's, its left half the backward's. The base layers' own weights become views of
    it, so that the base is held once. Axes: T tokens, I inputs, O outputs of all layers, R their ranks together.
    """

    def __init__(self, layers: Sequence[Any]) -> None:
        adapters = [_only_adapter(layer) if isinstance(layer, Linear) else None for layer in layers]
        bases = [layer.base_layer if isinstance(layer, Linear) else layer for layer in layers]
        self.inputs, self.outs = bases[0].in_features, sum(base.out_features for base in bases)
        self.ranks = sum(layer.r[name] for layer, name in zip(layers, adapters, strict=True) if name is not None)
        weight = bases[0].weight
        self.matrix = weight.new_zeros(self.outs + self.ranks, self.inputs + self.ranks)
        self.bias_O = torch.cat([weight.new_zeros(base.out_features) if base.bias is None else base.bias for base in bases])
        self.has_bias = any(base.bias is not None for base in bases)
        self.layers = [layer for layer, name in zip(layers, adapters, strict=True) if name is not None]
        self.parts: list[Part] = []
        out = rank = 0
        for layer, name, base in zip(layers, adapters, bases, strict=True):
            own = self.matrix[out : out + base.out_features, : self.inputs]
            own.copy_(base.weight)
            base.weight.data = own
            low = None if name is None else (layer.lora_A[name].weight, layer.lora_B[name].weight)
            width = 0 if low is None else len(low[0])
            scale = 1.0 if name is None else float(layer.scaling[name])
            self.parts.append(Part(slice(out, out + base.out_features), slice(rank, rank + width), low, scale))
            out, rank = out + base.out_features, rank + width

    @property
    def params(self) -> list[torch.nn.Parameter]:
        """The adapters' parameters, in the order of `backward`'s gradients."""
        return [param for part in self.parts if part.low is not None for param in part.low]

    @property
    def is_on(self) -> bool:
        """Whether the adapters count: PEFT switches them off for a model that is compared with."""
        return bool(self.layers) and not self.layers[0].disable_adapters

    @torch.no_grad()
    def refresh(self) -> None:
        """Take over the adapters' present values."""
        for part in self.parts:
            if part.low is not None:
                a_RI, b_OR = part.low
                self.matrix[self.outs :][part.ranks, : self.inputs].copy_(a_RI)
                torch.mul(b_OR, part.scale, out=self.matrix[part.outs, self.inputs :][:, part.ranks])

    def input(self, num_tokens: int, like: torch.Tensor) -> torch.Tensor:
        """Room for [x | x A^T]: write x into the first columns (`self.inputs`) and hand it to `forward`."""
        return like.new_empty(num_tokens, self.inputs + self.ranks, dtype=self.matrix.dtype)

    def slope(self, num_tokens: int) -> torch.Tensor:
        """Room for [dy | dy B]: write dy into the first columns (`self.outs`) and hand it to `backward`."""
        return self.matrix.new_empty(num_tokens, self.outs + self.ranks)

    def forward(self, x_TK: torch.Tensor, is_on: bool) -> torch.Tensor:
        """y, T O. Fills the last columns of `x_TK`."""
        width = self.inputs
        if is_on and self.ranks:
            x_TK[:, width:] = x_TK[:, :width] @ self.matrix[self.outs :, :width].T
            width += self.ranks
        weight_OK = self.matrix[: self.outs, :width]
        return torch.addmm(self.bias_O, x_TK[:, :width], weight_OK.T) if self.has_bias else x_TK[:, :width] @ weight_OK.T

    def backward(self, slope_TJ: torch.Tensor, x_TK: torch.Tensor, *, wants_x: bool) -> tuple[torch.Tensor | None, list[torch.Tensor]]:
        """The gradient by x, T I (None where nobody wants it), and those of `params` in fp32. Fills the last columns of `slope_TJ`."""
        outs, inputs = self.outs, self.inputs
        if self.ranks:
            slope_TJ[:, outs:] = slope_TJ[:, :outs] @ self.matrix[:outs, inputs:]
        grad_TI = slope_TJ @ self.matrix[:, :inputs] if wants_x else None
        if not self.ranks:
            return grad_TI, []
        a_RI = slope_TJ[:, outs:].T @ x_TK[:, :inputs]
        b_OR = (x_TK[:, inputs:].T.contiguous() @ slope_TJ[:, :outs]).T  # this way round it is half as long
        grads: list[torch.Tensor] = []
        for part in self.parts:
            if part.low is not None:
                grads += [a_RI[part.ranks].float(), b_OR[part.outs, part.ranks].float().mul_(part.scale)]
        return grad_TI, grads


def is_plain(layer: Any, dtype: torch.dtype) -> bool:
    """Whether a layer can be part of a `Product`: a frozen linear layer of that dtype, with no adapter or one plain one."""
    base = layer.base_layer if type(layer) is Linear else layer
    if type(base) is not torch.nn.Linear or base.weight.dtype != dtype or base.weight.requires_grad:
        return False
    return type(layer) is not Linear or _only_adapter(layer) is not None or layer.disable_adapters
