"""From an answer that the server gave, back to the file that taught it; and what is said where a part of the way is gone."""

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from circle import Circle, chat_rows, read_lines
from click.testing import CliRunner, Result

from cli.why import why
from core.errors import UsageError
from core.forgets import Tombstone
from store.forgets import entomb as entomb_drop
from store.paths import Home


def ask_why(circle: Circle, *words: str, given: str | None = None) -> Result:
    """`lorad why` in this process."""
    return CliRunner().invoke(why, [*words, "--config", str(circle.config)], input=given)


def told(circle: Circle, *words: str, given: str | None = None) -> dict[str, Any]:
    """What it says as JSON."""
    result = ask_why(circle, *words, "--format", "json", given=given)
    assert result.exception is None, result.exception
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def error_of(circle: Circle, *words: str, given: str | None = None) -> UsageError:
    error = ask_why(circle, *words, given=given).exception
    assert isinstance(error, UsageError), error
    return error


def gaps(found: dict[str, Any]) -> dict[str, str]:
    return {gap["part"]: gap["why"] for gap in found["gaps"]}


def learnt_line(circle: Circle, file: str) -> tuple[int, str]:
    """A line of the train split of a drop, and the question in it."""
    for folder in circle.drops("accepted"):
        if json.loads((folder / "claim.json").read_text())["file"] == file:
            line = [row["line"] for row in read_lines(folder / "rows" / "index.jsonl") if row["split"] == "train"][40]
            row = json.loads(chat_rows(start=1000 if file == "second.jsonl" else 0).splitlines()[line - 1])
            return line, row["messages"][0]["content"]
    raise AssertionError(file)


def test_a_served_answer_leads_back_to_the_row_that_taught_it(circle: Circle) -> None:
    circle.configure(models_dir="no-models-here")
    circle.start_both()
    before = circle.ask(model="default/main").json()["id"]
    circle.drop(chat_rows(), "ada/main/first.jsonl")
    first = circle.wait_state("released", 0)
    circle.drop(chat_rows(start=1000), "ada/main/second.jsonl", sidecar={"training": {"epochs": 4}})
    second = circle.wait_state("released", 1)
    line, question = learnt_line(circle, "second.jsonl")
    served = circle.ask(question, model="ada/main").json()
    release = circle.facts(second)["release"]
    circle.daemon.stop()
    circle.serving.stop()

    a_whole_answer_is_enough(circle, served, release, second, line)
    every_name_of_it_leads_there(circle, served, release)
    an_answer_of_the_base_says_so(circle, before)
    a_stranger_is_named(circle)
    what_is_gone_is_said(circle, served, first, second)


def a_whole_answer_is_enough(circle: Circle, served: dict[str, Any], release: str, job: str, line: int) -> None:
    found = told(circle, "-", given=json.dumps(served))
    assert found["reference"] == served["id"]
    assert (found["release"], found["adapter"], found["version"]) == (release, "ada/main", 2)
    assert found["verdict"]["word"] == "promote"
    assert found["verdict"]["intact"] is True
    assert (found["run"]["job"], found["run"]["run"]) == (job, "01-train")
    assert found["run"]["steps"] > 0
    assert found["config"]["training.epochs"]["value"] == 4
    assert [(one["file"], one["rows"], one["is_own"], one["by"]) for one in found["files"]] == [
        ("first.jsonl", 200, False, "ada"),
        ("second.jsonl", 200, True, "ada"),
    ]
    assert (found["nearest"]["how"], found["nearest"]["note"]) == ("words", "no sentence model is here")
    near = found["nearest"]["rows"][0]
    assert (near["file"], near["line"]) == ("second.jsonl", line)
    assert [span["until"] for span in found["live"]] == [""]
    assert found["gaps"] == []

    screen = circle.lorad("why", served["id"], "--text", served["choices"][0]["message"]["content"]).stdout
    for part in (f"ada/main@v2, release {release[:12]}", "Promote:", f"{job}, 01-train", "second.jsonl", f"line {line}", "training.epochs = 4"):
        assert part in screen, f"{part!r} is on the screen\n{screen}"
    assert len(screen.splitlines()) <= 40, "one screen"
    assert "missing" not in screen


def every_name_of_it_leads_there(circle: Circle, served: dict[str, Any], release: str) -> None:
    for name in (served["id"], served["system_fingerprint"], release, release[:8], "ada", "ada/main", served["model"], "ada/main@latest"):
        found = told(circle, name)
        assert found["release"] == release, name
        assert gaps(found) == {"rows": "nothing to compare with: give the answer with --text, or its question with --question"}


