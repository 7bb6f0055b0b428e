"""Cross entropy at supervised positions only, in bounded memory.

Axes: S supervised positions, E hidden size, V vocabulary.
"""

from typing import Any

import torch

CHUNK = 128  # positions whose V logits exist at one time


class TokenLoss(torch.autograd.Function):
    """-log p of each target, S values in fp32. The gradient of the hidden states is made in the forward pass, chunk by
    chunk, so that never more than CHUNK x V logits exist; the head itself gets none (it is frozen)."""

    @staticmethod
    def forward(ctx: Any, hidden_SE: torch.Tensor, head_VE: torch.Tensor, target_S: torch.Tensor) -> torch.Tensor:
        """-log p (nats, float32) of each target, shape (S,); the gradient is worked out on the way, CHUNK positions at a time."""
        wants_grad = ctx.needs_input_grad[0]
        grad_SE = torch.empty_like(hidden_SE) if wants_grad else None
        loss_S = hidden_SE.new_empty(len(hidden_SE), dtype=torch.float32)
        for start in range(0, len(hidden_SE), CHUNK):
            part = slice(start, start + CHUNK)
            target = target_S[part]
            place = torch.arange(len(target), device=target.device)
            logits = (hidden_SE[part] @ head_VE.T).float()
            logits -= logits.amax(-1, keepdim=True)
            chosen = logits[place, target]
            total = logits.exp_().sum(-1)
            loss_S[part] = total.log() - chosen
            if grad_SE is not None:
                logits.div_(total[:, None])
                logits[place, target] -= 1.0
                torch.mm(logits.to(hidden_SE.dtype), head_VE, out=grad_SE[part])
        if grad_SE is not None:
            ctx.save_for_backward(grad_SE)
        return loss_S

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """The gradient by the hidden states, (S, E); the head is frozen and gets none."""
        (grad_SE,) = ctx.saved_tensors
        return (grad_SE * grads[0][:, None].to(grad_SE.dtype)), None, None
