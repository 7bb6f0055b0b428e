"""The devices under the slots: GPUs by NVML, or the CPU; which slot has which, and how warm, full and taken each is.

A reading is kept for two seconds: a tick may come every 50 ms. Only the daemon reads sensors; what they mean is decided
in `core.devices`.

For tests and for trying out faults, the environment variable LORAD_SENSORS may name a JSON file that is read instead:

    {"gpus": [{"uuid": "GPU-0", "name": "RTX 4090", "free_mb": 20000, "total_mb": 24564, "celsius": 61,
               "holders": [{"pid": 4711, "name": "python", "mb": 9000}]}],
     "cpu": {"free_mb": 16000, "total_mb": 32000, "celsius": 55}}
"""

import json
import logging
import os
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import psutil

from core.config import Config
from core.devices import MIB, cpu_marks, foreign_matters, gpu_marks, heat, training_bytes
from core.estimate import shape_of
from core.facts import DeviceSeen
from daemon import machine
from daemon.clock import monotonic_s
from daemon.cores import cores_here, serving_is_here
from store.bases import described_base
from store.paths import Home

log = logging.getLogger(__name__)

SENSORS = "LORAD_SENSORS"
VISIBLE = "CUDA_VISIBLE_DEVICES"
READ_EVERY_S = 2.0
FOREIGN_BYTES = 256 * MIB  # a desktop's own share of a GPU is below this
STUB_BYTES = 64 * MIB  # a trainer without a model
CPU_SENSORS = ("coretemp", "k10temp", "zenpower", "cpu_thermal", "cpu-thermal", "acpitz")


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A process that holds memory of a GPU."""

    pid: int
    name: str
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One reading of a GPU, or of the CPU (without a uuid)."""

    name: str
    uuid: str = ""
    free_bytes: int | None = None
    total_bytes: int | None = None
    celsius: float | None = None
    holders: tuple[Holder, ...] = ()


class Sensors(Protocol):
    """Reads the devices of this machine. Changes nothing; a repeat is harmless; what cannot be read is None or missing."""

    def gpus(self) -> list[Device]:
        """Each GPU in the driver's order; empty where there is none, or no driver."""

    def cpu(self) -> Device:
        """The machine's memory, and the hottest reading of its processor."""


# ---------------------------------------------------------------- real


class MachineSensors:
    """NVML (the distribution nvidia-ml-py) and psutil. Without a driver there are no GPUs."""

    def __init__(self) -> None:
        self._nvml: Any = None
        try:
            import pynvml

            pynvml.nvmlInit()
            self._nvml = pynvml
        except ImportError:
            log.info("no pynvml: GPUs are not looked for")
        except pynvml.NVMLError as error:
            log.info("no GPU: %s", error)

    def gpus(self) -> list[Device]:
        """The GPUs as NVML shows them; none where there is no NVML or it fails (logged)."""
        if self._nvml is None:
            return []
        try:
            return [self._gpu(index) for index in range(self._nvml.nvmlDeviceGetCount())]
        except self._nvml.NVMLError as error:
            log.warning("the GPUs cannot be read: %s", error, extra={"action": "sensors_failed"})
            return []

    def _gpu(self, index: int) -> Device:
        nvml = self._nvml
        card = nvml.nvmlDeviceGetHandleByIndex(index)
        memory = self._try(lambda: nvml.nvmlDeviceGetMemoryInfo(card))
        celsius = self._try(lambda: nvml.nvmlDeviceGetTemperature(card, nvml.NVML_TEMPERATURE_GPU))
        processes = self._try(lambda: nvml.nvmlDeviceGetComputeRunningProcesses(card)) or []
        holders = [Holder(pid=one.pid, name=machine.name_of(one.pid), bytes=one.usedGpuMemory or 0) for one in processes]
        return Device(
            name=f"cuda:{index} {_text(nvml.nvmlDeviceGetName(card))}",
            uuid=_text(nvml.nvmlDeviceGetUUID(card)),
            free_bytes=memory.free if memory is not None else None,
            total_bytes=memory.total if memory is not None else None,
            celsius=float(celsius) if celsius is not None else None,
            holders=tuple(holders),
        )

    def _try(self, read: Callable[[], Any]) -> Any:
        """One reading; None where this card does not offer it."""
        try:
            return read()
        except self._nvml.NVMLError:
            return None

    def cpu(self) -> Device:
        """The CPU with the machine's memory."""
        memory = psutil.virtual_memory()
        return Device(name="cpu", free_bytes=memory.available, total_bytes=memory.total, celsius=_cpu_celsius())


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _cpu_celsius() -> float | None:
    """The hottest sensor of the processor; None where the system offers none (virtual machines, macOS)."""
    read = getattr(psutil, "sensors_temperatures", None)
    try:
        found = read() if read is not None else {}
    except OSError:
        return None
    known = [sensor.current for name in CPU_SENSORS for sensor in found.get(name, ()) if sensor.current]
    return max(known, default=None)


