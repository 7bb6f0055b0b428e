"""How busy the box is: with a GPU, without one, and with one that does not tell."""

from types import SimpleNamespace
from typing import Any

from serving.machineuse import MachineUse


class Lost(Exception):
    """What NVML raises of a GPU that fell off the bus."""


def library(*shares: int | None) -> Any:
    """NVML on a machine with GPUs that compute so many percent of the time; None: it does not tell."""

    def rates(index: int) -> SimpleNamespace:
        share = shares[index]
        if share is None:
            raise Lost
        return SimpleNamespace(gpu=share)

    return SimpleNamespace(
        NVMLError=Lost, nvmlDeviceGetCount=lambda: len(shares), nvmlDeviceGetHandleByIndex=lambda index: index, nvmlDeviceGetUtilizationRates=rates
    )


def test_a_box_without_a_gpu_tells_of_processor_and_memory_alone() -> None:
    shares = MachineUse(lambda: None).shares()
    assert shares.keys() == {"cpu", "memory"}
    assert all(0 <= share <= 1 for share in shares.values())


def test_of_several_gpus_the_busiest_counts_and_one_that_does_not_tell_is_there_all_the_same() -> None:
    assert MachineUse(lambda: library(20, 90)).shares()["gpu"] == 0.9
    assert MachineUse(lambda: library(None)).shares()["gpu"] == 0.0
