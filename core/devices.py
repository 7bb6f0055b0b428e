"""The devices under the slots: which slot may start a child, when training pauses for heat, what a training needs. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass

from core.config import Config
from core.facts import DeviceSeen, Facts
from core.sections import ThermalConfig
from core.steps import HoldSlot

GIB = 1 << 30
MIB = 1 << 20

# Of one forward and backward pass, in tokens: what the trainer's flat layout takes at most (see trainer.backends.batches).
BATCH_TOKENS = 4096
FIXED_BYTES = {"cpu": 700 * MIB, "gpu": 900 * MIB}
"""Of Python, torch and its kernels, before a weight is loaded; on a GPU the CUDA context and its workspaces."""


# ---------------------------------------------------------------- heat


def heat(name: str, celsius: float | None, held: bool, marks: tuple[float, float]) -> str:
    """Why training pauses for the temperature of `name`, in words; empty: it may run.

    Args: held: whether it pauses now; then it goes on only below the second of `marks` (pause above, resume below).
    """
    pause_c, resume_c = marks
    if celsius is None or not pause_c:
        return ""
    if celsius > pause_c or (held and celsius >= resume_c):
        return f"{name} has {celsius:.0f} °C: paused above {pause_c:.0f}, goes on below {resume_c:.0f}"
    return ""


def gpu_marks(thermal: ThermalConfig) -> tuple[float, float]:
    """(pause at, go on at) for GPUs, in degrees Celsius."""
    return thermal.gpu_c, thermal.gpu_resume_c


def cpu_marks(thermal: ThermalConfig) -> tuple[float, float]:
    """(pause at, go on at) for the CPU, in degrees Celsius."""
    return thermal.cpu_c, thermal.cpu_resume_c


def decide_holds(facts: Facts) -> Iterator[HoldSlot]:
    """Tell the child of a slot to pause or to go on, where it was not told yet."""
    for device in facts.devices:
        if bool(device.hot) != bool(device.held):
            yield HoldSlot(slot=device.slot, why=device.hot)


# ---------------------------------------------------------------- memory


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseShape:
    """What the memory of a training depends on: the base's own bytes and its widths (of its config.json)."""

    weights_bytes: int
    hidden: int
    layers: int
    intermediate: int
    vocabulary: int


def training_bytes(shape: BaseShape, config: Config, *, gpu: bool) -> int:
    """Memory that one training takes at its peak, by estimate; the memory ladder mends what it gets wrong.

    The base; the adapter with its gradient and both moments of AdamW in fp32; what the backward pass keeps of one
    micro-batch; a part of its logits. The factors are fitted to a Llama of 135M parameters on a CPU in bf16: 1.2 GB at
    305 tokens in a pass, 1.5 at 598, 2.1 at 1,183, 4.9 at 4,784; the estimate is within a tenth of each.
    """
    rows = config.training.micro_batch
    tokens = rows * config.max_length if rows else max(BATCH_TOKENS, config.max_length)
    tokens = min(tokens, config.batch_size * config.max_length)
    wide = 4 * 2 * shape.hidden + 3 * (shape.hidden + shape.intermediate)  # in and out of the seven linear layers of a block
    adapter = 16 * config.lora.r * wide * shape.layers
    return FIXED_BYTES["gpu" if gpu else "cpu"] + shape.weights_bytes + adapter + pass_bytes(shape, tokens)


def pass_bytes(shape: BaseShape, tokens: int) -> int:
    """Of them, what one forward and backward pass of so many tokens takes: activations in bf16, and a quarter of the logits in fp32."""
    return tokens * shape.layers * (11 * shape.hidden + 4 * shape.intermediate) * 2 + tokens * shape.vocabulary


def has_room(device: DeviceSeen, others: int, granted: int, need_bytes: int) -> bool:
    """Whether one more training fits beside `others` on the device, of which `granted` have not begun to take memory.

    Both by what is free now and by what all of them will take: one that has just started holds almost nothing yet.
    """
    if device.free_bytes is None or device.total_bytes is None:
        return False
    return device.free_bytes >= need_bytes * (granted + 1) and device.total_bytes >= need_bytes * (others + 1)


def foreign_matters(free_bytes: int | None, need_bytes: int | None) -> bool:
    """Whether memory that a stranger holds on a device keeps a training from it: what is left is too little, or nobody knows."""
    return free_bytes is None or need_bytes is None or free_bytes < need_bytes


def slots_with_room(facts: Facts, slots: list[int]) -> list[int]:
    """Those of the free `slots` whose device has room: the first of a device always, each further one by the estimate."""
    devices = {device.slot: device for device in facts.devices}
    busy = [device.name for slot, device in devices.items() if slot not in facts.free_slots]
    granted: list[str] = []
    found = []
    for slot in slots:
        device = devices.get(slot)
        if device is not None and device.name in (*busy, *granted):
            here, fresh = [*busy, *granted].count(device.name), granted.count(device.name)
            if facts.need_bytes is None or not has_room(device, here, fresh, facts.need_bytes):
                continue
        if device is not None:
            granted.append(device.name)
        found.append(slot)
    return found
