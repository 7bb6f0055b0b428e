"""How long the daemon takes to decide about triggers while 100,000 signals are pending, and to fire one."""

import math
import statistics
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

SIGNALS = 100_000
ADAPTERS = 50  # the first has half of them
TURNS = 200
TOGETHER = 5000  # signals stored in one go
TRIGGERS = {
    "enough": {"any": [{"rows": 500}, {"after_s": 604800}], "min_rows": 20},
    "nightly": {"all": [{"cron": "0 3 * * *"}, {"rows": 100}]},
    "worse": {"any": [{"metric": "user_satisfaction"}], "all": [{"rows": 50}]},
}
FLOORS = {"trigger_ms": 50}  # at most


def trigger_ms(signals: int = SIGNALS) -> dict[str, Any]:
    """`trigger_ms`: of a hundred turns over all triggers and adapters, each to be looked at closely, the slowest; `trigger_fire_ms`: one that fires."""
    from core.config import Config
    from core.facts import Facts
    from daemon import triggers as daemon_triggers
    from store.feedback import Shelf
    from store.paths import Home

    daemon_triggers.LOOK_EVERY_S = 0.0  # one look after another
    config = Config.model_validate({"triggers": TRIGGERS, "schedule": {"windows": ["22:00-06:30"]}, "feedback": {"source_cap": 0, "user_cap": 0}})
    with tempfile.TemporaryDirectory() as name:
        home = Home(Path(name))
        home.prepare()
        shelf = Shelf(home)
        for some in _signals(signals):
            shelf.add(some, datetime.now(UTC), config.feedback)
        buffer = SimpleNamespace(counts=shelf.counts, is_making=lambda adapter: False, begin_batch=lambda adapter, trigger, key, now: f"batch-{key}")
        triggers = daemon_triggers.Triggers(SimpleNamespace(home=home, config=config), buffer, lambda adapter: False, lambda *words, **fields: None)  # type: ignore[arg-type]
        closed = Facts(instance="bench", config=config, backend="stub", base_sha256="base", closed="outside the training windows")
        looks = [_turn_ms(triggers, closed) for _ in range(TURNS)]
        fires = _turn_ms(triggers, Facts(instance="bench", config=config, backend="stub", base_sha256="base"))
    return {
        "trigger_ms": round(sorted(looks)[math.ceil(TURNS * 0.99) - 1], 1),
        "trigger_ms_p50": round(statistics.median(looks), 2),
        "trigger_fire_ms": round(fires, 1),
        "trigger_signals": signals,
        "trigger_adapters": ADAPTERS,
    }


def _turn_ms(triggers: Any, facts: Any) -> float:
    began = time.perf_counter()
    triggers.turn(facts)
    return (time.perf_counter() - began) * 1000


def _signals(count: int) -> Iterator[list[Any]]:
    from core.signals import Signal, SignalKind

    at, made = datetime.now(UTC) - timedelta(hours=1), []
    for number in range(count):
        domain = "a0" if number % 2 else f"a{1 + number // 2 % (ADAPTERS - 1)}"
        asked = ({"role": "user", "content": f"What is number {number}?"},)
        known: dict[str, Any] = {"persona": "support", "domain": domain, "source": "api", "user": f"user{number % 100}", "consent": True, "at": at}
        made.append(Signal(id=f"{number:032x}", kind=SignalKind.CORRECTION, input=asked, wrong_output="?", correct_output=f"It is {number}.", **known))
        if len(made) == TOGETHER or number == count - 1:
            yield made
            made = []
