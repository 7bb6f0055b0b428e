"""Devices under slots, with one suite over the real sensors and the fake."""

import json
import os
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.config import Config
from daemon.devices import Devices, FakeSensors, MachineSensors, Sensors, sensors_here
from store.paths import Home

CONFIG = Config(backend="stub", allow_stub=True)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.prepare()
    return home


def gpu(**what: Any) -> dict[str, Any]:
    return {"uuid": "GPU-a", "name": "RTX 4090", "free_mb": 20000, "total_mb": 24564, "celsius": 61} | what


@pytest.fixture
def fake(tmp_path: Path) -> Callable[..., FakeSensors]:
    def make(*gpus: dict[str, Any], **cpu: Any) -> FakeSensors:
        path = tmp_path / "sensors.json"
        path.write_text(json.dumps({"gpus": list(gpus), "cpu": cpu}))
        return FakeSensors(path)

    return make


class NVMLError(Exception):
    pass


def stub_nvml() -> types.ModuleType:
    """A module with the calls that lorad makes; one card, whose temperature cannot be read the second time."""
    made: Any = types.ModuleType("pynvml")
    made.NVMLError, made.NVML_TEMPERATURE_GPU = NVMLError, 0
    made.nvmlInit = lambda: None
    made.nvmlDeviceGetCount = lambda: 1
    made.nvmlDeviceGetHandleByIndex = lambda index: index
    made.nvmlDeviceGetName = lambda card: b"RTX 4090"
    made.nvmlDeviceGetUUID = lambda card: "GPU-a"
    made.nvmlDeviceGetMemoryInfo = lambda card: types.SimpleNamespace(free=20 << 30, total=24 << 30)
    made.nvmlDeviceGetTemperature = lambda card, kind: 61
    made.nvmlDeviceGetComputeRunningProcesses = lambda card: [types.SimpleNamespace(pid=os.getpid(), usedGpuMemory=1 << 30)]
    return made  # type: ignore[no-any-return]


@pytest.fixture(params=["machine", "nvml stub", "fake"])
def sensors(request: pytest.FixtureRequest, fake: Callable[..., FakeSensors], monkeypatch: pytest.MonkeyPatch) -> Sensors:
    if request.param == "fake":
        return fake(gpu(holders=[{"pid": os.getpid(), "name": "python", "mb": 1024}]), celsius=50)
    if request.param == "nvml stub":
        monkeypatch.setitem(sys.modules, "pynvml", stub_nvml())
    return MachineSensors()


def test_sensors_tell_plain_numbers_and_read_the_same_twice(sensors: Sensors) -> None:
    for card in (*sensors.gpus(), *sensors.gpus()):
        assert card.uuid
        assert card.name.startswith("cuda:0 ")
        assert card.total_bytes is None or 0 <= (card.free_bytes or 0) <= card.total_bytes
        assert card.celsius is None or 0 < card.celsius < 150
        assert all(holder.bytes >= 0 for holder in card.holders)
    cpu = sensors.cpu()
    assert (cpu.name, cpu.uuid) == ("cpu", "")
    assert 0 < (cpu.free_bytes or 0) <= (cpu.total_bytes or 0)


def test_a_reading_that_a_card_does_not_offer_is_missing_and_a_lost_driver_gives_no_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise NVMLError("not supported")

    nvml: Any = stub_nvml()
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    real = MachineSensors()
    nvml.nvmlDeviceGetTemperature = nvml.nvmlDeviceGetComputeRunningProcesses = refuse
    (card,) = real.gpus()
    assert (card.celsius, card.holders) == (None, ())
    nvml.nvmlDeviceGetCount = refuse
    assert real.gpus() == []
    nvml.nvmlInit = refuse
    assert MachineSensors().gpus() == []


def test_slots_go_round_the_cards_and_a_child_sees_its_card_alone(home: Home, fake: Callable[..., FakeSensors]) -> None:
    devices = Devices(home, 3, fake(gpu(), gpu(uuid="GPU-b")))
    assert [seen.name for seen in devices.look(CONFIG, set)] == ["cuda:0 RTX 4090", "cuda:1 RTX 4090", "cuda:0 RTX 4090"]
    assert [devices.environment(slot) for slot in range(3)] == [{"CUDA_VISIBLE_DEVICES": uuid} for uuid in ("GPU-a", "GPU-b", "GPU-a")]


