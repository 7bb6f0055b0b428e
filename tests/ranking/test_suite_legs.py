"""What regression suites do to a verdict."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from core.records import VerdictWord
from ranking.evidence import LegResult
from ranking.scores import EvidenceError
from ranking.verdict import judge

LIVE = "release-1"
RIGHT = [1.0] * 100 + [0.0] * 100  # 200 items


@pytest.fixture(autouse=True)
def a_release_is_live(desk):
    desk.task = replace(desk.task, incumbent=LIVE)


def leg(verdict, name):
    return next(leg for leg in verdict.legs if leg.name == name)


def lay(desk, name, before, after, **more):
    desk.lay_suite(name, desk.task.incumbent, before, **more)
    desk.lay_suite(name, desk.candidate.id, after, **more)


def lost(count, values=RIGHT):
    return [0.0] * count + values[count:]


def test_a_suite_that_stays_as_it_was_lets_a_better_candidate_pass(desk):
    desk.lay_out(this=-0.6)
    lay(desk, "arithmetic", RIGHT, RIGHT)
    verdict = judge(desk.task, desk.rules)
    assert verdict.word is VerdictWord.PROMOTE
    assert "suite arithmetic goes from 50.0% to 50.0% on 200 items" in verdict.sentence
    assert {f"suite/arithmetic/{LIVE}", f"suite/arithmetic/{desk.candidate.id}"} <= verdict.scores.keys()


def test_a_regression_of_five_points_in_one_suite_of_several_is_refused(desk):
    desk.lay_out(this=-0.6)
    for name in "abcdef":
        lay(desk, name, RIGHT, RIGHT)
    lay(desk, "json", RIGHT, lost(10))
    verdict = judge(desk.task, desk.rules)
    assert verdict.word is VerdictWord.REFUSE
    assert verdict.sentence.startswith("Refuse: suite json goes from 50.0% to 45.0% on 200 items (-5.00 points")


def test_on_a_suite_that_is_not_critical_a_regression_is_for_a_person(desk):
    desk.lay_out(this=-0.6)
    lay(desk, "json", RIGHT, lost(10))
    verdict = judge(desk.task, replace(desk.rules, critical_suites=("arithmetic",)))
    assert (verdict.word, leg(verdict, "suite json").result) == (VerdictWord.HOLD, LegResult.UNPROVEN)
    assert judge(desk.task, replace(desk.rules, critical_suites=("json",))).word is VerdictWord.REFUSE


def test_a_suite_may_have_a_margin_of_its_own(desk):
    desk.lay_out(this=-0.6)
    lay(desk, "json", RIGHT, lost(10))
    assert judge(desk.task, replace(desk.rules, suite_margins={"json": 0.1})).word is VerdictWord.PROMOTE


def test_a_small_suite_of_written_answers_only_warns(desk):
    desk.lay_out(this=-0.6)
    lay(desk, "mine", [1.0] * 50, lost(20, [1.0] * 50))
    verdict = judge(desk.task, desk.rules)
    assert verdict.word is VerdictWord.PROMOTE
    assert leg(verdict, "suite mine").result is LegResult.WARNED
    assert "fewer than 200 items only warn" in verdict.sentence


def test_a_small_suite_that_is_scored_by_likelihood_refuses(desk):
    desk.lay_out(this=-0.6)
    lay(desk, "mine", [0.8] * 50, [0.7, 0.6] * 25, generated=False)
    assert judge(desk.task, desk.rules).word is VerdictWord.REFUSE


def test_worse_by_its_mean_and_not_proven_is_held(desk):
    desk.lay_out(this=-0.6)
    after = lost(16, RIGHT)
    after[100:110] = [1.0] * 10  # 16 lost, 10 won
    lay(desk, "json", RIGHT, after)
    verdict = judge(desk.task, desk.rules)
    assert (verdict.word, leg(verdict, "suite json").result) == (VerdictWord.HOLD, LegResult.UNPROVEN)


def test_what_no_single_suite_can_prove_all_together_must(desk):
    desk.lay_out(this=-0.6)
    rng = np.random.default_rng(0)
    for name in "abcdefgh":
        before = rng.integers(0, 2, 200).astype(float)
        after, flipped = before.copy(), rng.permutation(200)[:10]
        after[flipped[:5]], after[flipped[5:]] = 1.0, 0.0
        lay(desk, name, before.tolist(), after.tolist())
    verdict = judge(desk.task, desk.rules)
    assert {leg.result for leg in verdict.legs if leg.name.startswith("suite ")} <= {LegResult.WARNED, LegResult.PASSED}
    assert leg(verdict, "suites together").result is LegResult.PASSED
    assert verdict.word is VerdictWord.PROMOTE
    alone = {key: path for key, path in desk.task.scores.items() if not key.startswith("suite") or key.startswith("suite/a/")}
    assert judge(replace(desk.task, scores=alone), desk.rules).word is VerdictWord.HOLD, "one suite of 200 items cannot prove it"


@pytest.mark.parametrize(("outcome", "word"), [("worse", VerdictWord.REFUSE), ("not worse", VerdictWord.PROMOTE)])
def test_a_suite_that_stopped_early_counts_by_its_sequential_test(desk, outcome, word):
    desk.lay_out(this=-0.6)
    desk.lay_suite("json", LIVE, RIGHT)
    desk.lay_suite("json", desk.candidate.id, [0.0] * 40, items=200, stopping={"against": LIVE, "outcome": outcome})
    assert judge(desk.task, desk.rules).word is word


DAMAGES = {
    "gone": lambda path: path.unlink(),
    "torn": lambda path: path.write_bytes(path.read_bytes()[:-5]),
    "an item less": lambda path: path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1])),
    "an item twice": lambda path: path.write_text(path.read_text().replace('"item-3"', '"item-4"')),
    "another item": lambda path: path.write_text(path.read_text().replace('"item-3"', '"item-x"')),
    "another suite": lambda path: path.write_text(path.read_text().replace("5" * 64, "6" * 64)),
    "a value of 2": lambda path: path.write_text(path.read_text().replace('"value": 1.0', '"value": 2.0')),
    "NaN": lambda path: path.write_text(path.read_text().replace('"value": 1.0', '"value": NaN')),
    "other settings": lambda path: path.write_text(path.read_text().replace('"settings": {}', '"settings": {"seed": 1}')),
    "stopped against another": lambda path: path.write_text(
        path.read_text().replace('"items": 200', '"items": 400').replace('{"header"', '{"stopping": {"against": "x", "outcome": "not worse"}, "header"')
    ),
    "no header": lambda path: path.write_text("".join(path.read_text().splitlines(keepends=True)[1:])),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("which", [LIVE, "candidate"])
def test_damaged_suite_results_are_missing_evidence(desk, which, damage):
    desk.lay_out(this=-0.6)
    lay(desk, "json", RIGHT, RIGHT)
    DAMAGES[damage](Path(desk.task.scores[f"suite/json/{LIVE if which == LIVE else desk.candidate.id}"]))
    with pytest.raises(EvidenceError, match="json"):
        judge(desk.task, desk.rules)


def test_a_suite_that_one_model_alone_was_scored_on_is_missing_evidence(desk):
    desk.lay_out(this=-0.6)
    desk.lay_suite("json", LIVE, RIGHT)
    with pytest.raises(EvidenceError, match="suite/json"):
        judge(desk.task, desk.rules)


def test_a_suite_that_config_names_and_nobody_scored_is_missing_evidence(desk):
    desk.lay_out(this=-0.6)
    with pytest.raises(EvidenceError, match=f"suite/mine/{LIVE}"):
        judge(desk.task, replace(desk.rules, suites=("auto", "mine")))


def test_a_first_release_is_compared_with_the_base_and_only_warned_of_what_it_gives_up(desk):
    desk.task = replace(desk.task, incumbent="base")
    desk.lay_out(this=-0.6)
    lay(desk, "json", RIGHT, lost(60))
    verdict = judge(desk.task, desk.rules)
    assert verdict.word is VerdictWord.PROMOTE
    told = leg(verdict, "suite json")
    assert (told.result, "only warned of" in told.reason) == (LegResult.WARNED, True)
    assert judge(desk.task, replace(desk.rules, critical_suites=("json",))).word is VerdictWord.REFUSE
