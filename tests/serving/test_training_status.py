"""What a serving box says of the training box, and of itself: /api/training/status, /health, /ready."""

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from inference_box import World
from talking_box import TalkingBox, talking

from serving.trainingstatus import NAME, STALE_S, training_status


@pytest.fixture
def box(world: World) -> Iterator[TalkingBox]:
    with talking(world) as made:
        yield made


def send_status(world: World, text: str) -> datetime:
    """As the link brings it; returns when it came."""
    path = world.box.desired.with_name(NAME)
    path.write_text(text)
    os.utime(path, (0, 0))  # a road that keeps the times of the other box's clock
    return datetime.fromtimestamp(path.stat().st_ctime, UTC)


def test_the_status_comes_with_its_age(world: World) -> None:
    came = send_status(world, json.dumps({"at": "2031-01-01T00:00:00+00:00", "current": None}))
    told = training_status(world.box, came + timedelta(seconds=4))
    assert (told["known"], told["age_s"], told["unknown_since"]) == (True, 4.0, None)
    assert (told["at"], told["status"]["current"]) == ("2031-01-01T00:00:00+00:00", None)


def test_a_silent_training_box_is_unknown_since_it_was_last_heard(world: World) -> None:
    came = send_status(world, json.dumps({"at": "x"}))
    told = training_status(world.box, came + timedelta(seconds=STALE_S + 1))
    assert (told["known"], told["unknown_since"]) == (False, came.isoformat())
    assert told["status"] == {"at": "x"}, "the last that is known"


@pytest.mark.parametrize("text", ["", "{", "[1]", '"at"', "\x00"])
def test_half_a_file_is_no_status_and_no_error(world: World, text: str) -> None:
    came = send_status(world, text)
    told = training_status(world.box, came)
    assert (told["known"], told["status"]) == (False, None)
    assert told["reason"]


def test_a_box_that_nobody_has_told_anything_says_so(box: TalkingBox) -> None:
    told = box.client.get("/api/training/status")
    assert told.status_code == 200
    assert (told.json()["known"], told.json()["unknown_since"]) == (False, None)


def test_ready_only_when_what_is_live_is_on_the_engine(box: TalkingBox) -> None:
    release = box.release()
    box.service.agent = box.agent
    assert box.client.get("/ready").json()["releases"] == {"default/main": release}
    del box.agent._manifests[release]
    response = box.client.get("/ready")
    assert (response.status_code, response.json()["error"]["code"]) == (503, "release_not_loaded")
    assert "default/main" in response.json()["error"]["message"]
    assert box.client.get("/health").json() == {"status": "ok"}, "the process is alive"
    box.service.is_ready = False
    assert box.client.get("/ready").json()["error"]["code"] == "model_loading"
