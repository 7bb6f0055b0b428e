"""A file is dropped on one host and its adapter answers on the other; the cable between them is cut in the middle and comes back."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from circle import chat_rows
from roadcircle import RoadCircle, Witness
from twohosts import TwoHosts

RATE = "8mbit"
ALIAS = "default/main"


@pytest.fixture
def circle(hosts: TwoHosts, tmp_path: Path) -> Iterator[RoadCircle]:
    made = RoadCircle(tmp_path, hosts)
    yield made
    hosts.mend()
    made.end()


@pytest.mark.parametrize("before", ["the base", pytest.param("a release", marks=pytest.mark.full)])
def test_from_drop_to_live_over_a_road_that_is_cut_in_the_middle(circle: RoadCircle, before: str) -> None:
    circle.start_serving().start_daemon()
    with Witness(circle) as witness:
        old = first_release(circle) if before == "a release" else None
        settled = len(circle.jobs())
        circle.hosts.slow(RATE)
        circle.drop(chat_rows(start=1000), "more.jsonl")
        circle.wait(lambda: half_there(circle), "half of the release is there")
        circle.hosts.cut()
        circle.wait(lambda: not circle.observed()["reachable"], "the link has noticed", 20)
        status = circle.deploy_status()
        assert status["code"] in ("TARGET_SILENT", "TARGET_UNREACHABLE")
        assert status["hint"]
        assert (status["reachable"], status["adapters"][ALIAS]["live"], status["adapters"][ALIAS]["state"]) == (False, old, "asked")
        assert list(circle.jobs().values())[settled:] == ["releasing"], "the job waits"
        assert circle.went_live()[settled:] == [], "the old one serves"

        circle.hosts.mend()
        circle.hosts.hurry()
        circle.wait(lambda: list(circle.jobs().values())[settled:] == ["released"], "the job is released")
        status, new = circle.deploy_status(), circle.went_live()[settled]
        assert new is not None
        assert (status["reachable"], status["code"], status["adapters"][ALIAS]["live"]) == (True, "", new)
        circle.wait(lambda: witness.seen[-1:] == [new[:12]], "the new one answers")
    assert witness.wrong == []
    assert witness.seen == ["base", *([old[:12]] if old else []), new[:12]]
    assert witness.asked > 20


def first_release(circle: RoadCircle) -> str:
    """A release that is live before the story begins."""
    circle.drop(chat_rows())
    circle.wait_state("released")
    (release,) = circle.went_live()
    assert release is not None
    status = circle.deploy_status()
    assert (status["reachable"], status["code"], status["adapters"][ALIAS]["live"]) == (True, "", release)
    return release


def half_there(circle: RoadCircle) -> bool:
    return any(path.stat().st_size > 1 << 20 for path in circle.box.glob("in/incoming/*/adapter_model.safetensors"))