def test_without_a_card_every_slot_is_the_cpu_with_its_share_of_the_threads(
    home: Home, fake: Callable[..., FakeSensors], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    devices = Devices(home, 3, fake(free_mb=2048, total_mb=4096))
    (seen, *_) = devices.look(CONFIG, set)
    assert (seen.name, seen.free_bytes, seen.total_bytes) == ("cpu", 2 << 30, 4 << 30)
    assert devices.environment(0) == {}
    assert (devices.threads(0, 0), devices.threads(0, 5), Devices(home, 1, fake()).threads(0, 0)) == (2, 5, 0)


@pytest.mark.parametrize(("wanted", "uuids"), [("1", ["GPU-b"]), ("GPU-b,GPU-a", ["GPU-b", "GPU-a"]), ("0,7,1", ["GPU-a"]), ("", [])])
def test_cards_that_are_hidden_from_the_daemon_are_no_slots(
    home: Home, fake: Callable[..., FakeSensors], monkeypatch: pytest.MonkeyPatch, wanted: str, uuids: list[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", wanted)
    devices = Devices(home, max(1, len(uuids)), fake(gpu(), gpu(uuid="GPU-b")))
    assert [devices.of(slot).uuid for slot in range(devices.slots)] == (uuids or [""])


def test_a_stranger_that_leaves_too_little_memory_is_named_and_our_own_children_never(home: Home, fake: Callable[..., FakeSensors]) -> None:
    holders = [{"pid": 4711, "name": "python", "mb": 23000}, {"pid": 4712, "name": "desktop", "mb": 100}, {"pid": 4713, "name": "trainer", "mb": 1000}]
    (seen,) = Devices(home, 1, fake(gpu(free_mb=10, holders=holders))).look(CONFIG, lambda: {4713})
    assert seen.foreign == "pid 4711 (python) with 23000 MiB"
    (seen,) = Devices(home, 1, fake(gpu(free_mb=5000, holders=holders))).look(CONFIG, set)
    assert seen.foreign == "", "what is left is enough"


def test_a_hold_is_told_by_its_file_and_outlives_the_daemon(home: Home, fake: Callable[..., FakeSensors]) -> None:
    warm = fake(gpu(celsius=92))
    devices = Devices(home, 1, warm)
    (seen,) = devices.look(CONFIG, set)
    assert seen.hot == "cuda:0 RTX 4090 has 92 °C: paused above 88, goes on below 78"
    assert seen.held == ""
    devices.hold(0, seen.hot)
    assert home.slot_hold(0).read_text() == seen.hot
    (seen,) = Devices(home, 1, fake(gpu(celsius=80))).look(CONFIG, set)
    assert seen.hot, "between the marks it pauses on, for the next daemon too"
    devices = Devices(home, 1, fake(gpu(celsius=70)))
    (seen,) = devices.look(CONFIG, set)
    assert (seen.hot, bool(seen.held)) == ("", True)
    devices.hold(0, "")
    devices.hold(0, "")
    assert not home.slot_hold(0).exists()


def test_a_hot_processor_pauses_every_slot(home: Home, fake: Callable[..., FakeSensors]) -> None:
    config = Config.model_validate({"backend": "stub", "allow_stub": True, "thermal": {"cpu_c": 90.0, "cpu_resume_c": 80.0}})
    seen = Devices(home, 2, fake(gpu(), celsius=95)).look(config, set)
    assert [one.hot for one in seen] == ["the CPU has 95 °C: paused above 90, goes on below 80"] * 2


def test_the_fake_is_chosen_by_the_environment_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(sensors_here(), MachineSensors)
    monkeypatch.setenv("LORAD_SENSORS", str(tmp_path / "none.json"))
    found = sensors_here()
    assert isinstance(found, FakeSensors)
    assert found.gpus() == []


def test_a_training_of_several_processes_sees_as_many_cards(home: Home, fake: Callable[..., FakeSensors]) -> None:
    devices = Devices(home, 1, fake(gpu(), gpu(uuid="GPU-b"), gpu(uuid="GPU-c")))
    devices.look(Config.model_validate({"distributed": {"processes": 2}}), set)
    assert devices.environment(0) == {"CUDA_VISIBLE_DEVICES": "GPU-a,GPU-b"}
    devices.look(CONFIG, set)
    assert devices.environment(0) == {"CUDA_VISIBLE_DEVICES": "GPU-a"}
