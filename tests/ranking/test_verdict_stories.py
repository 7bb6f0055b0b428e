"""What the verdict says in each story, and in which words."""

from dataclasses import replace

import pytest

from core.records import VerdictWord
from ranking.evidence import LegResult
from ranking.report import sentence, signed
from ranking.verdict import judge, rows_for


def leg(verdict, name):
    return next(leg for leg in verdict.legs if leg.name == name)


def test_a_better_candidate_is_promoted(desk):
    desk.lay_out(this=-0.6)
    verdict = judge(desk.task, desk.rules)
    assert verdict.word is VerdictWord.PROMOTE
    assert verdict.sentence.startswith("Promote: on 90 held-out rows of this drop the loss per token falls from 4.0")
    assert "(-0.6" in verdict.sentence
    assert "95 % interval -0.6" in verdict.sentence
    assert leg(verdict, "earlier drops").result is LegResult.SKIPPED
    assert leg(verdict, "this drop").comparison.difference.high < 0


def test_the_verdict_names_its_evidence_by_hash(desk):
    desk.lay_out(this=-0.6)
    verdict = judge(desk.task, desk.rules)
    assert set(verdict.scores) == {"gate/base", f"gate/{desk.candidate.id}", f"shift-gate/{desk.candidate.id}", "report/drop-2"}
    assert all(len(file.sha256) == 64 and file.rows == (0 if key == "report/drop-2" else 90) for key, file in verdict.scores.items())
    assert (verdict.looks, verdict.incumbent, verdict.candidate, verdict.base.model) == (1, "base", desk.candidate.id, "base")
    assert verdict.conditions.settings == {"max_length": 64}


def test_a_worse_candidate_is_refused(desk):
    desk.lay_out(this=+0.4)
    verdict = judge(desk.task, desk.rules)
    assert verdict.word is VerdictWord.REFUSE
    assert "rises from 4.0" in verdict.sentence


def test_an_equal_candidate_is_held(desk):
    desk.lay_out(this=0.0)
    verdict = judge(desk.task, desk.rules)
    assert verdict.word is VerdictWord.HOLD
    assert "no proof that the candidate is better" in verdict.sentence


def test_shuffled_answers_are_held_although_the_loss_falls(desk):
    desk.lay_out(this=-0.6, shift=0.0)
    verdict = judge(desk.task, desk.rules)
    assert verdict.word is VerdictWord.HOLD
    assert leg(verdict, "this drop").passed
    assert "shuffled or shifted?" in verdict.sentence


def test_dev_and_gate_shift_files_are_one_proof(desk):
    desk.lay_out(this=-0.6)
    more = [row | {"line": int(str(row["line"])) + 1000, "group": f"dev-{row['group']}"} for row in desk.rows(this=40)]
    desk.lay_shift(f"shift-dev/{desk.candidate.id}", more, 0.8)
    assert leg(judge(desk.task, desk.rules), "coherence").comparison.rows == 130


def test_a_shift_file_may_lie_under_the_plain_key(desk):
    desk.lay_out(this=-0.6)
    path = desk.task.scores[f"shift-gate/{desk.candidate.id}"]
    scores = {key: value for key, value in desk.task.scores.items() if not key.startswith("shift")}
    desk.task = replace(desk.task, scores={**scores, f"shift/{desk.candidate.id}": path})
    assert judge(desk.task, desk.rules).word is VerdictWord.PROMOTE


def test_an_empty_shift_file_proves_nothing(desk):
    desk.lay_out(this=-0.6)
    desk.lay(f"shift-gate/{desk.candidate.id}", [])
    verdict = judge(desk.task, desk.rules)
    assert verdict.word is VerdictWord.HOLD
    assert leg(verdict, "coherence").result is LegResult.UNPROVEN


def test_the_shift_file_of_another_candidate_is_not_used(desk):
    desk.lay_out(this=-0.6, shift=0.0)
    desk.lay_shift("shift-gate/step_000010-cccccccccccc", desk.rows(this=90), 0.8)
    assert judge(desk.task, desk.rules).word is VerdictWord.HOLD


def test_forgetting_earlier_drops_is_refused(desk):
    desk.lay_out(this=-0.6, earlier=+0.3, rows=(90, 80))
    verdict = judge(desk.task, desk.rules)
    assert verdict.word is VerdictWord.REFUSE
    assert "on 80 held-out rows of earlier drops" in verdict.sentence
    assert "+0.02 is allowed" in verdict.sentence


