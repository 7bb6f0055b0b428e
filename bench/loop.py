"""The loop that feeds itself: how many rows a second each shipped teacher makes, sends over HTTP and checks, one core for both sides."""

import time
from typing import Any

from corpus.curriculum.client import SkillAPIClient
from corpus.curriculum.drawing import Order, draw
from corpus.curriculum.services import running
from corpus.curriculum.skills import TEACHERS

ROWS = 5000


def measure(rows: int = ROWS) -> tuple[dict[str, Any], dict[str, Any]]:
    """(figures, opponents): `teacher_rows_s` by teacher, over all its levels."""
    speeds = {}
    with running(list(TEACHERS.values()), dict.fromkeys(TEACHERS, ("127.0.0.1", 0))) as urls:
        for name, teacher in TEACHERS.items():
            client, begun, made = SkillAPIClient(url=urls[name]), time.perf_counter(), 0
            for level in teacher.levels:
                made += len(draw(client, name, Order(count=rows // len(teacher.levels), level=level.level), 0).rows)
            speeds[name] = round(made / (time.perf_counter() - begun))
    return {"teacher_rows_s": speeds}, {}
