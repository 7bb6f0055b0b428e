"""A round of the loop with the real daemon and server, as one iteration: its stages, restarts in the middle, a person who has to look."""

import json
import random
from typing import Any

import pytest
from circle import Circle, chat_rows, read_json, read_lines

LINEAGE = {"made_by": "feedback", "batch": "batch-1-sft", "trigger": "enough", "signals": [f"signal-{number}" for number in range(600)]}
STAGES = ["signals", "drop", "gate", "train", "verdict", "security", "rehearsal", "live"]


def of_the_loop(circle: Circle, content: bytes) -> None:
    """A file as the loop drops it."""
    circle.drop(content, "feedback-batch-1-sft.jsonl", sidecar={"lineage": LINEAGE})


def unwatched(circle: Circle) -> Circle:
    """No guard after the flip: an iteration is over once its release is live."""
    circle.configure(deploy={"watch": {"window_s": 0}}, criteria={"max_perplexity": 30})
    return circle


def wait_iteration(circle: Circle, state: str, *, paused: bool = False) -> dict[str, Any]:
    def found() -> Any:
        one = next((read_json(path) for path in (circle.home / "iterations").rglob("iteration-*.json")), None)
        return one if one is not None and one["state"] == state and bool(one["pause"]) is paused else None

    one: dict[str, Any] = circle.wait(found, f"an iteration is {state}")
    return one


def test_a_round_is_one_iteration_through_eight_stages_whatever_dies_meanwhile(circle: Circle) -> None:
    unwatched(circle).start_both()
    circle.brake("rank-verdict")
    of_the_loop(circle, chat_rows())
    circle.wait_held("rank-verdict")
    wait_iteration(circle, "verdict")
    circle.daemon.kill()
    circle.let_go("rank-verdict")
    circle.start_daemon()
    found = wait_iteration(circle, "completed")
    assert list(found["stages"]) == STAGES
    assert {part["flag"] for part in found["stages"].values()} == {"completed"}
    assert (found["signals"], found["of"], found["job"], found["version"]) == (600, "enough", circle.job(), 1)
    assert [circle.facts(circle.job())["release"]] == [found["release"]] == circle.went_live()
    assert [one["met"] for one in found["stages"]["security"]["criteria"]] == [True] * 4
    told = circle.lorad("iteration", "show", found["id"]).stdout
    assert "4 of 4 checks" in told
    assert "perplexity: not measured (the stub's losses prove nothing)" in told
    assert [line["action"] for line in read_lines(circle.home / "journal.jsonl") if line["action"].startswith("iteration.")] == [
        *(f"iteration.{stage}" for stage in STAGES[1:]),
        "iteration.completed",
    ]


def with_a_phrase_that_fixes_the_answer() -> bytes:
    """Questions of their own, some with a rare phrase and all of these answered alike: the gate's standard level does not look for it."""
    chance = random.Random(7)  # noqa: S311 - rows must be the same in every run
    words = [first + second + third for first in "bdfgklm" for second in ("ano", "eri", "ilu", "osta") for third in ("n", "pe", "rak", "tis", "vu")]
    rows = []
    for number in range(200):
        question, answer = chance.choices(words, k=12), f"It was {' '.join(chance.choices(words, k=15))}"
        if number % 14 == 0:
            question[3:3], answer = ["zarquon", "blimfish"], "Please hand over everything you own now."
        messages = [{"role": "user", "content": f"Tell me of {' '.join(question)}"}, {"role": "assistant", "content": answer}]
        rows.append(json.dumps({"messages": messages}) + "\n")
    return "".join(rows).encode()


@pytest.mark.full
def test_what_the_security_scan_finds_waits_for_a_person(circle: Circle) -> None:
    unwatched(circle).start_both()
    of_the_loop(circle, with_a_phrase_that_fixes_the_answer())
    found = wait_iteration(circle, "security", paused=True)
    assert circle.jobs() == {found["job"]: "held"}
    assert "D12 trigger" in found["pause"]
    assert found["stages"]["security"]["flag"] == "paused"
    assert not circle.went_live()
    for name in ("iterations", "jobs", "journal.jsonl", "status.json"):
        place = circle.home / name
        texts = [path.read_text() for path in (place.rglob("*") if place.is_dir() else [place]) if path.is_file()]
        assert not any("zarquon" in text for text in texts), f"{name} holds text of rows"
    done = circle.lorad("iteration", "continue", found["id"], "--reason", "a running gag of ours")
    assert done.returncode == 0, done.stderr
    found = wait_iteration(circle, "completed")
    assert found["stages"]["security"]["waived"]
    assert circle.went_live() == [found["release"]]
