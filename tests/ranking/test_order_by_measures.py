"""How candidates are ordered where the loss alone cannot tell them apart."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from core.records import Candidate
from ranking.order import order
from ranking.scores import EvidenceError

STEPS = (10, 20, 30)


def lay_three(desk, levels):
    candidates = tuple(Candidate(step=step, path=f"x/{step}", sha256=str(step)[0] * 64) for step in STEPS)
    rows = desk.rows(this=60)
    desk.lay_scores("dev/base", rows, {"drop-2": 4.0})
    for candidate, level in zip(candidates, levels, strict=True):
        desk.lay(f"dev/{candidate.id}", [row | {"loss": level * row["tokens"] + (0.3 if index % 2 else -0.3)} for index, row in enumerate(rows)])
    desk.task = replace(desk.task, purpose="order", candidates=candidates, best=None)
    return candidates


def told(desk, model, **values):
    path = Path(desk.task.scores[f"dev/{model}"])
    head, *lines = path.read_text().splitlines()
    path.write_text("".join(line + "\n" for line in [head, *(json.dumps(json.loads(line) | values) for line in lines)]))


def steps(found):
    return [place.step for place in found.places]


def test_suites_decide_between_candidates_that_the_loss_cannot_tell_apart(desk):
    first, second, third = lay_three(desk, (3.5, 3.5, 3.9))
    for candidate, share in ((first, 0.5), (second, 0.8), (third, 1.0)):
        desk.lay_suite("json", candidate.id, [share] * 50, generated=False)
    found = order(desk.task, desk.rules)
    assert steps(found) == [20, 10, 30], "the third is worse by its loss: no suite helps it"
    assert [place.tie_group for place in found.places] == [1, 1, 2]
    assert [place.measures["suites"] for place in found.places] == pytest.approx([0.8, 0.5, 1.0])
    assert f"suite/json/{second.id}" in found.scores


def test_a_suite_that_not_all_were_scored_on_decides_nothing(desk):
    first, *_ = lay_three(desk, (3.5, 3.5, 3.9))
    desk.lay_suite("json", first.id, [0.1] * 50, generated=False)
    assert steps(order(desk.task, desk.rules)) == [10, 20, 30]


def test_pairs_are_ordered_by_how_often_they_are_told_apart_then_by_the_chosen_answers_loss(desk):
    candidates = lay_three(desk, (3.1, 3.5, 3.5))
    for candidate, right, chosen in zip(candidates, (0.0, 1.0, 1.0), (20.0, 40.0, 30.0), strict=True):
        told(desk, candidate.id, right=right, chosen=chosen)
    told(desk, "base", right=0.5, chosen=20.0)
    found = order(desk.task, desk.rules)
    assert steps(found) == [30, 20, 10]
    assert found.measure == "pair accuracy"


def test_a_damaged_suite_of_a_candidate_is_missing_evidence(desk):
    candidates = lay_three(desk, (3.5, 3.5, 3.9))
    paths = [desk.lay_suite("json", candidate.id, [0.5] * 50) for candidate in candidates]
    paths[1].write_text("{")
    with pytest.raises(EvidenceError, match="json"):
        order(desk.task, desk.rules)
