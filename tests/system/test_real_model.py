"""The whole circle with the real base model: a short training makes it better, and what only looks like data is not promoted."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from circle import Circle, read_lines

from store.paths import default_models_dir

pytestmark = pytest.mark.model

DICTIONARY = Path(__file__).parents[2] / "examples" / "devils_dictionary.jsonl"
ROWS, MORE_ROWS = 230, 200  # each with the 30 gate groups that a verdict wants
CONFIG = {"backend": "peft", "allow_stub": False, "learning_rate": 4e-4, "batch_size": 8, "training": {"max_steps": 10, "checkpoints": 1}}
QUESTION = [{"role": "system", "content": "You are a cynic's dictionary."}, {"role": "user", "content": "Define: sunset (n.)"}]


def entries(first: int, count: int) -> list[dict[str, Any]]:
    """Entries of the dictionary, each a chat row, the short ones first."""
    with DICTIONARY.open() as file:
        return [json.loads(line) for line in sorted(file, key=len)][first : first + count]


def with_answers_of_others(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same questions, each with the answer of the row a third further on."""
    shift = len(rows) // 3
    answers = [row["messages"][-1] for row in rows]
    return [{"messages": [*row["messages"][:-1], answer]} for row, answer in zip(rows, answers[shift:] + answers[:shift], strict=True)]


def as_lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def answer(circle: Circle, model: str) -> tuple[str, str]:
    """(release, text) of a greedy answer."""
    response = circle.ask(model=model, messages=QUESTION, temperature=0, max_tokens=24)
    assert response.status_code == 200, response.text
    return response.headers["x-lorad-release"], response.json()["choices"][0]["message"]["content"]


def start_of(circle: Circle, model: str) -> tuple[str, str, float]:
    """The release, its first token, and how likely it is (nats).

    Not the whole answer: llama.cpp rounds otherwise where the prompt came out of its cache (0.05 nats were seen), so that near ties further on may turn.
    """
    response = circle.ask(model=model, messages=QUESTION, temperature=0, max_tokens=1, logprobs=True)
    assert response.status_code == 200, response.text
    (first,) = response.json()["choices"][0]["logprobs"]["content"]
    return response.headers["x-lorad-release"], first["token"], first["logprob"]


def are_alike(one: tuple[str, str, float], other: tuple[str, str, float]) -> bool:
    return one[:2] == other[:2] and abs(one[2] - other[2]) < 0.2


def verdict_of(circle: Circle, job: str) -> dict[str, Any]:
    """The verdict.json that counts."""
    facts = circle.facts(job)
    run = facts["verdict"] if "verdict" in facts else facts["ranking"]["verdict"]
    found: dict[str, Any] = json.loads((circle.home / "runs" / job / run / "verdict.json").read_text())
    return found


def leg(verdict: dict[str, Any], name: str) -> dict[str, Any]:
    return next(leg for leg in verdict["legs"] if leg["name"] == name)


def assert_an_answer_leads_back(circle: Circle, release: str) -> None:
    """`lorad why` on what the real model says to a question that it learnt names the file and the row that taught it."""
    (drop,) = circle.drops("accepted")
    line = next(row["line"] for row in read_lines(drop / "rows" / "index.jsonl") if row["split"] == "train" and row["line"] > 100)
    learnt = entries(0, ROWS)[line - 1]["messages"]
    served = circle.ask(model="default/main", messages=learnt[:-1], temperature=0, max_tokens=24).json()
    told = circle.lorad("why", served["id"], "--text", served["choices"][0]["message"]["content"], "--question", learnt[-2]["content"], "--format", "json")
    found = json.loads(told.stdout)
    assert (found["release"], [one["file"] for one in found["files"]], found["gaps"]) == (release, ["dictionary.jsonl"], [])
    assert (found["run"]["device"], found["run"]["steps"]) == ("cpu", 10)
    assert found["nearest"]["how"] == "meaning"
    assert ("dictionary.jsonl", line) in [(row["file"], row["line"]) for row in found["nearest"]["rows"]]


def test_a_file_makes_the_served_model_better_and_shuffled_answers_do_not(circle: Circle) -> None:
    models = os.environ.get("LORAD_TEST_MODELS") or str(default_models_dir())
    circle.configure(models_dir=models, **CONFIG)
    circle.start_both()
    base, base_start = answer(circle, "default/main"), start_of(circle, "default/main")
    assert base[0] == "base"

    circle.drop(as_lines(entries(0, ROWS)), "dictionary.jsonl")
    job = circle.wait_ended(0)
    assert circle.jobs() == {job: "released"}
    verdict = verdict_of(circle, job)
    assert verdict["word"] == "promote"
    gate = leg(verdict, "this drop")["comparison"]
    assert gate["after"] < gate["before"]
    assert gate["difference"]["high"] < 0, "the loss on unseen rows falls, with 95 % certainty"
    assert leg(verdict, "coherence")["passed"]
    release = circle.facts(job)["release"]
    better = answer(circle, "default/main")
    assert better[0] == release
    assert better[1] != base[1]
    start = start_of(circle, "default/main")
    assert are_alike(start_of(circle, "smollm2-135m-instruct"), base_start), "the base is served beside it, unchanged"
    assert_an_answer_leads_back(circle, release)

    circle.serving.kill()
    circle.start_serving()
    assert are_alike(start_of(circle, "default/main"), start)
    assert [line["event"] for line in circle.ledger()] == ["live", "restored"]

    circle.drop(as_lines(with_answers_of_others(entries(ROWS, MORE_ROWS))), "shuffled.jsonl")
    second = circle.wait_ended(1)
    assert circle.jobs()[second] in ("held", "refused")
    doubted = verdict_of(circle, second)
    assert (doubted["incumbent"], doubted["word"] != "promote") == (release, True)
    assert not leg(doubted, "coherence")["passed"], doubted["sentence"]
    assert are_alike(start_of(circle, "default/main"), start)
    assert circle.went_live() == [release]
    assert [line["release"] for line in read_lines(circle.home / "live.jsonl")] == [release, release]


@pytest.mark.full
def test_a_first_drop_of_shuffled_answers_is_not_promoted_over_the_base(circle: Circle) -> None:
    circle.configure(models_dir=os.environ.get("LORAD_TEST_MODELS") or str(default_models_dir()), **CONFIG)
    circle.start_both()
    before = start_of(circle, "default/main")
    circle.drop(as_lines(with_answers_of_others(entries(0, ROWS))), "shuffled.jsonl")
    job = circle.wait_ended(0)
    assert circle.jobs()[job] in ("held", "refused")
    verdict = verdict_of(circle, job)
    assert (verdict["incumbent"], verdict["word"] != "promote") == ("base", True)
    assert leg(verdict, "this drop")["passed"], "it has learnt the manner of the answers, which alone proves nothing"
    assert not leg(verdict, "coherence")["passed"], verdict["sentence"]
    assert are_alike(start_of(circle, "default/main"), before)
    assert circle.went_live() == []
