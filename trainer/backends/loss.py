"""Cross entropy at supervised positions only, in bounded memory.

Axes: S supervised positions, P of a chunk, B of a block, E hidden size, V vocabulary.
"""

from typing import Any

import torch

CHUNK = 256  # positions whose V logits exist at one time, in the base's dtype; with 128 the head's products take a tenth longer
BLOCK = 16  # positions whose V logits exist in fp32: 3 MB at V = 49,152, which stays in a CPU's cache through all of its steps


class TokenLoss(torch.autograd.Function):
    """-log p of each target, S values in fp32, and whether it is the likeliest token (of equals, any). The gradient of the
    hidden states is made in the forward pass, chunk by chunk, so that never more than CHUNK x V logits exist, of which
    BLOCK x V in fp32; the head itself gets none (it is frozen)."""

    @staticmethod
    def forward(ctx: Any, hidden_SE: torch.Tensor, head_VE: torch.Tensor, target_S: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """-log p (nats, float32) and rightness (bool) of each target, both (S,); the gradient is worked out on the way, CHUNK positions at a time."""
        wants_grad = ctx.needs_input_grad[0]
        grad_SE = torch.empty_like(hidden_SE) if wants_grad else None
        loss_S = hidden_SE.new_empty(len(hidden_SE), dtype=torch.float32)
        right_S = hidden_SE.new_empty(len(hidden_SE), dtype=torch.bool)
        size = CHUNK if hidden_SE.device.type == "cuda" else BLOCK
        for start in range(0, len(hidden_SE), CHUNK):
            part = slice(start, start + CHUNK)
            logits_PV = hidden_SE[part] @ head_VE.T
            blocks = (whole.split(size) for whole in (logits_PV, target_S[part], loss_S[part], right_S[part]))
            for block_BV, target_B, loss_B, right_B in zip(*blocks, strict=True):
                _token_losses(block_BV, target_B, (loss_B, right_B), wants_slope=wants_grad)
            if grad_SE is not None:
                torch.mm(logits_PV, head_VE, out=grad_SE[part])
        if grad_SE is not None:
            ctx.save_for_backward(grad_SE)
        ctx.mark_non_differentiable(right_S)
        return loss_S, right_S

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """The gradient by the hidden states, (S, E); the head is frozen and gets none."""
        (grad_SE,) = ctx.saved_tensors
        return (grad_SE * grads[0][:, None].to(grad_SE.dtype)), None, None


def _token_losses(logits_BV: torch.Tensor, target_B: torch.Tensor, out: tuple[torch.Tensor, torch.Tensor], *, wants_slope: bool) -> None:
    """Fills `out`, loss and rightness, both B; overwrites the logits, where `wants_slope` by its gradient, worked out in fp32 and rounded once."""
    place = torch.arange(len(target_B), device=target_B.device)
    scores_BV = logits_BV.float()
    scores_BV -= scores_BV.amax(-1, keepdim=True)
    chosen_B = scores_BV[place, target_B]
    loss_B, right_B = out
    torch.eq(chosen_B, 0.0, out=right_B)  # the largest is 0 now
    total_B = scores_BV.exp_().sum(-1)
    torch.sub(total_B.log(), chosen_B, out=loss_B)
    if wants_slope:
        scores_BV.div_(total_B[:, None])
        scores_BV[place, target_B] -= 1.0
        logits_BV.copy_(scores_BV)
