"""Quality: token accuracy, a task metric, pairs; what must be retained, the floor; and models on different bases."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zstandard

from core.records import VerdictWord
from core.tasks import RowsOf
from ranking.evidence import LegResult
from ranking.scores import EvidenceError
from ranking.verdict import judge

EARLIER, THIS = "drop-1", "drop-2"


def leg(verdict, name):
    return next(leg for leg in verdict.legs if leg.name == name)


def change_rows(path, change):
    head, *lines = path.read_text().splitlines()
    rows = [change(index, json.loads(line)) for index, line in enumerate(lines)]
    path.write_text("".join(line + "\n" for line in [head, *map(json.dumps, rows)]))


def lay_accuracy(desk, before, after, rows=(90, 80)):
    """Evidence of a better candidate, with these shares of right tokens on earlier drops' rows (of this drop's: half)."""
    desk.rules = replace(desk.rules, margin=0.05)
    desk.lay_out(this=-0.6, rows=rows)
    for model, share in (("base", before), (desk.candidate.id, after)):
        path = Path(desk.task.scores[f"gate/{model}"])
        change_rows(path, lambda _, row, share=share: row | {"correct": round(row["tokens"] * (share if row["drop"] == EARLIER else 0.5))})


def test_older_scores_tell_of_no_quality_and_are_judged_without(desk):
    desk.lay_out(this=-0.6, rows=(90, 80))
    verdict = judge(desk.task, replace(desk.rules, margin=0.05))
    assert verdict.word is VerdictWord.PROMOTE
    assert (leg(verdict, "retention").result, leg(verdict, "quality").result) == (LegResult.SKIPPED, LegResult.SKIPPED)


@pytest.mark.parametrize(("after", "word"), [(0.8, VerdictWord.PROMOTE), (0.77, VerdictWord.PROMOTE), (0.5, VerdictWord.REFUSE)])
def test_most_of_the_incumbents_quality_on_earlier_rows_is_retained(desk, after, word):
    lay_accuracy(desk, 0.8, after)
    verdict = judge(desk.task, desk.rules)
    assert verdict.word is word
    assert "of the incumbent's token accuracy is retained (95 % interval" in leg(verdict, "retention").reason


def test_less_than_is_asked_for_and_not_proven_is_held(desk):
    lay_accuracy(desk, 0.85, 0.74)
    path = Path(desk.task.scores[f"gate/{desk.candidate.id}"])
    change_rows(path, lambda index, row: row | {"correct": row["tokens"] if index % 4 < 3 else 0} if row["drop"] == EARLIER else row)
    found = leg(judge(desk.task, desk.rules), "retention")
    assert found.comparison.ratio.mean < 0.95 < found.comparison.ratio.high
    assert found.result is LegResult.UNPROVEN


@pytest.mark.parametrize(("floor", "word"), [(0.4, VerdictWord.PROMOTE), (0.9, VerdictWord.REFUSE)])
def test_a_floor_refuses_what_is_below_it(desk, floor, word):
    lay_accuracy(desk, 0.5, 0.5)
    verdict = judge(desk.task, replace(desk.rules, floor=floor))
    assert verdict.word is word
    assert f"{floor:g} asked for" in leg(verdict, "quality").reason or f"{floor:g} is asked for" in leg(verdict, "quality").reason


def test_a_floor_without_any_quality_is_held(desk):
    desk.lay_out(this=-0.6)
    assert judge(desk.task, replace(desk.rules, floor=0.4)).word is VerdictWord.HOLD


@pytest.mark.parametrize("change", [{"correct": 10**6}, {"correct": None}, {"correct": -3}, {"correct": "5"}])
def test_a_column_with_a_hole_is_missing_evidence(desk, change):
    lay_accuracy(desk, 0.5, 0.5)
    change_rows(Path(desk.task.scores["gate/base"]), lambda index, row: row | change if index == 7 else row)
    with pytest.raises(EvidenceError):
        judge(desk.task, desk.rules)


def test_a_column_that_one_model_alone_has_is_missing_evidence(desk):
    lay_accuracy(desk, 0.5, 0.5)
    change_rows(Path(desk.task.scores["gate/base"]), lambda _, row: {key: value for key, value in row.items() if key != "correct"})
    with pytest.raises(EvidenceError, match="only one of them says what is correct"):
        judge(desk.task, desk.rules)


# --- a task metric


def lay_answers(desk, before, after, rows=200):
    """A drop whose candidate has the incumbent's losses; `before` and `after` say which answers are right."""
    stubs = [row | {"line": index + 1, "group": f"g{index}", "tokens": 10} for index, row in enumerate(desk.rows(this=rows))]
    desk.lay_scores("gate/base", stubs, {THIS: 4.0})
    desk.lay_scores(f"gate/{desk.candidate.id}", stubs, {THIS: 4.0})
    desk.lay_shift(f"shift-gate/{desk.candidate.id}", stubs, 0.8)
    turns = [[{"role": "user", "content": f"What is {n} and 1?"}, {"role": "assistant", "content": f"{n + 1}"}] for n in range(rows)]
    raw = "".join(json.dumps({"messages": one}) + "\n" for one in turns).encode()
    folder = Path(desk.task.rows[0].folder)
    (folder / "rows.jsonl.zst").write_bytes(zstandard.compress(raw))
    (folder / "index.jsonl").write_text("".join(json.dumps({"line": n + 1, "group": f"g{n}", "split": "gate"}) + "\n" for n in range(rows)))
    desk.task = replace(desk.task, rows=(RowsOf(drop=THIS, sha256=hashlib.sha256(raw).hexdigest(), folder=str(folder), schema_id="chat_sft_v1"),))
    for model, right in (("base", before), (desk.candidate.id, after)):
        lines = [{"drop": THIS, "line": n + 1, "group": f"g{n}", "answer": f"{n + 1 if right[n] else 'no'}"} for n in range(rows)]
        desk.lay(f"answers/gate/{model}", lines)


