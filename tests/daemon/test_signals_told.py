"""How many signals wait where is told in status.json, in metrics.prom and by `lorad status`."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from filled_index import facts_of
from signal_home import ADAPTER, NOON, SignalHome, signal

from cli.status import as_text
from core.commands import Command, CommandKind
from core.loopsteps import HearFeedback
from core.requests import decide_requests
from core.steps import Reply
from daemon.counters import Counters
from daemon.metrics import measures_of, text_of
from daemon.standing import Look, Process, standing_of
from daemon.tally import Tally


def test_counts_stand_in_the_status_in_the_metrics_and_before_people(tmp_path: Path) -> None:
    ground = SignalHome(tmp_path, {"feedback": {"user_cap": 3}})
    tally = Tally(ground.index, Counters.load(ground.home.counters))
    ground.spool([*(signal(number, user="bot") for number in range(5)), signal(9, user="ada", is_proposal=True)], first=1)
    ground.turn()
    for action, fields in ground.told:
        tally.on_told(action, fields)
    look = Look(facts=facts_of(ground.index), now=NOON, progress={}, signals=ground.feedback.counts())
    standing = standing_of(look, tally, Process.this("test", NOON))
    told = standing.feedback[ADAPTER]
    assert (told["rows"], told["review"], told["capped"], told["oldest_at"]) == (3, 1, 2, NOON.isoformat())
    page = text_of(measures_of(standing, tally, NOON))
    for line in ('lorad_signals{adapter="support/tone",standing="rows"} 3', 'lorad_signals_total{standing="capped"} 2'):
        assert line in page.splitlines()
    text = as_text(ground.home, standing.as_json() | {"at": NOON.isoformat()}, {"running": False, "condition": "stopped", "age_s": 1.0})
    assert "signals  support/tone: 3 rows pending, 1 in review, 2 over a cap" in text


def test_a_command_about_signals_is_heard_in_time_and_only_then(tmp_path: Path) -> None:
    ground = SignalHome(tmp_path)
    command = Command(
        id="command-1", kind=CommandKind.FEEDBACK, adapter=ADAPTER, details={"what": "flush"}, made_at=NOON, expires_at=NOON + timedelta(minutes=1)
    )
    facts = replace(facts_of(ground.index), commands=(command,))
    assert list(decide_requests(facts, NOON)) == [HearFeedback(command=command)]
    (late,) = decide_requests(facts, NOON + timedelta(minutes=2))
    assert isinstance(late, Reply)
    assert late.answer.code == "EXPIRED"
