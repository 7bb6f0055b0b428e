"""`lorad trigger`: what it says of a home whose daemon is not running, and what it asks of one that is."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from cli import asking
from cli.trigger import trigger
from core.commands import Answer, Command, CommandKind
from core.conditions import Firing, Past, Stamp
from core.config import Config
from core.errors import UsageError
from core.signals import Signal, SignalKind
from daemon.schedules import Plan
from daemon.triggers import Clocks, Memory
from store.codec import read, write
from store.feedback import Shelf
from store.iterations import Continuous, Stop, write_continuous
from store.paths import Home

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
ADAPTER = "support/tone"


def said(number: int, domain: str = "tone") -> Signal:
    asked = ({"role": "user", "content": f"What is {number}?"},)
    known: dict[str, Any] = {"persona": "support", "domain": domain, "consent": True, "at": NOW, "source": "api", "user": f"u{number % 9}"}
    return Signal(id=f"{domain}{number:08d}", kind=SignalKind.CORRECTION, input=asked, wrong_output="?", correct_output=f"It is {number}.", **known)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home with 30 pending corrections of support/tone that are ninety minutes old."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LORAD_CONFIG", raising=False)
    monkeypatch.setattr(Clocks, "stamp", lambda clocks: Stamp(at=NOW))
    triggers = {"enough": {"any": [{"rows": 100}, {"after_s": 86400}]}, "nightly": {"all": [{"cron": "0 3 * * *"}, {"rows": 25}]}}
    Path("config.json").write_text(json.dumps({"home": "var", "triggers": triggers, "schedule": {"time_zone": "UTC"}}))
    made = Home(tmp_path / "var")
    made.prepare()
    made.triggers.parent.mkdir(exist_ok=True)
    Shelf(made).add([said(number) for number in range(30)], NOW - timedelta(minutes=90), Config().feedback)
    return made


def call(*words: str) -> tuple[int, Any]:
    result = CliRunner().invoke(trigger, [*words, "--format", "json"], catch_exceptions=False, standalone_mode=False)
    return int(result.return_value or 0), json.loads(result.output)


def text(*words: str) -> str:
    result = CliRunner().invoke(trigger, [*words], catch_exceptions=False, standalone_mode=False)
    return str(result.output)


def test_the_list_says_of_each_trigger_why_it_has_not_fired_and_when_it_could(home: Home) -> None:
    _, found = call("list")
    assert [(one["trigger"], one["adapter"], one["fires"]) for one in found] == [("enough", ADAPTER, False), ("nightly", ADAPTER, False)]
    assert found[0]["words"] == "30 of 100 pending rows and the oldest pending row is 1 h 30 min old, of 1 d"
    assert found[0]["brakes"] == [{"words": "nothing may train: no daemon runs", "until": None}]
    assert found[1]["all"][0]["at"] is not None
    shown = text("list")
    assert "enough           support/tone             next when its conditions hold" in shown


def test_a_trigger_is_shown_with_each_condition_its_brakes_and_its_last_firing(home: Home) -> None:
    firing = Firing(key="k", trigger="enough", stamp=Stamp(at=NOW - timedelta(minutes=20)), rows=512, why="512 of 100 pending rows", batch="batch-1")
    write(home.triggers, Memory(pasts={ADAPTER: Past(firings=(firing,))}))
    write_continuous(home, Continuous(stopped={ADAPTER: Stop(at=NOW)}))
    shown = text("show", "enough")
    assert "enough for support/tone: does not fire" in shown
    assert "  any of   no   30 of 100 pending rows" in shown
    assert "  and      yes  30 new rows, of at least 20" in shown
    assert "continuous mode of support/tone is stopped" in shown
    assert "cools down after 'enough' until" in shown
    assert "by 'enough' with 512 rows (512 of 100 pending rows): batch-1" in shown


def test_a_try_tells_what_would_be_with_other_rows_and_at_another_time_and_fires_nothing(home: Home) -> None:
    assert call("test", "enough")[0] == 2
    tomorrow = f"{NOW + timedelta(days=1):%Y-%m-%dT%H:%M}+00:00"
    status, [found] = call("test", "enough", "--at", tomorrow)
    assert (status, found["fires"]) == (0, True)
    assert call("test", "enough", "--at", f"{NOW + timedelta(hours=21):%Y-%m-%dT%H:%M}+00:00")[0] == 2
    assert call("test", "enough", "--rows", "100", "--at", f"{NOW:%Y-%m-%dT%H:%M}+00:00")[0] == 0
    assert call("test", "nightly", "--rows", "24", "--at", f"{NOW:%Y-%m-%d}T03:00+00:00")[0] == 2
    assert not home.triggers.exists()
    assert "enough would fire for support/tone: 100 of 100 pending rows" in text("test", "enough", "--rows", "100", "--at", tomorrow)


def test_a_cron_that_came_while_no_daemon_ran_is_told_as_come(home: Home) -> None:
    due = NOW.replace(hour=3, minute=0, second=0) - timedelta(days=3)
    write(home.triggers, Memory(plans={"nightly 0 3 * * *": Plan(key="0 3 * * * UTC", since=due, next=due)}))
    _, [found] = call("show", "nightly")
    assert found["all"][0]["holds"]
    assert found["holds"]


@pytest.mark.parametrize(
    ("words", "code"), [(("show", "none"), "TRIGGER_UNKNOWN"), (("fire", "none"), "TRIGGER_UNKNOWN"), (("test", "--at", "noon"), "TIME_SYNTAX")]
)
def test_what_is_not_known_is_told_with_what_there_is(home: Home, words: tuple[str, ...], code: str) -> None:
    with pytest.raises(UsageError) as caught:
        text(*words)
    assert caught.value.code == code


def test_firing_by_hand_asks_the_daemon_for_the_only_adapter_that_has_anything(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Command] = []

    def answered(path: Path) -> Answer:
        asked.append(read(Command, path.with_name(path.name.replace(".answer", ""))))
        return Answer(command=asked[-1].id, ok=True, message="the pending rows of support/tone become a drop: batch-7", made="batch-7")

    monkeypatch.setattr(asking, "require_daemon", lambda home: None)
    monkeypatch.setattr(asking, "read_answer", answered)
    assert "batch-7" in text("fire", "enough", "--reason", "now")
    assert (asked[0].kind, asked[0].adapter, asked[0].details) == (CommandKind.TRIGGER, ADAPTER, {"what": "fire", "name": "enough"})
    Shelf(home).add([said(1, "facts")], NOW, Config().feedback)
    with pytest.raises(UsageError, match="support/facts, support/tone have pending rows"):
        text("fire")


def test_before_anybody_said_anything_the_triggers_are_listed_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LORAD_CONFIG", raising=False)
    Path("config.json").write_text('{"home": "var"}')
    Home(tmp_path / "var").prepare()
    _, [found] = call("list")
    assert (found["trigger"], found["adapter"], found["fires"]) == ("enough", "*", False)


def test_a_watched_file_is_looked_for_beside_the_config(home: Home) -> None:
    config = Path("config.json").absolute()
    values = json.loads(config.read_text()) | {"triggers": {"faq": {"any": [{"changed": "sources/faq"}]}}}
    config.write_text(json.dumps(values))
    assert f"{config.parent}/sources/faq is not there" in text("show", "faq", "--config", str(config))
