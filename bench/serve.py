"""The way to a box and what it does there, with the real base: road, swaps, load, engine against `generate`, memory.

Each part stands alone (`--parts road,load`); what fails says so in its place and leaves the others to run.
"""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.parts import measured
from core.deployment import ServingConfig

REQUESTS = 10_000
SWAPS = 1000
RELOADS = 10  # for one in so many swaps, a release is unloaded and loaded again
FLOORS = {"confirmed_s": 15, "rsync_s": 8, "swap_s": 0.5, "dropped": 0, "mixed": 0, "queued_lost": 0, "p99_ratio": 1.5, "swap_slope_mb": 0.1}
FLOORS |= {"ratio_hf_1": 3, "ratio_hf_8": 1.4, "ratio_mixed_adapters": 0.45}  # these at least, those before at most


def measure(parts: str = "", requests: int = REQUESTS, swaps: int = SWAPS) -> tuple[dict[str, Any], dict[str, Any]]:
    """(figures, opponents). `parts` by comma, all without; `requests` under load; `swaps` for the memory slope."""
    known: dict[str, Callable[[], dict[str, Any]]] = {
        "road": _road,
        "swap": _swap,
        "load": lambda: _load(requests),
        "queue": _queue,
        "engines": _engines,
        "slope": lambda: _slope(swaps),
    }
    figures = measured(known, parts)
    opponents = {"transformers": "generate with PEFT, the same base and adapter: under ratio_hf_1 and ratio_hf_8"} if "ratio_hf_1" in figures else {}
    return figures | {"floors": {name: FLOORS[name] for name in figures if name in FLOORS}}, opponents


def _road() -> dict[str, Any]:
    from bench.serve_road import over_ssh

    return over_ssh()


def _load(requests: int) -> dict[str, Any]:
    from bench.serve_load import under_load

    return under_load(requests)


def _queue() -> dict[str, Any]:
    from bench.serve_load import waiting_users

    return waiting_users()


def _engines() -> dict[str, Any]:
    from bench.serve_engines import engine_ratios

    return engine_ratios()


def _swap() -> dict[str, Any]:
    from bench.serve_swaps import swap_s

    with tempfile.TemporaryDirectory() as name:
        bench = _box(Path(name))
        first = bench.swap()
        figures = {key: round(value, 4) for key, value in swap_s(bench).items()}
        bench.engine.close()
    return figures | {"first_load_s": round(first, 2), "engine": type(bench.engine).__name__}


def _slope(swaps: int) -> dict[str, Any]:
    from bench.serve_markers import pair
    from bench.serve_swaps import reload_slope_mb, swap_slope_mb

    reloads = max(4, swaps // RELOADS)
    with tempfile.TemporaryDirectory() as name:
        bench = _box(Path(name))
        slope = swap_slope_mb(bench, swaps)
        each = pair().releases[1]
        reload_slope = reload_slope_mb(bench.engine, bench.releases[1], each.folder, reloads)
        bench.engine.close()
    return {"swap_slope_mb": round(slope, 4), "slope_swaps": swaps, "reload_slope_mb": round(reload_slope, 3), "reloads": reloads}


def _box(root: Path) -> Any:
    """The agent in this process, with the engine that a box would choose here and both marked releases."""
    from bench.serve_markers import pair
    from bench.serve_swaps import Bench
    from core.config import Config
    from serving.engines.registry import make_engine
    from store.seals import SEAL
    from store.wire import MANIFEST, SIGNATURE

    made = pair()

    def fill(folder: Path, version: int) -> None:
        shutil.copytree(made.releases[version - 1].folder, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(SEAL, MANIFEST, SIGNATURE))

    serving = ServingConfig(home=str(root / "serving"))
    return Bench(root, make_engine(Config(home=str(root / "home"), serving=serving)), fill)
