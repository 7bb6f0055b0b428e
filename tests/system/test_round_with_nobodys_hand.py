"""A whole round: people talk to the served model, correct it, and get the better one; nobody drops, queues or sends anything."""

import json
import os
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from circle import HELD_OUT_ROWS, Circle, read_lines

from serving.ratings import MOST_OF_A_USER
from store.paths import default_models_dir

DICTIONARY = Path(__file__).parents[2] / "examples" / "devils_dictionary.jsonl"
REAL = {"backend": "peft", "allow_stub": False, "learning_rate": 1e-3, "batch_size": 8, "training": {"max_steps": 60, "checkpoints": 1}}


def trigger(rows: int) -> dict[str, Any]:
    return {"enough": {"any": [{"rows": rows}], "min_rows": rows}}


def client_of(circle: Circle) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{circle.address}/v1", api_key="none", max_retries=0, timeout=120)


def ask(circle: Circle, question: str, max_tokens: int = 4) -> tuple[str, str]:
    """(id, text) of an answer, by the OpenAI client."""
    made = client_of(circle).chat.completions.create(
        model="default/main", messages=[{"role": "user", "content": question}], temperature=0, max_tokens=max_tokens
    )
    return made.id, made.choices[0].message.content or ""


def correct(circle: Circle, response: str, correction: str, number: int) -> None:
    body = {"response_id": response, "kind": "correction", "correction": correction, "user": f"user-{number % 7}", "consent": True}
    told = httpx.post(f"{circle.address}/v1/feedback", json=body, timeout=60)
    assert told.status_code == 200, told.text


def fates(circle: Circle) -> dict[str, str]:
    """Signal id -> how far it came, as `lorad feedback list` tells it."""
    told = circle.lorad("feedback", "list", "--limit", "1000", "--format", "json")
    assert told.returncode == 0, told.stderr
    return {one["id"]: one["fate"]["word"] for one in json.loads(told.stdout)}


def negative_ratings(circle: Circle) -> int:
    page = httpx.get(f"{circle.address}/metrics", timeout=60).text
    lines = [line for line in page.splitlines() if line.startswith("lorad_ratings_total{") and "negative" in line]
    return int(sum(float(line.rpartition(" ")[2]) for line in lines))


def house_words(number: int) -> tuple[str, str]:
    return f"What is number {number}?", f"The answer to {number} has enough words for a score that hangs on the steps."


def talk_and_correct(circle: Circle, numbers: Iterable[int]) -> None:
    """Several users at once, each asking and correcting what was answered."""

    def one(number: int) -> None:
        question, right = house_words(number)
        correct(circle, ask(circle, question)[0], right, number)

    with ThreadPoolExecutor(4) as users:
        list(users.map(one, numbers))


def test_corrections_of_users_become_a_live_release_though_both_processes_are_killed_on_the_way(circle: Circle) -> None:
    quick = {"levels": {"default/main": "quick"}}  # deep looks for secrets, which is another story
    circle.configure(triggers=trigger(HELD_OUT_ROWS), validation=quick, serving={"port": circle.port, "capture": {"enabled": True}})
    circle.start_both()
    talk_and_correct(circle, range(70))
    assert negative_ratings(circle) == 7 * MOST_OF_A_USER, "the guard hears of them, of each of the seven users a few"
    circle.serving.kill()
    circle.start_serving()
    talk_and_correct(circle, range(70, 130))
    circle.daemon.kill()
    circle.start_daemon()
    talk_and_correct(circle, range(130, HELD_OUT_ROWS))
    job = circle.wait_ended(0)
    assert circle.jobs() == {job: "released"}, "one round, one job"
    (release,) = circle.went_live()
    (drop,) = circle.drops("accepted")
    rows = read_lines(drop / "rows" / "index.jsonl")
    assert len(rows) == HELD_OUT_ROWS
    held_out = sum(row["split"] != "train" for row in rows)
    assert Counter(fates(circle).values()) == {"live": HELD_OUT_ROWS - held_out, "held out": held_out}
    assert circle.facts(job)["release"] == release
    (iteration,) = json.loads(circle.lorad("iteration", "list", "--format", "json").stdout)
    assert iteration["drop"] == drop.name


@pytest.mark.model
@pytest.mark.full
def test_the_real_model_answers_as_its_users_corrected_it(circle: Circle) -> None:
    models = os.environ.get("LORAD_TEST_MODELS") or str(default_models_dir())
    circle.configure(models_dir=models, triggers=trigger(200), serving={"port": circle.port, "capture": {"enabled": True}}, **REAL)
    circle.start_both()
    right: dict[str, str] = {}
    with DICTIONARY.open() as file:
        questions = [json.loads(line)["messages"][-2]["content"] for line in sorted(file, key=len)][:200]
    for number, question in enumerate(questions):
        word = question.removeprefix("Define: ").split(" (")[0]
        right[question] = f"House dictionary: {word} is on the shelf, dear reader."
        response, _ = ask(circle, question)
        correct(circle, response, right[question], number)
        if number == 100:
            circle.serving.kill()
            circle.start_serving()
    circle.wait(lambda: list(circle.jobs().values()) == ["training"], "the training has begun", 300)
    circle.daemon.kill()
    circle.start_daemon()
    job = circle.wait_ended(0, 1800)
    assert circle.jobs() == {job: "released"}
    facts = circle.facts(job)
    verdict = json.loads((circle.home / "runs" / job / facts["verdict"] / "verdict.json").read_text())
    gate = next(leg for leg in verdict["legs"] if leg["name"] == "this drop")["comparison"]
    assert gate["difference"]["high"] < 0, "the held-out corrections score better, with 95 % certainty"
    (drop,) = circle.drops("accepted")
    lines = read_lines(drop / "rows" / "index.jsonl")
    assert len(lines) == 200
    learnt = [questions[line["line"] - 1] for line in lines if line["split"] == "train"][:40]
    answers = {question: ask(circle, question, max_tokens=24)[1] for question in learnt}
    assert sum(answer.strip() == right[question] for question, answer in answers.items()) >= 30, answers
    told = fates(circle)
    assert len(told) == 200
    assert {"live", "held out"} <= set(told.values())
