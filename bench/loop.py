"""The loop that feeds itself, part by part.

- teachers: how many rows a second each shipped teacher makes, sends over HTTP and checks, one core for both sides
- feedback: how long POST /v1/feedback takes at 200 a second beside one chat stream of the real base
- triggers: how long the daemon takes to decide about triggers while 100,000 signals are pending
- pulls: what 100 kills of the link at random moments, and five of the server, lose and double of the signals (some minutes)
- gain: what 500 corrections give, from the door of the serving box to the verdict, over three seeds (some 10 minutes each on two cores)
"""

import time
from collections.abc import Callable
from typing import Any

from bench.parts import measured
from corpus.curriculum.client import SkillAPIClient
from corpus.curriculum.drawing import Order, draw
from corpus.curriculum.services import running
from corpus.curriculum.skills import TEACHERS

ROWS = 5000
FLOORS = {"feedback_p99_ms": 25, "trigger_ms": 50, "pull_lost": 0, "pull_doubled": 0, "teacher_rows_s": 2000}  # the last at least, the others at most


def measure(parts: str = "", rows: int = 0) -> tuple[dict[str, Any], dict[str, Any]]:
    """(figures, opponents). `parts` by comma, all without; `rows` of a part that counts rows, else its own number."""
    known: dict[str, Callable[[], dict[str, Any]]] = {
        "teachers": lambda: _teachers(rows or ROWS),
        "feedback": _feedback,
        "triggers": _triggers,
        "pulls": _pulls,
        "gain": lambda: _gain(rows),
    }
    figures = measured(known, parts)
    return figures | {"floors": {name: FLOORS[name] for name in figures if name in FLOORS}}, {}


def _teachers(rows: int) -> dict[str, Any]:
    """`teacher_rows_s` by teacher, over all its levels."""
    speeds = {}
    with running(list(TEACHERS.values()), dict.fromkeys(TEACHERS, ("127.0.0.1", 0))) as urls:
        for name, teacher in TEACHERS.items():
            client, begun, made = SkillAPIClient(url=urls[name]), time.perf_counter(), 0
            for level in teacher.levels:
                made += len(draw(client, name, Order(count=rows // len(teacher.levels), level=level.level), 0).rows)
            speeds[name] = round(made / (time.perf_counter() - begun))
    return {"teacher_rows_s": speeds}


def _triggers() -> dict[str, Any]:
    from bench.loop_triggers import trigger_ms

    return trigger_ms()


def _feedback() -> dict[str, Any]:
    from bench.loop_signals import feedback_p99_ms

    return feedback_p99_ms()


def _pulls() -> dict[str, Any]:
    from bench.loop_signals import pulls

    return pulls()


def _gain(rows: int) -> dict[str, Any]:
    from bench.corrections import ROWS as CORRECTIONS
    from bench.corrections import measure as gain

    return gain(rows or CORRECTIONS)
