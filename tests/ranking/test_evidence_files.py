"""Score files with a hole in them are no evidence."""

import json
from pathlib import Path

import pytest

from ranking.order import order
from ranking.scores import EvidenceError
from ranking.verdict import judge


def edit(path: Path, number: int, change) -> None:
    lines = path.read_text().splitlines(keepends=True)
    lines[number] = change(lines[number])
    path.write_text("".join(lines))


def with_value(**values: object):
    return lambda line: json.dumps(json.loads(line) | values) + "\n"


DAMAGES = {
    "torn": lambda path: path.write_bytes(path.read_bytes()[:-9]),
    "cut at a line's end": lambda path: edit(path, -1, lambda line: ""),
    "empty": lambda path: path.write_bytes(b""),
    "no rows": lambda path: path.write_text(path.read_text().splitlines()[0] + "\n"),
    "gone": lambda path: path.unlink(),
    "a directory": lambda path: (path.unlink(), path.mkdir()),
    "no header": lambda path: edit(path, 0, lambda line: ""),
    "NaN": lambda path: edit(path, 3, with_value(loss=float("nan"))),
    "infinite": lambda path: edit(path, 3, lambda line: line.replace('"loss": ', '"loss": 1e999, "was": ')),
    "too large an integer": lambda path: edit(path, 3, lambda line: line.replace('"loss": ', '"loss": 1' + "0" * 400 + ', "was": ')),
    "negative": lambda path: edit(path, 3, with_value(loss=-1.0)),
    "loss as text": lambda path: edit(path, 3, with_value(loss="3.0")),
    "no loss": lambda path: edit(path, 3, lambda line: line.replace('"loss"', '"lost"')),
    "no tokens": lambda path: edit(path, 3, with_value(tokens=0)),
    "not JSON": lambda path: edit(path, 3, lambda line: "{]\n"),
    "not an object": lambda path: edit(path, 3, lambda line: "[]\n"),
    "an extra row": lambda path: edit(path, -1, lambda line: line + with_value(line=9999)(line)),
    "a row twice": lambda path: edit(path, -1, lambda line: line + line),
    "another group": lambda path: edit(path, 3, with_value(group="other")),
    "other tokens": lambda path: edit(path, 3, with_value(tokens=7777)),
    "another base": lambda path: edit(path, 0, with_value(base_sha256="c" * 64)),
    "other settings": lambda path: edit(path, 0, with_value(settings={"max_length": 128})),
    "another backend": lambda path: edit(path, 0, with_value(backend="stub")),
    "another model": lambda path: edit(path, 0, with_value(model="base2")),
    "another split": lambda path: edit(path, 0, with_value(split="dev")),
    "made up beside measured": lambda path: edit(path, 0, with_value(made_up=True)),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("which", ["base", "candidate"])
def test_a_damaged_score_file_is_missing_evidence(desk, which, damage):
    desk.lay_out(this=-0.5)
    key = "gate/base" if which == "base" else f"gate/{desk.candidate.id}"
    DAMAGES[damage](Path(desk.task.scores[key]))
    with pytest.raises(EvidenceError) as caught:
        judge(desk.task, desk.rules)
    assert caught.value.code == "EVIDENCE_MISSING"
    assert caught.value.hint


@pytest.mark.parametrize("damage", ["torn", "NaN", "gone", "no header", "other settings"])
def test_a_damaged_shift_file_is_missing_evidence(desk, damage):
    desk.lay_out(this=-0.5)
    path = Path(desk.task.scores[f"shift-gate/{desk.candidate.id}"])
    path.write_text(path.read_text().replace('"loss_own"', '"loss"')) if damage == "NaN" else DAMAGES[damage](path)
    with pytest.raises(EvidenceError):
        judge(desk.task, desk.rules)


def test_all_files_of_another_backend_than_the_job_are_missing_evidence(desk):
    desk.lay_out(this=-0.5, backend="other")
    with pytest.raises(EvidenceError, match="'other'"):
        judge(desk.task, desk.rules)


def test_a_model_that_nobody_scored_is_missing_evidence(desk):
    with pytest.raises(EvidenceError, match="gate/base"):
        judge(desk.task, desk.rules)


def test_rows_in_another_order_are_the_same_evidence(desk):
    desk.lay_out(this=-0.5)
    there = judge(desk.task, desk.rules)
    path = Path(desk.task.scores["gate/base"])
    head, *rows = path.read_text().splitlines(keepends=True)
    path.write_text(head + "".join(reversed(rows)))
    back = judge(desk.task, desk.rules)
    assert back.legs[0].comparison.difference.mean == pytest.approx(there.legs[0].comparison.difference.mean)


def test_the_order_needs_every_candidate(desk):
    rows = desk.rows(this=20)
    desk.lay_scores("dev/base", rows, {"drop-2": 4.0})
    with pytest.raises(EvidenceError, match=desk.candidate.id):
        order(desk.task, desk.rules)


def test_a_drop_too_small_to_hold_rows_back_is_told_so(desk):
    desk.lay("dev/base", [])
    desk.lay(f"dev/{desk.candidate.id}", [])
    with pytest.raises(EvidenceError, match="none in its dev split") as caught:
        order(desk.task, desk.rules)
    assert "200 conversations" in caught.value.hint


def test_the_message_names_no_path_of_this_box(desk, tmp_path):
    desk.lay_out(this=-0.5)
    for damage in ("torn", "gone"):
        DAMAGES[damage](Path(desk.task.scores["gate/base"]))
        with pytest.raises(EvidenceError) as caught:
            judge(desk.task, desk.rules)
        assert str(tmp_path) not in str(caught.value)
