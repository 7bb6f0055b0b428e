"""Rows that are plain conversations are looked at many at a time, and nothing comes out that looking at each would not find."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from gate_cases import chat
from hypothesis import given, settings
from hypothesis import strategies as st

from rendering.specs import SPECS
from validation import DataValidator
from validation.checks import cuts
from validation.examination import Examined, Setting
from validation.folding import folded, folded_all
from validation.plainrows import PlainReader, PlainRows

REAL = Path(__file__).parents[1] / "data" / "real"
SPEC = SPECS["chat_sft_v1"]
PIECES = ["N/A", "TODO", "Lorem ipsum", "Well done.", "and so the", "A sentence of a few more words, which ends.", "Wait...", "```", "É", "\u00a0", " ", "  "]
PIECES += [
    "\x1e",
    "\x1c",
    "\0",
    "ß",
    "\ufffd",
    "Ã©",
    "### Response:",
    "User: hi",
    "<repo_name>",
    "日本語の文章です。これは試験の文です。",
    "{",
    "(see above)",
    "\n",
    "7",
]
TEXTS = st.lists(st.sampled_from(PIECES), min_size=1, max_size=4).map("".join)


def lines(rows: Sequence[object]) -> bytes:
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


def examined(path: Path) -> Examined:
    return DataValidator(setting=Setting(keep_rows=True)).examine(path, SPEC.id, "standard")


def one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PlainReader, "read", lambda reader, block, first_line: None)


def same(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    together = examined(path)
    with monkeypatch.context() as patch:
        one_by_one(patch)
        alone = examined(path)
    assert together.report.findings == alone.report.findings
    assert dict(together.report.stats) == dict(alone.report.stats)
    assert (together.rows, together.error_rows) == (alone.rows, alone.error_rows)
    assert together.surveyed is not None
    assert alone.surveyed is not None
    assert together.surveyed.sheet.to_plain() == alone.surveyed.sheet.to_plain()


@pytest.mark.parametrize("name", ["gsm8k_train_chat", "oasst_chat", "sgd_chat"])
def test_real_rows_are_judged_as_each_by_itself(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [json.loads(line) for line in (REAL / f"{name}.jsonl").read_bytes().split(b"\n") if line]
    path.write_bytes(lines([{"messages": row["messages"]} for row in rows]))
    same(path, monkeypatch)


def test_odd_rows_among_plain_ones_are_judged_as_each_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows.jsonl"
    rows: list[object] = [chat(f"Question {number} of the list, please? ", f"{PIECES[number % len(PIECES)]} {number}") for number in range(900)]
    rows[300] = {"messages": [{"role": "user", "content": "A"}, {"role": "assistant", "content": "B", "weight": 0}], "metadata": {"source": "x"}}
    path.write_bytes(lines(rows[:500]) + b"\n{broken\n" + lines(rows[500:]).replace(b"\n", b"\r\n", 3))
    same(path, monkeypatch)


def read(rows: Sequence[object], first_line: int = 1) -> PlainRows | None:
    return PlainReader(SPEC, 1 << 20).read(lines(rows), first_line)


def test_plain_rows_keep_their_texts_sizes_and_lines() -> None:
    long = chat("Why? " * 400, "So. " * 400)
    said = [{"role": "user", "content": "Why? " * 400}, {"role": "assistant", "content": "So. " * 400}]
    with_system = {"messages": [{"role": "system", "content": "S"}, *said]}
    found = read([long, with_system], 7)
    assert found is not None
    assert found.sizes == [2, 3]
    assert list(found.lines) == [7, 8]
    assert found.rows[1] == ["S", "Why? " * 400, "So. " * 400]
    assert found.places([0, 1, 4]) == [0, 1]
    later = read([chat("Why? " * 800, "So. " * 800)], 9)
    assert later is not None
    joined = PlainRows.joined([found, later])
    assert (joined.sizes, joined.lines, len(joined.texts)) == ([2, 3, 2], range(7, 10), 7)


@pytest.mark.parametrize(
    "other",
    [
        {"messages": [{"role": "user", "content": "A"}, {"role": "assistant", "content": ""}]},
        {"messages": [{"role": "user", "content": "A"}]},
        {"messages": [{"role": "assistant", "content": "A"}, {"role": "user", "content": "B"}]},
        {"messages": [{"role": "user", "content": "A"}, {"role": "assistant", "content": "B", "weight": 0}]},
        {"messages": [{"role": "user", "content": "A"}, {"role": "assistant", "content": "B"}], "metadata": {}},
        ["no row"],
    ],
)
def test_one_other_row_makes_a_block_other(other: object) -> None:
    assert read([chat("Why? " * 800, "So. " * 800)]) is not None
    assert read([chat("Why? " * 800, "So. " * 800), other]) is None


@given(st.lists(TEXTS, max_size=8))
@settings(max_examples=300, deadline=None)
def test_texts_fold_together_as_each_by_itself(texts: list[str]) -> None:
    assert folded_all(texts) == [folded(text) for text in texts]


@given(st.lists(TEXTS, min_size=2, max_size=7))
@settings(max_examples=500, deadline=None)
def test_how_answers_end_is_the_same_by_the_quick_look(texts: list[str]) -> None:
    answers = texts[1 + len(texts) % 2 :: 2]
    assert cuts._plain_shape(texts) == cuts._shape(answers, lambda: "\n".join(texts[:-1]))
