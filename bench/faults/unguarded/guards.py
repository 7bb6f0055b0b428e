"""What a process does without: a guard's name -> the modules that hold it, each with what takes it away there.

Each replaces one named function by one that behaves as a program without that guard would.
"""

import itertools
import os
from collections.abc import Callable
from types import ModuleType
from typing import Any

from injected import INJECTED, put

Taker = Callable[[ModuleType], None]


def with_(**names: Any) -> Taker:
    """Replace names of the module."""

    def take(module: ModuleType) -> None:
        for name, value in names.items():
            assert hasattr(module, name), f"{module.__name__} has no {name}: the guard has moved"
            setattr(module, name, value)

    return take


def _open_lock(path: Any, holder: str, what: str, *, hint: str) -> int:
    """A lock file that nobody locks."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)


def _no_home_lock(module: ModuleType) -> None:
    def acquire(self: Any) -> None:
        self._fds = [os.open(self._home.root, os.O_RDONLY), _open_lock(self._home.lock, "", "", hint="")]

    module.PIDManager.acquire = acquire  # type: ignore[attr-defined]


def _pid_file(module: ModuleType) -> None:
    """What programs do that trust the number in the file."""
    acquire = module.PIDManager.acquire  # type: ignore[attr-defined]

    def trusting(self: Any) -> None:
        import json

        try:
            os.kill(json.loads(self._home.lock.read_text())["pid"], 0)
        except (OSError, ValueError, KeyError):
            acquire(self)
        else:
            raise module.LockHeldError("the pid file names a living process", hint="", code="DAEMON_RUNS")  # type: ignore[attr-defined]

    module.PIDManager.acquire = trusting  # type: ignore[attr-defined]


def _no_tether(module: ModuleType) -> None:
    """Children do not die with the daemon."""
    tether = module.tether  # type: ignore[attr-defined]

    def loose() -> Any:
        import dataclasses

        return dataclasses.replace(tether(), begin=os.setsid)

    module.tether = loose  # type: ignore[attr-defined]


def _unique_identity(module: ModuleType) -> None:
    count = itertools.count()
    real = module.drop_identity  # type: ignore[attr-defined]
    module.drop_identity = lambda *args: f"{next(count):08x}{real(*args)[8:]}"  # type: ignore[attr-defined]


def _no_floor(module: ModuleType) -> None:
    """The disk is never low."""
    look = module.Disk.look  # type: ignore[attr-defined]

    def blind(self: Any) -> Any:
        import dataclasses

        return dataclasses.replace(look(self), low="", short="")

    module.Disk.look = blind  # type: ignore[attr-defined]


def _no_shield(module: ModuleType) -> None:
    """Everything may go."""
    module.Shield.holds = lambda self, item: ""  # type: ignore[attr-defined]


def _hoarding(module: ModuleType) -> None:
    """A box that frees nothing of what it has loaded."""
    load, kept = module.StubEngine.load, []  # type: ignore[attr-defined]

    def hoard(self: Any, release: str, folder: Any) -> None:
        load(self, release, folder)
        kept.append((bytearray(os.urandom(1 << 20)), open(folder / "adapter_config.json")))  # noqa: SIM115 - never closed, that is the fault

    module.StubEngine.load = hoard  # type: ignore[attr-defined]


def _believing(module: ModuleType) -> None:
    """A box that looks at no byte of a release."""
    from store.wire import read_manifest, release_id

    module.check_release = lambda folder, keys: (release_id(folder), read_manifest(folder))  # type: ignore[attr-defined]


def _eager_triggers(module: ModuleType) -> None:
    """Triggers that fire whenever their conditions hold."""
    module.CALM_S = 0.0  # type: ignore[attr-defined]
    module._brakes = lambda config, seen, past: iter(())  # type: ignore[attr-defined]


def _newest_for_all(module: ModuleType) -> None:
    """One adapter is set on the model at a time: the one of the answer that began last, for those too that are under way."""
    admit = module.Batch._admit  # type: ignore[attr-defined]

    def admit_and_set(self: Any, answer: Any) -> None:
        import dataclasses

        for row in self._rows:
            row.answer.wish = dataclasses.replace(row.answer.wish, blend=answer.wish.blend)
        admit(self, answer)

    module.Batch._admit = admit_and_set  # type: ignore[attr-defined]


def _load_ends_answers(module: ModuleType) -> None:
    """Another adapter means another server object, and the answers of the one before end with it."""
    load = module.LlamaCppEngine.load  # type: ignore[attr-defined]

    def restart(self: Any, release: str, folder: Any) -> None:
        load(self, release, folder)
        for answer in tuple(self._running):
            answer.cancel()

    module.LlamaCppEngine.load = restart  # type: ignore[attr-defined]


GUARDS: dict[str, dict[str, Taker]] = {
    "whole_files": {"core.intake": with_(is_whole=lambda entry, facts: True)},
    "identity": {"core.intake": _unique_identity},
    "home_lock": {"daemon.pids": _no_home_lock},
    "restore": {"serving.activation": put("Agent._restore", lambda old: lambda self, alias: None)},
    "link_lock": {"deploy.link": with_(take_lock=_open_lock)},
    "process_identity": {"daemon.pids": _pid_file},
    "tether": {"daemon.machine": _no_tether},
    "orphans": {
        "daemon.pids": with_(end_orphans=lambda home: None),
        "daemon.children": with_(is_locked=lambda path: False, take_lock=_open_lock),
    },
    "broken_disk": {
        "daemon.disk": with_(raise_if_broken=lambda error: None),
    },
    **INJECTED,
    "disk_floor": {"daemon.disk": _no_floor},
    "whole_resumes": {
        "store.wholeness": with_(is_whole=lambda folder: (folder / "SEALED").is_file()),
        "trainer.checkpoints": with_(check_seal=lambda folder: ""),
    },
    "resume_point": {"daemon.observe": with_(resume_point=lambda home, job: None)},
    "brakes_of_triggers": {"core.triggers": _eager_triggers},
    "shield": {"core.retention": _no_shield},
    "pinned_answers": {"serving.engines.batch": _newest_for_all, "serving.engines.llamacpp": _load_ends_answers},
    "freed": {"serving.engines.stub": _hoarding},
    "release_bytes": {"serving.library": _believing},
}