def test_a_gain_in_the_task_metric_is_a_gain_where_the_loss_shows_none(desk):
    rng = np.random.default_rng(0)
    before = rng.random(200) < 0.5
    after = before.copy()
    after[np.flatnonzero(~before)[:25]] = True
    after[np.flatnonzero(before)[:5]] = False
    lay_answers(desk, before, after)
    assert judge(desk.task, desk.rules).word is VerdictWord.HOLD, "by the loss alone there is no proof"
    verdict = judge(desk.task, replace(desk.rules, metric="exact_match"))
    assert verdict.word is VerdictWord.PROMOTE, verdict.sentence
    assert leg(verdict, "this drop").comparison.measure == "exact_match"
    assert leg(verdict, "this drop").comparison.p < 0.01
    assert f"answers/gate/{desk.candidate.id}" in verdict.scores
    path = Path(desk.task.scores["answers/gate/base"])
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(EvidenceError, match="did not answer the same rows"):
        judge(desk.task, replace(desk.rules, metric="exact_match"))
    path.unlink()
    with pytest.raises(EvidenceError, match="answers/gate/base"):
        judge(desk.task, replace(desk.rules, metric="exact_match"))


def test_a_loss_that_falls_and_a_metric_that_falls_too_disagree(desk):
    before, after = np.arange(200) % 2 == 0, np.arange(200) % 4 == 0
    lay_answers(desk, before, after)
    change_rows(Path(desk.task.scores[f"gate/{desk.candidate.id}"]), lambda _, row: row | {"loss": row["loss"] - 5})
    verdict = judge(desk.task, replace(desk.rules, metric="exact_match"))
    assert (verdict.word, leg(verdict, "this drop").result) == (VerdictWord.HOLD, LegResult.UNPROVEN)
    assert "they disagree" in verdict.sentence


def test_a_metric_that_nobody_knows_holds(desk):
    lay_answers(desk, [True] * 200, [True] * 200)
    with pytest.raises(EvidenceError, match="unknown metric"):
        judge(desk.task, replace(desk.rules, metric="no-such-metric"))


# --- rules, noise, looks, pairs, bases