def an_answer_of_the_base_says_so(circle: Circle, before: str) -> None:
    assert before.startswith("chatcmpl-base-")
    assert told(circle, before)["release"] is None
    assert told(circle, "smollm2-135m-instruct")["release"] is None
    assert "the base model answered" in ask_why(circle, "lorad-base").stdout


def a_stranger_is_named(circle: Circle) -> None:
    assert error_of(circle, "chatcmpl-0123456789ab-00000000000000000000000a").code == "RELEASE_UNKNOWN"
    assert error_of(circle, "chatcmpl-A1b2C3d4").code == "ANSWER_FOREIGN"
    assert error_of(circle, "-", given="data: {}").code == "ANSWER_SYNTAX"
    assert error_of(circle, "-", given=json.dumps({"id": "x", "choices": [{"message": {"content": "x"}}]})).code == "ANSWER_FOREIGN"
    assert error_of(circle, "-", "--text", "-", given="x").code == "STDIN_TWICE"
    assert error_of(circle, "ada/main@v9").code == "RELEASE_UNKNOWN"


def what_is_gone_is_said(circle: Circle, served: dict[str, Any], first: str, second: str) -> None:
    """Retention, a forgotten drop, a changed verdict, a job of another home, a release whose bytes went: each by itself."""
    answer = ("--text", served["choices"][0]["message"]["content"])
    own = next(folder for folder in circle.drops("accepted") if json.loads((folder / "claim.json").read_text())["file"] == "second.jsonl")
    shutil.rmtree(circle.home / "runs" / second)
    shutil.rmtree(own)
    found = told(circle, served["id"], *answer)
    assert set(gaps(found)) == {"run", "files"}
    assert "retention" in gaps(found)["run"]
    assert "second.jsonl is not in drops/accepted" in gaps(found)["files"]
    assert [one["file"] for one in found["files"]] == ["first.jsonl", ""]
    assert {row["file"] for row in found["nearest"]["rows"]} == {"first.jsonl"}, "what is left is still compared"
    assert "missing" in ask_why(circle, served["id"], *answer).stdout
    stone = Tombstone(drop=own.name, adapter="ada/main", sha256=found["files"][1]["sha256"], order="forget-1", at=datetime(2026, 1, 2, tzinfo=UTC))
    entomb_drop(Home(circle.home), stone)
    assert gaps(told(circle, served["id"], *answer))["files"].endswith("it was forgotten on 2026-01-02 (order forget-1)")

    verdict = circle.home / "adapters" / "ada" / "main" / "v2" / "verdict.json"
    verdict.write_text(verdict.read_text().replace('"promote"', '"refuse"'))
    found = told(circle, served["id"], *answer)
    assert found["verdict"]["intact"] is False
    assert "it was changed since" in gaps(found)["verdict"]

    shutil.rmtree(circle.job_folders()[second])
    found = told(circle, served["id"], *answer)
    assert "made in another home" in gaps(found)["job"]
    assert (found["run"], found["config"]) == (None, {})

    entomb(circle.home / "adapters" / "ada" / "main" / "v2", served["system_fingerprint"], found["release"])
    found = told(circle, served["id"], *answer)
    assert "its bytes went on 2026-01-01: room is needed" in gaps(found)["release"]
    assert told(circle, "ada/main@v2")["release"] == found["release"]
    (circle.home / "adapters" / "ada" / "main" / "v2.gone.json").unlink()
    found = told(circle, served["id"], *answer)
    assert "were never in this home" in gaps(found)["release"]
    assert found["version"] == 2
    assert first


def entomb(folder: Path, fingerprint: str, release: str) -> None:
    assert fingerprint == f"lorad-{release[:12]}"
    shutil.rmtree(folder)
    stone = {"release": release, "adapter": "ada/main", "version": 2, "gone_at": "2026-01-01T00:00:00+00:00", "why": "room is needed"}
    folder.with_name("v2.gone.json").write_text(json.dumps(stone))


@pytest.mark.parametrize("text", ["\x1b[31mred\x1b[0m", "a\u202eb", "x" * 5000, "line\nline"])
def test_nothing_that_a_row_says_acts_on_the_terminal(text: str) -> None:
    from cli.why import SHOWN_CHARACTERS, _cut

    shown = _cut(text)
    assert shown.isprintable()
    assert len(shown) <= SHOWN_CHARACTERS
