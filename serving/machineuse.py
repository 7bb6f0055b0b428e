"""How busy the machine of the box is: shares in use of processor, memory and, where there is one, GPU."""

from collections.abc import Callable
from typing import Any

import psutil

from serving.metrics import nvidia


class MachineUse:
    """Reads the machine. `shares` tells of the time since it was asked last, so one thread should ask it."""

    def __init__(self, load: Callable[[], Any] = nvidia) -> None:
        """Args: load: gives NVIDIA's library, ready, or None on a machine without GPUs."""
        self._nvml = load()

    def shares(self) -> dict[str, float]:
        """cpu, memory, and gpu where this machine has one (of several the busiest); each from 0 to 1."""
        found = {"cpu": psutil.cpu_percent() / 100, "memory": psutil.virtual_memory().percent / 100}
        gpus = list(self._gpus()) if self._nvml is not None else []
        return found | ({"gpu": max(gpus)} if gpus else {})

    def _gpus(self) -> list[float]:
        nvml, found = self._nvml, []
        for index in range(nvml.nvmlDeviceGetCount()):
            try:
                found.append(nvml.nvmlDeviceGetUtilizationRates(nvml.nvmlDeviceGetHandleByIndex(index)).gpu / 100)
            except nvml.NVMLError:  # one that does not tell: it is there all the same
                found.append(0.0)
        return found
