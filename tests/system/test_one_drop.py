"""One dropped file becomes what is served, and everything that ought to tell of it does."""

import json

from circle import Circle, chat_rows, read_lines
from ends import assert_one_release
from openai import OpenAI


def test_a_dropped_file_becomes_the_served_release(circle: Circle) -> None:
    circle.start_both()
    assert circle.ask().headers["x-lorad-release"] == "base", "before the first release the base answers"
    content = chat_rows()
    circle.drop(content, "tone.jsonl")
    release = assert_one_release(circle, content)
    assert_told(circle, release)
    assert_the_openai_client_is_served(circle, release)
    circle.daemon.stop()
    circle.serving.stop()
    assert circle.status()["daemon"]["state"] == "stopped"


def assert_told(circle: Circle, release: str) -> None:
    told = [action for action in circle.told() if action != "progress"]
    road = ["drop.claimed", "drop.accepted", "job.queued", "job.training", "job.ranking", "job.score", "job.rank", "job.score", "job.rank"]
    assert told == ["daemon.started", *road, "job.releasing", "job.pack", "release.packed", "wish", "job.released"]
    assert [line["action"] for line in read_lines(circle.home / "journal.jsonl")] == told[1:]
    for name in ("journal.jsonl", "status.jsonl", "status.json", "live.jsonl"):
        assert "number" not in (circle.home / name).read_text(), f"{name} holds no row text"
    job = circle.job()
    (row,) = json.loads(circle.lorad("jobs", "list", "--format", "json").stdout)
    assert (row["id"], row["state"], row["progress"], row["file"], row["adapter"]) == (job, "released", 100, "tone.jsonl", "default/main")
    status = json.loads(circle.lorad("status", "--format", "json").stdout)
    assert status["queue"]["released"] == 1
    assert status["live"] == {"default/main": {"release": release, "version": 1}}
    assert (status["targets"][0]["reachable"], status["targets"][0]["code"]) == (True, "")
    assert status["daemon"]["pid"] == circle.daemon.pid


def assert_the_openai_client_is_served(circle: Circle, release: str) -> None:
    with OpenAI(base_url=f"{circle.address}/v1", api_key="none", max_retries=0) as client:
        assert [model.id for model in client.models.list()] == ["smollm2-135m-instruct", "default/main", "default/main@v1"]
        answer = client.chat.completions.create(model="default/main", messages=[{"role": "user", "content": "good morning"}])
        assert answer.choices[0].message.content == f"[stub {release[:12]}] good morning"
        assert (answer.model, answer.system_fingerprint) == ("default/main@v1", f"lorad-{release[:12]}")
        with client.chat.completions.create(model="default/main", messages=[{"role": "user", "content": "good morning"}], stream=True) as stream:
            chunks = list(stream)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == f"[stub {release[:12]}] good morning"
        assert {chunk.system_fingerprint for chunk in chunks} == {f"lorad-{release[:12]}"}


def test_two_drops_of_one_adapter_are_judged_one_against_the_other(circle: Circle) -> None:
    """The second is trained while the first is ranked; by its turn the first is live."""
    circle.start_both()
    circle.brake("score-dev")
    circle.drop(chat_rows(), "first.jsonl")
    circle.wait_held("score-dev")
    circle.drop(chat_rows(start=1000), "second.jsonl", sidecar={"training": {"epochs": 5}})
    circle.let_go("score-dev")
    first, second = circle.wait_state("released", 0), circle.wait_state("released", 1)
    facts = circle.facts(second)
    verdict = json.loads((circle.home / "runs" / second / facts["verdict"] / "verdict.json").read_text())
    assert verdict["incumbent"] == circle.facts(first)["release"]
    assert circle.went_live() == [circle.facts(first)["release"], facts["release"]]
    assert facts["version"] == 2
