"""Takes guards away from a process that the fault harness has started; Python imports this module at its start.

LORAD_BENCH_WITHOUT names functions of `guards`, by comma. Each is called with its module right after that module was
imported, before anybody has taken a name from it. The sitecustomize that comes next on the path has its turn as well.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
from types import ModuleType
from typing import Any


class Unguarded(importlib.abc.MetaPathFinder):
    """Finds a module as Python does, and lets the guard be taken away once it is loaded."""

    def __init__(self, takers: dict[str, list[Any]]) -> None:
        self._takers = takers

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> importlib.machinery.ModuleSpec | None:
        if name not in self._takers:
            return None
        takers = self._takers.pop(name)
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.loader is not None
        load = spec.loader.exec_module

        def load_and_take(module: ModuleType) -> None:
            load(module)
            for taker in takers:
                taker(module)

        spec.loader.exec_module = load_and_take  # type: ignore[method-assign]
        return spec


def take_away(names: list[str]) -> None:
    import guards

    takers: dict[str, list[Any]] = {}
    for name in names:
        for module, taker in guards.GUARDS[name].items():
            takers.setdefault(module, []).append(taker)
    sys.meta_path.insert(0, Unguarded(takers))


def go_on() -> None:
    """Run the next sitecustomize of the path."""
    own = os.path.dirname(os.path.abspath(__file__))
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", [place for place in sys.path if os.path.abspath(place) != own])
    if spec is not None and spec.loader is not None:
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)


if gone := [name for name in os.environ.get("LORAD_BENCH_WITHOUT", "").split(",") if name]:
    take_away(gone)
go_on()
