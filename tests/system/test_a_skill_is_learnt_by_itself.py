"""A skill is learnt with nobody's hand: the base is measured, rows are drawn and trained, what is live is evaluated, the level moves."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from circle import Circle, read_json, read_lines

from corpus.curriculum.services import running
from corpus.curriculum.skills import TEACHERS

AUTO = {"enabled": True, "count": 220, "cooldown_s": 1, "share": 0.8, "evaluate_rows": 40}
HELD_FROM = 113  # of the 129 seeds of binary's first level
LONG_S = 150.0


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running([TEACHERS["binary"]], {"binary": ("127.0.0.1", 0)}) as urls:
        yield urls["binary"]


def configure(circle: Circle, url: str, **auto: Any) -> None:
    skill = {"url": url, "up_share": 0.7, "up_evaluations": 1, "down_share": 0.1}
    circle.configure(skills={"binary": skill}, auto_generate=AUTO | auto, training={"epochs": 4})


def curriculum(circle: Circle, *words: str) -> Any:
    done = circle.lorad("curriculum", *words, "--format", "json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def lines(circle: Circle) -> list[dict[str, Any]]:
    path = circle.home / "curriculum" / "history" / "binary.jsonl"
    return read_lines(path) if path.exists() else []


def exams(circle: Circle) -> list[Any]:
    return list((circle.home / "tmp").glob("exam-*"))


def test_the_base_is_evaluated_and_rows_of_its_level_become_a_job(circle: Circle, url: str) -> None:
    configure(circle, url, count=40, cooldown_s=3600)
    circle.start_daemon()
    job = circle.wait(lambda: next(iter(circle.job_folders()), None), "rows of the teacher became a job")
    base, *others = lines(circle)
    assert (base["level"], base["release"], base["rows"], base["made_up"], others) == (1, "", 40, True, [])
    assert base["first_seed"] >= HELD_FROM, "on seeds that nobody trains on"
    (sidecar,) = (circle.home / "drops" / "accepted").glob("*/*.job.json")
    lineage = read_json(sidecar)["lineage"]
    assert (lineage["made_by"], lineage["generator"], lineage["draws"]) == (
        "curriculum",
        "lorad-binary",
        [{"level": 1, "first_seed": 0, "last_seed": 0, "rows": 40}],
    )
    assert "skills/binary" in circle.lorad("jobs", "show", job).stdout
    assert "binary goes on at level 5" in circle.lorad("curriculum", "set", "binary", "--level", "5").stdout
    assert circle.lorad("curriculum", "set", "binary", "--level", "8").returncode == 3, "the teacher has seven"
    circle.daemon.stop()
    (status,) = curriculum(circle, "status", "binary")["skills"]
    assert (status["level"], status["levels"], status["drawn"]["file"]) == (5, [1, 2, 3, 4, 5, 6, 7], "binary-level-1-seed-0.jsonl")


@pytest.mark.full
def test_from_the_base_s_own_score_to_the_next_level(circle: Circle, url: str) -> None:
    """The stub answers half of its rows right, and more of them after more steps. The daemon is killed in the middle of an evaluation."""
    configure(circle, url)
    circle.serving, circle.daemon = circle.start("serve"), circle.start("daemon")
    circle.wait(lambda: exams(circle), "an evaluation is under way")
    circle.daemon.kill()
    circle.start_daemon()
    circle.wait(lambda: any(entry.get("after") == 2 for entry in lines(circle)), "the level moved up", timeout_s=LONG_S)
    circle.daemon.stop()
    history = curriculum(circle, "history", "binary")
    evaluations = [entry for entry in history if entry["kind"] == "evaluation"]
    assert (evaluations[0]["level"], evaluations[0]["release"], evaluations[0]["rows"]) == (1, "", 40), "the base itself comes first"
    assert all(entry["first_seed"] >= HELD_FROM for entry in evaluations if entry["level"] == 1)
    assert len({entry["id"] for entry in evaluations}) == len(evaluations), "the one that was killed was counted for nothing"
    up = next(place for place, entry in enumerate(history) if entry.get("after") == 2)
    assert history[up - 1]["version"] >= 1
    assert history[up - 1]["accuracy"] >= 0.7, "a release of its own rows has moved it"
    assert "released" in circle.jobs().values()
