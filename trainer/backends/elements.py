"""The element-wise parts of a llama-shaped layer, forward and backward by hand, without autograd.

Each reads and writes its tensors once where it is compiled, and a few times where it is not; the results are equal up to
rounding. What goes into the next product is written straight into that product's input (`out`), so that nothing is
copied together. Sums and squares are fp32, whatever the products compute in.

Axes: T tokens, E hidden size, N heads, D head size, F inner size of the MLP.
"""

import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F

from core.config import Config

COMPILE_PAYS_TOKENS = 1_000_000  # about 10 s of compiling against 1 % of 450 tokens/s on two cores
CACHED_TOKENS = 256  # of 2 F bf16 columns: 1.5 MB at F = 1,536


def add_norm(x_TE: torch.Tensor, more_TE: torch.Tensor | None, weight_E: torch.Tensor, eps: float, out_TE: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The sum of both (fp32), and the rate 1 / sqrt(mean(sum²) + eps) of each token, T 1; `out_TE` gets sum * rate * weight."""
    x_TE = x_TE if more_TE is None else x_TE + more_TE
    rate_T1 = torch.linalg.vector_norm(x_TE, dim=-1, keepdim=True).square_().div_(x_TE.shape[-1]).add_(eps).rsqrt_()
    out_TE.copy_((x_TE * rate_T1).mul_(weight_E))
    return x_TE, rate_T1


def add_norm_slope(grad_TE: torch.Tensor, x_TE: torch.Tensor, rate_T1: torch.Tensor, weight_E: torch.Tensor, into_TE: torch.Tensor) -> None:
    """Adds the gradient by the sum onto `into_TE`, given that by the normed: rate * (g - x * rate² * mean(g * x)), g = grad * weight."""
    slope_TE = grad_TE * weight_E
    mean_T1 = torch.linalg.vecdot(slope_TE, x_TE)[..., None].mul_(rate_T1 * rate_T1).div_(x_TE.shape[-1])
    into_TE.addcmul_(slope_TE.addcmul_(x_TE, mean_T1, value=-1), rate_T1)


def rotate(heads_TND: torch.Tensor, cos_T1C: torch.Tensor, sin_T1C: torch.Tensor) -> None:
    """Turns every head of each token by the angles of its place, in place; C = D / 2. With -sin: its inverse, which is its gradient."""
    half = heads_TND.shape[-1] // 2
    first_TNC, second_TNC = heads_TND[..., :half], heads_TND[..., half:]
    turned_TNC = (first_TNC * cos_T1C).addcmul_(second_TNC, sin_T1C, value=-1)
    second_TNC.copy_((second_TNC * cos_T1C).addcmul_(first_TNC, sin_T1C))
    first_TNC.copy_(turned_TNC)


def silu_gate(both_TF: torch.Tensor, out_TF: torch.Tensor) -> None:
    """silu(gate) * up of `both`, which holds the gate's F columns and then those of up."""
    gate_TF, up_TF = both_TF.chunk(2, -1)
    torch.mul(F.silu(gate_TF), up_TF, out=out_TF)


def silu_gate_slope(grad_TF: torch.Tensor, both_TF: torch.Tensor, out_TF: torch.Tensor) -> None:
    """The gradient by gate and up, side by side."""
    for grad, both, out in _blocks(grad_TF, both_TF, out_TF):
        (gate, up), (gate_out, up_out) = both.chunk(2, -1), out.chunk(2, -1)
        torch.mul(F.silu(gate), grad, out=up_out)
        gate_out.copy_(torch.ops.aten.silu_backward(grad * up, gate))


def gelu_gate(both_TF: torch.Tensor, out_TF: torch.Tensor) -> None:
    """gelu(gate) * up, with the tanh form of gelu."""
    gate_TF, up_TF = both_TF.chunk(2, -1)
    torch.mul(F.gelu(gate_TF, approximate="tanh"), up_TF, out=out_TF)


def gelu_gate_slope(grad_TF: torch.Tensor, both_TF: torch.Tensor, out_TF: torch.Tensor) -> None:
    """The gradient by gate and up, side by side."""
    for grad, both, out in _blocks(grad_TF, both_TF, out_TF):
        (gate, up), (gate_out, up_out) = both.chunk(2, -1), out.chunk(2, -1)
        torch.mul(F.gelu(gate, approximate="tanh"), grad, out=up_out)
        gate_out.copy_(torch.ops.aten.gelu_backward(grad * up, gate, approximate="tanh"))


def _blocks(*tensors: torch.Tensor) -> Iterable[tuple[torch.Tensor, ...]]:
    """The same tokens of each, as many at a time as stay in a core's cache; all at once on a GPU."""
    if tensors[0].device.type == "cuda":
        return (tensors,)
    return zip(*(tensor.split(CACHED_TOKENS) for tensor in tensors), strict=True)


@dataclass(frozen=True, slots=True)
class Elements:
    """The parts of one family, as they are or compiled."""

    gate: Callable[[torch.Tensor, torch.Tensor], None]
    gate_slope: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], None]
    add_norm: Callable[..., tuple[torch.Tensor, torch.Tensor]] = add_norm
    add_norm_slope: Callable[..., None] = add_norm_slope
    rotate: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], None] = rotate
    is_compiled: bool = False

    ACTIVATIONS: ClassVar = {"silu": (silu_gate, silu_gate_slope), "gelu_pytorch_tanh": (gelu_gate, gelu_gate_slope)}

    @classmethod
    def plain(cls, activation: str) -> "Elements":
        """As they are written."""
        return cls(*cls.ACTIVATIONS[activation])

    @classmethod
    def compiled(cls, activation: str, device: torch.device) -> "Elements":
        """Compiled at their first call, for any number of tokens. Each must see the same sizes first in every process: the code depends on them.

        On a CPU the norms alone: what is compiled for a gate or for turning heads was slower there than torch's own.
        """
        from torch._inductor import config as inductor  # seconds of CPU: only where something is compiled

        inductor.compile_threads = 1  # no processes of its own beside a trainer child
        norms: dict[str, Any] = {"add_norm": torch.compile(add_norm, dynamic=True), "add_norm_slope": torch.compile(add_norm_slope, dynamic=True)}
        if device.type != "cuda":
            return replace(cls.plain(activation), **norms, is_compiled=True)
        gate, gate_slope = (torch.compile(part, dynamic=True) for part in cls.ACTIVATIONS[activation])
        return cls(gate, gate_slope, rotate=torch.compile(rotate, dynamic=True), **norms, is_compiled=True)


def wants_compiling(config: Config, work_tokens: int, device: torch.device) -> bool:
    """Whether the parts are compiled: by training.compile; `auto`: where a compiler is at hand and so many tokens win its time back."""
    if config.training.compile == "auto":
        at_hand = device.type == "cuda" or shutil.which(os.environ.get("CXX", "g++")) is not None
        return at_hand and work_tokens >= COMPILE_PAYS_TOKENS
    return config.training.compile == "on"
