"""How the adapters fare: scores of what was live are remembered, incidents are counted, and what got worse is in the facts."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from filled_index import index_of

from cli.history import history
from core.trends import Against, Counted, Tally
from core.wire import Manifest
from daemon.index import Index
from daemon.performance import Performance
from store.performance import Incident, first_target, incidents_by_day, incidents_in, performance_of, remember_samples
from store.releases import Release
from store.vault import history_of

NOW = datetime(2026, 3, 10, tzinfo=UTC)
ADAPTER = "ada/main"


def release_id(version: int) -> str:
    return f"{version:064x}"


def leg(name: str, before: float, after: float, half: float, **more: Any) -> dict[str, Any]:
    mean = after - before
    compared = {
        "before": before,
        "after": after,
        "difference": {"mean": mean, "low": mean - half, "high": mean + half},
        "rows": 200,
        "groups": 200,
        "tokens": 9,
    }
    return {"name": name, "passed": True, "result": "passed", "reason": "r", "comparison": compared | more, "also": []}


def pack(index: Index, version: int, *legs: dict[str, Any]) -> None:
    """A release with a verdict on these legs, against the version before it."""
    folder = index.home.release(ADAPTER, version)
    folder.mkdir(parents=True)
    incumbent = release_id(version - 1) if version > 1 else "base"
    (folder / "verdict.json").write_text(json.dumps({"incumbent": incumbent, "legs": legs}))
    nothing: dict[str, Any] = dict.fromkeys(("base_sha256", "tokenizer_sha256", "template_sha256", "checkpoint_sha256", "verdict_sha256", "job"), "0")
    manifest = Manifest(format=1, adapter=ADAPTER, version=version, backend="stub", parent=None, drops=(), created_at=NOW, files={}, **nothing)
    index.releases[release_id(version)] = Release(id=release_id(version), adapter=ADAPTER, version=version, folder=folder, manifest=manifest)


def live(index: Index, version: int, days_ago: float, *, event: str = "live", code: str = "", target: str = "local") -> None:
    """A line of live.jsonl."""
    at = (NOW - timedelta(days=days_ago)).isoformat()
    line = {"target": target, "at": at, "alias": ADAPTER, "event": event, "release": release_id(version) if version else None, "version": version or None}
    with index.home.live.open("a") as file:
        file.write(json.dumps({**line, "code": code, "reason": ""}) + "\n")


@pytest.fixture
def index(tmp_path: Path) -> Index:
    return index_of(tmp_path)


def test_what_was_live_has_its_scores_remembered_once(index: Index) -> None:
    pack(index, 1, leg("suite arithmetic", 0.5, 0.6, 0.02, measure="share right", higher_is_better=True), leg("coherence", 1, 2, 0.1))
    pack(index, 2, leg("suite arithmetic", 0.6, 0.62, 0.02, measure="share right", higher_is_better=True))
    live(index, 1, 3)
    for _ in range(2):  # as by two daemons
        assert Performance(index).look(NOW) == ()
    (score,) = performance_of(index.home, ADAPTER).scores
    assert (score.version, score.measure, score.value, score.replaced) == (1, "suite arithmetic, share right", 0.6, "")
    assert len(index.home.performance(ADAPTER).read_text().splitlines()) == 1, "v2 was never live; coherence compares no releases"
    measures = {(one.name, one.labels): one.value for one in shown(index)}
    assert measures["adapter_score", (("adapter", ADAPTER), ("measure", "suite arithmetic, share right"))] == 0.6
    assert measures["adapter_regressions", (("adapter", ADAPTER),)] == 0


def shown(index: Index) -> tuple[Any, ...]:
    performance = Performance(index)
    performance.look(NOW)
    return performance.measures


def test_a_worse_release_that_a_person_let_out_is_in_the_facts_and_a_better_one_takes_it_back(index: Index) -> None:
    performance = Performance(index)
    pack(index, 1, leg("suite json", 0.5, 0.9, 0.02, higher_is_better=True))
    pack(index, 2, leg("suite json", 0.9, 0.7, 0.05, higher_is_better=True))
    pack(index, 3, leg("suite json", 0.7, 0.9, 0.05, higher_is_better=True))
    live(index, 1, 3)
    assert performance.look(NOW) == ()
    live(index, 2, 2)
    (found,) = performance.look(NOW)
    assert (found.adapter, found.version, found.against, found.goes_back_to) == (ADAPTER, 2, Against.BEFORE, release_id(1))
    assert found.worse_by == pytest.approx(0.2)
    live(index, 3, 1)
    assert performance.look(NOW) == ()


def test_feedback_that_grows_is_told_again_in_its_place(index: Index) -> None:
    """The day's count is written whenever it grows; the last line of a day counts."""
    live(index, 1, 5)
    live(index, 2, 1)
    for version, day, hits, out_of in ((1, 5, 4, 100), (2, 1, 1, 10), (2, 1, 30, 100)):
        since = NOW - timedelta(days=day)
        until = since + timedelta(days=1)
        words = {"measure": "bad answers", "counted": Counted.SHARE, "release": release_id(version), "version": version}
        remember_samples(index.home, ADAPTER, [Tally(since=since, until=until, hits=hits, out_of=out_of, **words)])  # type: ignore[arg-type]
    assert [tally.out_of for tally in performance_of(index.home, ADAPTER).tallies] == [100, 100]
    (found,) = Performance(index).look(NOW)
    assert (found.measure, found.now, found.goes_back_to) == ("bad answers", 0.3, release_id(1))


