"""Drops too small to be judged alone, and the gate's doubts about a drop."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from core.records import VerdictWord
from ranking.scores import EvidenceError
from ranking.verdict import judge

FIRST, EARLIER, THIS = "drop-0", "drop-1", "drop-2"


def leg(verdict, name):
    return next(leg for leg in verdict.legs if leg.name == name)


def lay_three(desk, *, this, change):
    """This drop's rows, 40 of the drop before it and 60 of the one before that; the candidate is better on all by `change`."""
    rows = desk.rows(this=this, earlier=100)
    for row in rows[this + 40 :]:
        row |= {"drop": FIRST, "group": f"{FIRST}-{row['group']}"}
    levels = {THIS: 4.0, EARLIER: 4.0, FIRST: 4.0}
    desk.lay_scores("gate/base", rows, levels)
    desk.lay_scores(f"gate/{desk.candidate.id}", rows, {drop: level + change for drop, level in levels.items()})
    desk.lay_shift(f"shift-gate/{desk.candidate.id}", rows, 0.8)


def test_a_small_drop_is_judged_with_the_latest_before_it_and_the_verdict_says_so(desk):
    lay_three(desk, this=20, change=-0.3)
    verdict = judge(desk.task, desk.rules)
    assert verdict.word is VerdictWord.PROMOTE
    assert verdict.pooled == (EARLIER,), "ten and twenty conversations are enough: the first drop is left out"
    assert "on 60 held-out rows of this drop and of the drop before it (its own are only 20) the loss per token falls" in verdict.sentence
    assert leg(verdict, "enough evidence").reason == "30 held-out conversations of this drop and those before it, 30 are needed"


def test_as_many_drops_as_are_needed_are_pooled(desk):
    lay_three(desk, this=14, change=-0.3)
    verdict = judge(desk.task, desk.rules)
    assert verdict.pooled == (EARLIER, FIRST)
    assert "of the 2 drops before it (its own are only 14)" in verdict.sentence


def test_a_drop_with_enough_conversations_stands_alone(desk):
    lay_three(desk, this=60, change=-0.3)
    verdict = judge(desk.task, desk.rules)
    assert verdict.pooled == ()
    assert leg(verdict, "this drop").comparison.rows == 60


def test_a_gain_on_the_small_drop_alone_is_not_proven_by_the_others(desk):
    lay_three(desk, this=20, change=0.0)
    assert judge(desk.task, desk.rules).word is VerdictWord.HOLD


def test_twenty_items_in_all_are_held(desk):
    desk.lay_out(this=-1.5, rows=(10, 10))
    verdict = judge(desk.task, desk.rules)
    assert verdict.word is VerdictWord.HOLD
    assert "10 held-out conversations of this drop and those before it are too few" in verdict.sentence


def test_the_gates_doubts_about_a_drop_hold_whatever_the_loss_says(desk):
    desk.lay_out(this=-0.6)
    desk.report({"id": "D10", "severity": "warning", "count": 31}, {"id": "D02", "severity": "warning", "count": 1})
    verdict = judge(desk.task, desk.rules)
    assert verdict.word is VerdictWord.HOLD
    assert "answers of the drop may not belong to their questions (D10, 31 rows)" in verdict.sentence
    desk.report({"id": "D02", "severity": "warning", "count": 1})
    assert judge(desk.task, desk.rules).word is VerdictWord.PROMOTE


DAMAGES = {"gone": lambda path: path.unlink(), "torn": lambda path: path.write_text('{"findings": ['), "other": lambda path: path.write_text("[]")}


@pytest.mark.parametrize("damage", DAMAGES)
def test_without_the_gates_report_evidence_is_missing(desk, damage):
    desk.lay_out(this=-0.6)
    DAMAGES[damage](desk.report())
    with pytest.raises(EvidenceError, match="gate's report"):
        judge(desk.task, desk.rules)


def test_a_task_that_does_not_say_where_the_drop_lies_lacks_evidence(desk):
    desk.lay_out(this=-0.6)
    with pytest.raises(EvidenceError, match="does not name the rows"):
        judge(replace(desk.task, rows=()), desk.rules)


UNSERVED = {
    "no probe": lambda desk: Path(desk.task.probe).unlink(),
    "torn probe": lambda desk: Path(desk.task.probe).write_text("{"),
    "empty probe": lambda desk: Path(desk.task.probe).write_text(""),
    "a probe that changes nothing": lambda desk: Path(desk.task.probe).write_text(json.dumps({"base": [1], "adapter": [1]}) + "\n"),
    "weights of others": lambda desk: Path(desk.task.checkpoint, "adapter_config.json").write_text('{"r": 4}'),
    "no seal": lambda desk: Path(desk.task.checkpoint, "SEALED").unlink(),
    "no adapter": lambda desk: Path(desk.task.checkpoint, "adapter_config.json").unlink(),
    "no probe was named": lambda desk: setattr(desk, "task", replace(desk.task, probe=None)),
    "a rank that servers refuse": lambda desk: setattr(desk, "task", replace(desk.task, settings={**desk.task.settings, "serving": {"max_rank": 4}})),
    "a method that nobody serves": lambda desk: setattr(desk, "task", replace(desk.task, settings={**desk.task.settings, "method": "full"})),
}


@pytest.mark.parametrize("what", UNSERVED)
def test_what_no_server_could_load_is_held(desk, what):
    desk.lay_out(this=-0.6)
    UNSERVED[what](desk)
    verdict = judge(desk.task, desk.rules)
    assert verdict.word is VerdictWord.HOLD
    assert not leg(verdict, "servability").passed
    assert str(desk.folder) not in verdict.sentence
