"""The optimizer of a training."""

from collections.abc import Iterable

import torch

from core.config import Config
from trainer.backends.cuda import wants_8bit


def optimizer_for(config: Config, params: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """AdamW over the trained weights, with moments in fp32 or 8 bits (training.optimizer); the learning rate is set before each step."""
    trained = list(params)
    if wants_8bit(config, trained[0].device):
        from bitsandbytes.optim import AdamW8bit

        eight: torch.optim.Optimizer = AdamW8bit(trained, lr=0.0, weight_decay=config.training.weight_decay)
        return eight
    return torch.optim.AdamW(trained, lr=0.0, weight_decay=config.training.weight_decay, fused=True)
