"""Cross entropy at supervised positions only, in bounded memory.

Axes: S supervised positions, P of a chunk, B of a block, E hidden size, V vocabulary.
"""

from typing import Any

import torch

CHUNK = 256  # positions whose V logits exist at one time, in the base's dtype; with 128 the head's products take a tenth longer
BLOCK = 16  # positions whose V logits exist in fp32: 3 MB at V = 49,152, which stays in a CPU's cache through all of its steps


class TokenLoss(torch.autograd.Function):
    """-log p of each target, S values in fp32. The gradient of the hidden states is made in the forward pass, chunk by
    chunk, so that never more than CHUNK x V logits exist, of which BLOCK x V in fp32; the head itself gets none (it is frozen)."""

    @staticmethod
    def forward(ctx: Any, hidden_SE: torch.Tensor, head_VE: torch.Tensor, target_S: torch.Tensor) -> torch.Tensor:
        """-log p (nats, float32) of each target, shape (S,); the gradient is worked out on the way, CHUNK positions at a time."""
        wants_grad = ctx.needs_input_grad[0]
        grad_SE = torch.empty_like(hidden_SE) if wants_grad else None
        loss_S = hidden_SE.new_empty(len(hidden_SE), dtype=torch.float32)
        size = CHUNK if hidden_SE.device.type == "cuda" else BLOCK
        for start in range(0, len(hidden_SE), CHUNK):
            part = slice(start, start + CHUNK)
            logits_PV = hidden_SE[part] @ head_VE.T
            for block_BV, target_B, loss_B in zip(logits_PV.split(size), target_S[part].split(size), loss_S[part].split(size), strict=True):
                _token_losses(block_BV, target_B, loss_B, wants_slope=wants_grad)
            if grad_SE is not None:
                torch.mm(logits_PV, head_VE, out=grad_SE[part])
        if grad_SE is not None:
            ctx.save_for_backward(grad_SE)
        return loss_S

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """The gradient by the hidden states, (S, E); the head is frozen and gets none."""
        (grad_SE,) = ctx.saved_tensors
        return (grad_SE * grads[0][:, None].to(grad_SE.dtype)), None, None


def _token_losses(logits_BV: torch.Tensor, target_B: torch.Tensor, loss_B: torch.Tensor, *, wants_slope: bool) -> None:
    """Fills `loss`; overwrites the logits, where `wants_slope` by its gradient, worked out in fp32 and rounded once."""
    place = torch.arange(len(target_B), device=target_B.device)
    scores_BV = logits_BV.float()
    scores_BV -= scores_BV.amax(-1, keepdim=True)
    chosen_B = scores_BV[place, target_B]
    total_B = scores_BV.exp_().sum(-1)
    torch.sub(total_B.log(), chosen_B, out=loss_B)
    if wants_slope:
        scores_BV.div_(total_B[:, None])
        scores_BV[place, target_B] -= 1.0
        logits_BV.copy_(scores_BV)