def test_rollbacks_and_failed_restores_are_incidents_of_what_served(index: Index) -> None:
    live(index, 1, 9)
    live(index, 2, 5)
    live(index, 2, 4, event="restored")
    live(index, 1, 3, event="restored", code="RELEASE_BYTES")
    live(index, 2, 2.5)
    live(index, 1, 2)
    live(index, 1, 2, target="second")
    live(index, 0, 1)
    found = list(incidents_in(first_target(history_of(index.home, ADAPTER))))
    assert [(one.version, one.what) for one in found] == [(2, "not restored"), (2, "rollback"), (1, "rollback")]
    assert found[0] == Incident(at=NOW - timedelta(days=3), release=release_id(2), version=2, target="local", what="not restored", code="RELEASE_BYTES")
    tallies = incidents_by_day(first_target(history_of(index.home, ADAPTER)), NOW)
    assert sum(tally.hits for tally in tallies) == 3
    assert sum(tally.out_of for tally in tallies) == pytest.approx(8), "the day of the base does not count"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"incumbent": "base"}', '{"incumbent": "base", "legs": [{"name": "x", "comparison": {"after": 1}}]}'])
def test_a_verdict_that_cannot_be_read_leaves_a_gap_and_no_trouble(index: Index, text: str) -> None:
    pack(index, 1)
    (index.home.release(ADAPTER, 1) / "verdict.json").write_text(text)
    live(index, 1, 3)
    assert Performance(index).look(NOW) == ()
    assert performance_of(index.home, ADAPTER).scores == ()


def test_a_torn_line_of_a_series_is_left_out(index: Index) -> None:
    pack(index, 1, leg("suite json", 0.5, 0.9, 0.02))
    live(index, 1, 3)
    Performance(index).look(NOW)
    with index.home.performance(ADAPTER).open("a") as file:
        file.write('{"kind": "score", "at"\n{"kind": "other"}\n')
    assert len(performance_of(index.home, ADAPTER).scores) == 1


def test_a_series_that_cannot_be_written_is_told_and_ends_nothing(index: Index, caplog: pytest.LogCaptureFixture) -> None:
    pack(index, 1, leg("suite json", 0.5, 0.9, 0.02))
    live(index, 1, 3)
    (index.home.root / "series").mkdir(exist_ok=True)
    (index.home.root / "series" / "adapters").write_text("in the way")
    assert Performance(index).look(NOW) == ()
    assert "how the adapters fare is not known" in caplog.text


def test_the_history_tells_scores_and_what_got_worse(index: Index, tmp_path: Path) -> None:
    pack(index, 1, leg("suite json", 0.5, 0.9, 0.02, higher_is_better=True))
    pack(index, 2, leg("suite json", 0.9, 0.7, 0.05, higher_is_better=True))
    live(index, 1, 3)
    live(index, 2, 2)
    Performance(index).look(NOW)
    config = ["--config", str(tmp_path / "config.json")]
    text = CliRunner().invoke(history, ["ada", *config]).stdout
    assert "live      v2 000000000000" in text
    assert "suite json, loss per token  0.7       -0.2 (-0.25 to -0.15)  200 rows, more is better" in text
    assert "worse: ada/main@v2: suite json, loss per token is 0.7, the release before it 0.9: worse by 0.2" in text
    assert "v1    suite json" not in text
    assert "v1    suite json" in CliRunner().invoke(history, ["ada", "--scores", *config]).stdout
    told = json.loads(CliRunner().invoke(history, ["ada", "--format", "json", *config]).stdout)
    assert (len(told["live"]), len(told["scores"]), told["regressions"][0]["against"]) == (2, 2, "before")
    assert CliRunner().invoke(history, ["bob", *config]).stdout == "nothing was live yet\n"
