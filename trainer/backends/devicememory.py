"""The memory of the device that a model lies on, and what a pass of a base takes of it by estimate."""

from pathlib import Path

import torch

from core.devices import pass_bytes
from core.estimate import shape_of
from trainer.memory import Gauge, HostMemory
from trainer.settling import described_model


class GpuMemory:
    """Memory of one GPU. Not run on a GPU yet."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._before = self._peak = 0

    def free_bytes(self) -> int | None:
        """What the driver could give, and what torch's allocator holds unused."""
        free: int = torch.cuda.mem_get_info(self.device)[0]
        return free + torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)

    def mark(self) -> None:
        """Begin to watch the peak; the peak of the whole run is `max_memory_reserved`, which this leaves alone."""
        self._before = torch.cuda.memory_allocated(self.device)
        self._peak = torch.cuda.max_memory_allocated(self.device)

    def taken_bytes(self) -> int | None:
        """What came on top of what was held; only a new peak tells it."""
        now: int = torch.cuda.max_memory_allocated(self.device)
        return now - self._before if now > self._peak else None


def gauge_of(device: torch.device) -> Gauge:
    """The gauge of the device: a GPU's own memory, else this machine's."""
    return GpuMemory(device) if device.type == "cuda" else HostMemory()


def pass_bytes_per_token(base: Path) -> int:
    """What a forward and backward pass keeps for each token, by estimate from the base's shape; 0 where config.json does not tell it."""
    shape = shape_of(described_model(str(base)), 0)
    return pass_bytes(shape, 1) if shape is not None else 0
