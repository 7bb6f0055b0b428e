"""A held job: its page, a comparison of its candidate with what is live, and a rating that the daemon judges it by."""

import json
from datetime import UTC, datetime

from circle import Circle, chat_rows, read_json, read_lines

from cli.asking import ask
from core.commands import CommandKind
from core.ratings import Rating, details_of
from store.paths import Home

CANARY = "</script><script>alert('row')</script>"


def test_a_held_job_has_a_page_can_be_compared_and_is_judged_again_with_a_persons_rating(circle: Circle) -> None:
    circle.configure(ranking={"rating": True})
    circle.start_daemon()
    rows = [json.loads(line) for line in chat_rows(60).decode().splitlines()]
    for row in rows:
        row["messages"][-1]["content"] += CANARY
    circle.drop("".join(json.dumps(row) + "\n" for row in rows).encode(), "few.jsonl")
    job = circle.wait_state("held")
    ranking = circle.facts(job)["ranking"]

    page = circle.home / "runs" / job / ranking["verdict"] / "samples" / "report.html"
    assert "Not promoted: held" in page.read_text()
    assert "<script" not in page.read_text()
    out = circle.root / "page.html"
    done = circle.lorad("jobs", "report", job, "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert str(out) in done.stdout
    assert f"lorad compare base {job} --rate" in out.read_text()
    assert "few.jsonl" in out.read_text()

    done = circle.lorad("compare", "base", job, "--rows", "0", "--format", "json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["b"]["model"] == ranking["best"]
    assert found["measures"][0]["rows"] == len(found["rows"]) == 9
    assert not (circle.home / "caches" / "compare").exists(), "the ranking's own scores are used"

    candidate = {"candidate": ranking["best"], "incumbent": "base"}
    rating = Rating(job=job, better=1, worse=12, ties=0, pairs_sha256="a" * 64, seed=0, at=datetime(2026, 1, 1, tzinfo=UTC), **candidate)
    assert "judged again" in ask(Home(circle.home), CommandKind.RATE, job=job, details=details_of(rating)).message
    circle.wait_state("refused")
    verdict = read_json(circle.home / "runs" / job / circle.facts(job)["verdict"] / "verdict.json")
    assert next(leg["result"] for leg in verdict["legs"] if leg["name"] == "rating") == "regression"
    assert read_json(circle.home / "runs" / job / "rating.json")["worse"] == 12
    (entry,) = [line for line in read_lines(circle.home / "journal.jsonl") if line["action"] == "command.rate"]
    assert entry["ok"]
