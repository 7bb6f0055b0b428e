"""What the training box last said of itself: `in/training-status.json`, which its link brings while its daemon lives.

The age counts from when the file came, by this box's clock: the other box's clock may be wrong. The daemon writes its
status every second and the link sends it every ten at most, so that an old file means that one of them is silent.
"""

import json
from datetime import UTC, datetime
from typing import Any

from fastapi import FastAPI

from store.paths import Box

NAME = "training-status.json"
STALE_S = 90.0  # a link that nothing changes for looks every few seconds, one that lost the box after a minute at most

Json = dict[str, Any]


def training_status(box: Box, now: datetime) -> Json:
    """{known, status, at (by its clock), received_at, age_s, unknown_since, reason}; never raises for what lies there."""
    told: Json = {"known": False, "status": None, "at": None, "received_at": None, "age_s": None, "unknown_since": None, "reason": ""}
    path = box.desired.with_name(NAME)
    try:
        received = path.stat().st_ctime
        status = json.loads(path.read_bytes())
    except FileNotFoundError:
        return told | {"reason": "no training box has sent its status to this box"}
    except (OSError, ValueError):
        return told | {"reason": "the status that came cannot be read"}
    if not isinstance(status, dict):
        return told | {"reason": "the status that came cannot be read"}
    at = datetime.fromtimestamp(received, UTC)
    age_s = max(0.0, round((now - at).total_seconds(), 1))
    told |= {"known": True, "status": status, "at": status.get("at"), "received_at": at.isoformat(), "age_s": age_s}
    if age_s <= STALE_S:
        return told
    return told | {"known": False, "unknown_since": at.isoformat(), "reason": f"nothing has come from the training box for {age_s:.0f} s; `status` is the last"}


def add_training_status(app: FastAPI, box: Box) -> None:
    """The route."""

    @app.get("/api/training/status")
    def status() -> Json:
        """What the training box is doing, with the age of that; `unknown_since` where it is silent."""
        return training_status(box, datetime.now(UTC))
