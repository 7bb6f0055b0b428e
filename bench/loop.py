"""The loop that feeds itself, part by part.

- teachers: how many rows a second each shipped teacher makes, sends over HTTP and checks, one core for both sides
- feedback: how long POST /v1/feedback takes at 200 a second beside one chat stream of the real base
- triggers: how long the daemon takes to decide about triggers while 100,000 signals are pending
- pulls: what 100 kills of the link at random moments, and five of the server, lose and double of the signals (some minutes)
- gain: what 500 corrections give, from the door of the serving box to the verdict, over three seeds (some 10 minutes each on two cores)
"""

import json
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

from corpus.curriculum.client import SkillAPIClient
from corpus.curriculum.drawing import Order, draw
from corpus.curriculum.services import running
from corpus.curriculum.skills import TEACHERS

ROWS = 5000


def measure(parts: str = "", rows: int = 0) -> tuple[dict[str, Any], dict[str, Any]]:
    """(figures, opponents). `parts` by comma, all without; `rows` of a part that counts rows, else its own number."""
    known: dict[str, Callable[[], dict[str, Any]]] = {
        "teachers": lambda: _teachers(rows or ROWS),
        "feedback": _feedback,
        "triggers": _triggers,
        "pulls": _pulls,
        "gain": lambda: _gain(rows),
    }
    chosen = [part.strip() for part in parts.split(",") if part.strip()] or list(known)
    if unknown := set(chosen) - known.keys():
        raise SystemExit(f"no part {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    figures: dict[str, Any] = {}
    for part in chosen:
        began = time.monotonic()
        try:
            found = known[part]()
        except Exception as error:  # the border of a part: the others are measured all the same
            traceback.print_exc()
            found = {f"{part}_failed": f"{type(error).__name__}: {error}"[:300]}
        figures |= found
        print(f"{part}: {time.monotonic() - began:.0f} s: {json.dumps(found)}", file=sys.stderr, flush=True)
    return figures, {}


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
