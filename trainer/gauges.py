"""What the machine shows while it trains: use of the GPU, its temperature, the processor's. Read, never set."""

import logging
from dataclasses import dataclass, field
from typing import Any

log = logging.getLogger(__name__)

LOW_USE = 0.85
"""Mean use of a GPU below which a training waits for something else."""
CPU_SENSORS = ("coretemp", "k10temp", "zenpower", "cpu_thermal", "cpu-thermal", "acpitz")


@dataclass(slots=True)
class Gauges:
    """Readings of this process's device, and the mean of its use."""

    uses: list[float] = field(default_factory=list)
    _card: Any = None
    _opened: bool = False

    def read(self, device: str) -> dict[str, float]:
        """gpu_use (share of time that kernels ran in the last moment, 0 to 1) and celsius, as far as they can be read. Never raises.

        Args: device: cpu, mlx, or the name of a GPU.
        """
        return self._cpu() if device in ("", "cpu", "mlx", "stub") else self._gpu()

    @property
    def mean_use(self) -> float | None:
        """Mean share of time that the GPU worked; None on a CPU."""
        return sum(self.uses) / len(self.uses) if self.uses else None

    def _gpu(self) -> dict[str, float]:
        try:
            import pynvml

            if not self._opened:
                self._opened = True
                pynvml.nvmlInit()
                self._card = _own_card(pynvml)
            if self._card is None:
                return {}
            use = pynvml.nvmlDeviceGetUtilizationRates(self._card).gpu / 100
            self.uses.append(use)
            return {"gpu_use": use, "celsius": float(pynvml.nvmlDeviceGetTemperature(self._card, pynvml.NVML_TEMPERATURE_GPU))}
        except Exception as error:  # NVML raises its own kinds, and ctypes others: a gauge is no reason to stop
            if self._card is not None:
                log.warning("the GPU's gauges cannot be read: %s", error)
            self._card = None
            return {}

    def _cpu(self) -> dict[str, float]:
        import psutil

        try:
            found = psutil.sensors_temperatures()
        except (AttributeError, OSError):  # no sensors on this system
            return {}
        readings = [entry.current for name in CPU_SENSORS for entry in found.get(name, ())]
        return {"celsius": max(readings)} if readings else {}


def _own_card(nvml: Any) -> Any:
    """The GPU that CUDA calls device 0 in this process."""
    import torch

    wanted = str(torch.cuda.get_device_properties(0).uuid)
    for index in range(nvml.nvmlDeviceGetCount()):
        card = nvml.nvmlDeviceGetHandleByIndex(index)
        name = nvml.nvmlDeviceGetUUID(card)
        if wanted in (name if isinstance(name, str) else name.decode()):
            return card
    return None


def idle_reason(mean_use: float, *, micro_batch: int, batch_size: int, checkpointing: bool) -> str:
    """Why a GPU works less than it could, in one sentence with what to do; empty where it works enough."""
    if mean_use >= LOW_USE:
        return ""
    told = f"the GPU worked {mean_use:.0%} of the time (under {LOW_USE:.0%})"
    if micro_batch and micro_batch < batch_size:
        return f"{told}: forward passes of {micro_batch} of {batch_size} rows are small; raise training.micro_batch, or free memory"
    if checkpointing:
        return f"{told}: activations are computed twice to save memory; a shorter max_length may make that needless"
    return f"{told}: the rows are few or short for this GPU; raise batch_size, or let it be"