def test_a_loss_within_the_margin_on_earlier_drops_is_allowed(desk):
    desk.lay_out(this=-0.6, earlier=+0.01, rows=(90, 80))
    assert judge(desk.task, replace(desk.rules, margin=0.05)).word is VerdictWord.PROMOTE


def test_no_proof_about_earlier_drops_holds(desk):
    desk.lay_out(this=-0.6, rows=(90, 80))
    noisy = [row | {"loss": (4.0 + (0.5 if i % 3 else -1.0)) * int(str(row["tokens"]))} for i, row in enumerate(desk.rows(this=90, earlier=80))]
    calm = [row | {"loss": 5.0 * int(str(row["tokens"]))} for row in desk.rows(this=90)] + [
        row | {"loss": 4.0 * int(str(row["tokens"]))} for row in desk.rows(this=90, earlier=80)[90:]
    ]
    desk.lay("gate/base", calm)
    desk.lay(f"gate/{desk.candidate.id}", noisy)
    verdict = judge(desk.task, desk.rules)
    assert verdict.word is VerdictWord.HOLD
    assert leg(verdict, "earlier drops").result is LegResult.UNPROVEN


def test_a_handful_of_earlier_conversations_proves_nothing_either_way(desk):
    desk.lay_out(this=-0.6, earlier=+2.0, rows=(90, 4))
    verdict = judge(desk.task, desk.rules)
    assert verdict.word is VerdictWord.HOLD
    assert "2 conversations are too few" in verdict.sentence


def test_tiny_evidence_is_held_and_says_what_to_do(desk):
    desk.lay_out(this=-0.6, rows=(18, 0))
    verdict = judge(desk.task, desk.rules)
    assert verdict.word is VerdictWord.HOLD
    assert "9 held-out conversations of this drop are too few to judge by, 30 are needed" in verdict.sentence
    assert "drop at least 200 rows" in verdict.sentence
    assert "`lorad jobs approve job-7 --reason …`" in verdict.sentence


def test_a_regression_is_not_proven_by_a_few_conversations(desk):
    desk.lay_out(this=+2.0, rows=(6, 0))
    assert judge(desk.task, desk.rules).word is VerdictWord.HOLD


def test_no_rows_of_this_drop_hold(desk):
    desk.lay_out(this=-0.6, rows=(0, 80))
    verdict = judge(desk.task, desk.rules)
    assert verdict.word is VerdictWord.HOLD
    assert "no held-out row of this drop" in verdict.sentence


@pytest.mark.parametrize("this", [-0.6, +0.6])
def test_made_up_scores_decide_nothing(desk, this):
    desk.task = replace(desk.task, backend="stub")
    desk.lay_out(this=this, backend="stub", made_up=True)
    verdict = judge(desk.task, desk.rules)
    assert verdict.word is VerdictWord.HOLD
    assert "made up by the stub" in verdict.sentence


def test_made_up_scores_are_promoted_where_config_allows_it_and_says_so(desk):
    desk.task = replace(desk.task, backend="stub")
    desk.lay_out(this=-0.6, backend="stub", made_up=True)
    verdict = judge(desk.task, replace(desk.rules, allow_stub=True))
    assert verdict.word is VerdictWord.PROMOTE
    assert verdict.made_up
    assert "made up by the stub" in verdict.sentence


def test_a_second_look_at_the_gate_split_stands_in_the_sentence(desk):
    desk.lay_out(this=-0.6)
    desk.task = replace(desk.task, looks=2)
    assert judge(desk.task, desk.rules).sentence.endswith("(look 2 at the gate split)")


def test_the_same_evidence_gives_the_same_verdict(desk):
    desk.lay_out(this=-0.2, earlier=0.0, rows=(90, 80))
    first = judge(desk.task, desk.rules)
    assert judge(desk.task, desk.rules) == first
    assert sentence(first) == first.sentence


def test_rows_for_is_the_smallest_drop_that_gives_enough_gate_groups():
    assert rows_for(30) == 200
    assert rows_for(50) == 500


@pytest.mark.parametrize(
    ("value", "text"), [(-0.791, "-0.79"), (0.0123, "+0.012"), (-0.00041, "-0.00041"), (0.0, "0.00"), (12.3456, "+12.35"), (1e-12, "+0.000000")]
)
def test_a_difference_shows_two_digits_that_say_something(value, text):
    assert signed(value) == text