# ---------------------------------------------------------------- fake


class FakeSensors:
    """Reads the JSON file that LORAD_SENSORS names; its form stands at the top of this file. What is missing is real for the CPU."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def gpus(self) -> list[Device]:
        """The GPUs that the file tells of."""
        cards = self._read().get("gpus", [])
        return [_fake(f"cuda:{index} {card.get('name', 'GPU')}", card) for index, card in enumerate(cards)]

    def cpu(self) -> Device:
        """The CPU as the file tells of it; memory that it does not tell of is the machine's."""
        told = self._read().get("cpu", {})
        memory = psutil.virtual_memory()
        return _fake("cpu", {"free_mb": memory.available // MIB, "total_mb": memory.total // MIB} | told)

    def _read(self) -> dict[str, Any]:
        """Empty where the file is missing or not whole: a test may be writing it."""
        try:
            found = json.loads(self._path.read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}


def _fake(name: str, told: dict[str, Any]) -> Device:
    holders = tuple(Holder(pid=int(one["pid"]), name=str(one.get("name", "")), bytes=int(one["mb"]) * MIB) for one in told.get("holders", ()))
    free, total = (int(told[key]) * MIB if key in told else None for key in ("free_mb", "total_mb"))
    return Device(name=name, uuid=str(told.get("uuid", "")), free_bytes=free, total_bytes=total, celsius=told.get("celsius"), holders=holders)


def sensors_here() -> Sensors:
    """The real sensors, unless LORAD_SENSORS names a file."""
    told = os.environ.get(SENSORS)
    if told:
        log.warning("sensors are made up: %s=%s", SENSORS, told, extra={"action": "sensors_fake"})
        return FakeSensors(Path(told))
    return MachineSensors()


# ---------------------------------------------------------------- slots


@dataclass(slots=True)
class Devices:
    """Slot n has the n-th device, and round again where there are more slots than devices."""

    home: Home
    slots: int
    sensors: Sensors = field(default_factory=sensors_here)
    _read_at_s: float = float("-inf")
    _found: tuple[Device, ...] = ()
    _cpu: Device = Device(name="cpu")
    _need: tuple[object, int | None] = (None, None)
    _shares: bool = False  # serving runs here
    _processes: int = 0  # of one training

    def look(self, config: Config, own: Callable[[], Collection[int]]) -> tuple[DeviceSeen, ...]:
        """The device of each slot. `own` gives the processes that are ours; asked for only where somebody holds a GPU."""
        if self._refresh():
            self._shares = serving_is_here(config)
        self._processes = config.distributed.processes
        need = self.need_bytes(config)
        return tuple(self._seen(slot, config, need, own) for slot in range(self.slots))

    def of(self, slot: int) -> Device:
        """The device of a slot as it was last read."""
        if not self._found:
            self._refresh()
        return self._found[slot % len(self._found)]

    def environment(self, slot: int) -> dict[str, str]:
        """What a child in this slot must be told: on a GPU, which one it may see, by a name that no order changes.

        A training of several processes sees as many GPUs; it has the only slot.
        """
        device = self.of(slot)
        seen = self._found[: self._processes] if self._processes > 1 else (device,)
        return {VISIBLE: ",".join(card.uuid for card in seen)} if device.uuid else {}

    def threads(self, slot: int, wanted: int) -> int:
        """CPU threads of a child in this slot: as configured, else its share of the cores; 0 leaves it to the child.

        One core is left to serving while it runs on this machine.
        """
        if wanted:
            return wanted
        if self._shares:
            return max(1, (cores_here() - 1) // self.slots)
        return max(1, (os.cpu_count() or 1) // self.slots) if self.slots > 1 else 0

    def need_bytes(self, config: Config) -> int | None:
        """Memory that one training takes, by estimate; None where the base is not there, or does not tell its shape."""
        key = (config.model_path, config.model_name, config.models_dir, config.backend, config.lora, config.training, config.batch_size, config.max_length)
        if self._need[0] != key or self._need[1] is None:
            self._need = (key, _need_bytes(config, gpu=bool(self._found and self._found[0].uuid)))
        return self._need[1]

    def _refresh(self) -> bool:
        """Whether the time had come to read anew."""
        now = monotonic_s()
        if now - self._read_at_s < READ_EVERY_S:
            return False
        self._read_at_s = now
        self._cpu = self.sensors.cpu()
        found = tuple(_visible(self.sensors.gpus(), os.environ.get(VISIBLE))) or (self._cpu,)
        if self._found and self._found[0].uuid and not found[0].uuid:
            return True  # the driver has lost its cards for now: a running child must not be told that it moved to the CPU
        self._found = found
        return True

    def _seen(self, slot: int, config: Config, need: int | None, own: Callable[[], Collection[int]]) -> DeviceSeen:
        device, held = self.of(slot), self._held(slot)
        hot = heat(device.name, device.celsius, bool(held), gpu_marks(config.thermal)) if device.uuid else ""
        hot = hot or heat("the CPU", self._cpu.celsius, bool(held), cpu_marks(config.thermal))
        foreign = _foreign(device, own) if foreign_matters(device.free_bytes, need) else ""
        return DeviceSeen(
            slot=slot,
            name=device.name,
            free_bytes=device.free_bytes,
            total_bytes=device.total_bytes,
            celsius=device.celsius,
            foreign=foreign,
            hot=hot,
            held=held,
        )

    # ---------------------------------------------------------------- hold

    def _held(self, slot: int) -> str:
        try:
            return self.home.slot_hold(slot).read_text() or "held"
        except FileNotFoundError:
            return ""

    def hold(self, slot: int, why: str) -> None:
        """Let the child in this slot pause, or with an empty `why` go on. A repeat is harmless."""
        path = self.home.slot_hold(slot)
        if not why:
            path.unlink(missing_ok=True)
            return
        aside = path.with_suffix(".part")
        aside.write_text(why)
        aside.replace(path)


def _foreign(device: Device, own: Callable[[], Collection[int]]) -> str:
    """Who else holds much memory of the device, the greediest first, in words."""
    holders = [holder for holder in device.holders if holder.bytes >= FOREIGN_BYTES]
    ours = own() if holders else ()
    strangers = sorted((holder for holder in holders if holder.pid not in ours), key=lambda holder: -holder.bytes)
    return ", ".join(f"pid {holder.pid} ({holder.name or 'unknown'}) with {holder.bytes // MIB} MiB" for holder in strangers)


def _visible(cards: list[Device], wanted: str | None) -> list[Device]:
    """The cards that CUDA_VISIBLE_DEVICES of the daemon leaves it, in its order; NVML itself shows all."""
    if wanted is None:
        return cards
    found = []
    for word in filter(None, (word.strip() for word in wanted.split(","))):
        named = [card for index, card in enumerate(cards) if word == str(index) or (not word.isdigit() and card.uuid.startswith(word))]
        if not named:
            break  # CUDA too shows none behind one that it does not know
        found += named[:1]
    return found


def _need_bytes(config: Config, *, gpu: bool) -> int | None:
    if config.backend == "stub":
        return STUB_BYTES
    shape = shape_of(*described_base(config))
    return training_bytes(shape, config, gpu=gpu) if shape is not None else None
