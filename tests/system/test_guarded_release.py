"""A drop on its way through rehearsal and watch, by a real daemon, link and server; and a rehearsal that a person asks for."""

import json
from typing import Any

import pytest
from circle import Circle, chat_rows


def active(circle: Circle) -> Any:
    return json.loads((circle.box / "out" / "active.json").read_text())


@pytest.mark.full
def test_a_release_is_rehearsed_on_the_box_then_goes_live_and_passes_its_watch(circle: Circle) -> None:
    rehearsal = {"enabled": True, "requests": 8, "clients": 2}
    circle.configure(deploy={"rehearsal": rehearsal, "watch": {"window_s": 1, "every_s": 0.5, "min_requests": 1}})
    circle.start_both()
    circle.drop(chat_rows(), "tone.jsonl")
    job = circle.wait_state("released")
    (line,) = circle.ledger()
    release = line["release"]
    told = active(circle)["trials"][release]
    assert (told["id"], told["passed"], told["requests"], told["errors"]) == (job, True, 8, 0)
    circle.wait(lambda: "job.released" in circle.told(), "the release is told")
    actions = circle.told()
    assert actions.index("release.packed") < actions.index("rehearsal") < actions.index("wish") < actions.index("job.released")
    circle.wait(lambda: active(circle)["watches"]["default/main"]["phase"] == "passed", "the watch is over")
    asked = circle.lorad("deploy", "rehearse", "default/main@v1", "--format", "json")
    assert asked.returncode == 0, asked.stderr
    (result,) = json.loads(asked.stdout)["results"].values()
    assert (result["release"], result["passed"], result["requests"]) == (release, True, 8)
    assert circle.ledger() == [line], "nothing was flipped by it"