def test_better_by_its_mean_is_enough_where_config_asks_only_that_nothing_is_lost(desk):
    desk.lay_out(this=0.0)
    losses = [json.loads(line)["loss"] for line in Path(desk.task.scores["gate/base"]).read_text().splitlines()[1:]]
    path = Path(desk.task.scores[f"gate/{desk.candidate.id}"])
    change_rows(path, lambda index, row: row | {"loss": losses[index] + row["tokens"] * (-0.004 + (0.04 if index // 2 % 2 else -0.04))})
    assert judge(desk.task, desk.rules).word is VerdictWord.HOLD
    verdict = judge(desk.task, replace(desk.rules, rule="retained"))
    assert verdict.word is VerdictWord.PROMOTE
    assert "better by its mean and not worse, which is the rule" in verdict.sentence
    assert judge(desk.task, replace(desk.rules, rule="retained", margin=0.001)).word is VerdictWord.HOLD


def test_what_the_incumbent_differs_from_itself_is_no_gain(desk):
    desk.lay_out(this=-0.1)
    assert judge(desk.task, desk.rules).word is VerdictWord.PROMOTE
    _, *rows = map(json.loads, Path(desk.task.scores["gate/base"]).read_text().splitlines())
    path = desk.lay("noise-gate/base", [row | {"loss": row["loss"] + 0.2 * row["tokens"]} for row in rows], split="gate")
    verdict = judge(desk.task, desk.rules)
    assert verdict.word is VerdictWord.HOLD
    assert leg(verdict, "this drop").comparison.noise == pytest.approx(0.2)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(EvidenceError, match="noise"):
        judge(desk.task, desk.rules)


def test_a_second_candidate_at_the_gate_makes_proof_harder(desk):
    desk.lay_out(this=-0.6)
    alone = leg(judge(desk.task, desk.rules), "this drop").comparison.p
    rival = replace(desk.candidate, step=10, sha256="e" * 64)
    desk.lay_scores(f"gate/{rival.id}", desk.rows(this=90), {THIS: 3.4})
    desk.task = replace(desk.task, candidates=(desk.candidate, rival))
    assert leg(judge(desk.task, desk.rules), "this drop").comparison.p == pytest.approx(2 * alone)


def lay_pairs(desk, right, chosen):
    desk.lay_out(this=0.0)
    for model in ("base", desk.candidate.id):
        told = {"right": 0.5, "chosen": 20.0} if model == "base" else {"right": right, "chosen": chosen}
        change_rows(Path(desk.task.scores[f"gate/{model}"]), lambda _, row, told=told: row | told)


def test_pairs_are_judged_by_how_often_they_are_told_apart(desk):
    lay_pairs(desk, 1.0, 20.0)
    verdict = judge(desk.task, desk.rules)
    assert verdict.word is VerdictWord.PROMOTE, verdict.sentence
    assert leg(verdict, "this drop").comparison.measure == "pair accuracy"


def test_good_answers_that_become_unlikely_are_for_a_person(desk):
    lay_pairs(desk, 1.0, 60.0)
    verdict = judge(desk.task, desk.rules)
    assert verdict.word is VerdictWord.HOLD
    assert "unlearns good answers" in verdict.sentence


def test_models_on_different_bases_are_compared_by_bits_per_byte(desk):
    lay_answers(desk, [True] * 200, [True] * 200)
    change_rows(Path(desk.task.scores["gate/base"]), lambda _, row: row | {"tokens": 7, "loss": row["loss"] + 9, "correct": 3})
    head = Path(desk.task.scores["gate/base"])
    head.write_text(head.read_text().replace("b" * 64, "c" * 64))
    change_rows(Path(desk.task.scores[f"gate/{desk.candidate.id}"]), lambda _, row: row | {"correct": 9})
    verdict = judge(desk.task, desk.rules)
    found = leg(verdict, "this drop").comparison
    assert (found.measure, verdict.word) == ("bits per byte", VerdictWord.PROMOTE)
    sizes = sum(len(str(n + 1)) for n in range(200))
    assert found.difference.mean == pytest.approx(-9 * 200 / np.log(2) / sizes, rel=0.1)
    assert leg(judge(desk.task, replace(desk.rules, floor=0.1)), "quality").result is LegResult.UNPROVEN, "token accuracy is not comparable"
