"""Which training rows lie nearest to an answer or a question, by meaning where a model is here, else by words."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import zstandard
from numpy.typing import NDArray

import cli.nearest
from cli.nearest import Asked, nearest
from core.errors import LoradError
from core.tasks import RowsOf

PAIRS = [("What do cats drink?", "Milk, and water from a glass."), ("Who builds ships?", "A shipwright builds ships."), ("Where is Rome?", "In Italy.")]


def drop(folder: Path, pairs: Sequence[tuple[str, str]], splits: Sequence[str], name: str = "drop-1") -> RowsOf:
    """An accepted drop of these rows, each with the split it is given."""
    rows = [
        {"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}], "metadata": {"source": f"p{n}"}} for n, (q, a) in enumerate(pairs)
    ]
    raw = "".join(json.dumps(row) + "\n" for row in rows).encode()
    folder.mkdir()
    (folder / "rows.jsonl.zst").write_bytes(zstandard.ZstdCompressor().compress(raw))
    index = [{"line": line, "group": f"{name}-{line}", "split": split} for line, split in enumerate(splits, 1)]
    (folder / "index.jsonl").write_text("".join(json.dumps(row) + "\n" for row in index))
    return RowsOf(drop=name, sha256=hashlib.sha256(raw).hexdigest(), folder=str(folder), schema_id="chat_sft_v1")


def test_words_find_the_row_where_no_model_is_here(tmp_path: Path) -> None:
    found = nearest([drop(tmp_path / "d", PAIRS, ["train"] * 3)], Asked(answer="shipwright, who else"), None, 2)
    assert (found.how, found.turns, found.note) == ("words", 3, "no sentence model is here")
    assert (found.rows[0].line, found.rows[0].answer, found.rows[0].metadata) == (2, "A shipwright builds ships.", {"source": "p1"})
    assert found.rows[0].nearness > found.rows[1].nearness == 0


def test_a_question_is_compared_with_questions(tmp_path: Path) -> None:
    pairs = [("Where is Rome?", "Far."), ("Where to?", "Where is Rome? I ask.")]
    sources = [drop(tmp_path / "d", pairs, ["train", "train"])]
    assert nearest(sources, Asked(question="Where is Rome?"), None, 1).rows[0].line == 1
    assert nearest(sources, Asked(answer="Where is Rome? I ask."), None, 1).rows[0].line == 2


def test_rows_that_were_held_out_taught_nothing(tmp_path: Path) -> None:
    found = nearest([drop(tmp_path / "d", PAIRS, ["train", "gate", "dev"])], Asked(answer="A shipwright builds ships."), None, 5)
    assert [row.line for row in found.rows] == [1]


def test_a_row_that_a_later_drop_corrected_is_left_out(tmp_path: Path) -> None:
    first, second = drop(tmp_path / "a", PAIRS[:1], ["train"]), drop(tmp_path / "b", [(PAIRS[0][0], "Only water.")], ["train"])
    found = nearest([first, RowsOf(drop="drop-2", sha256=second.sha256, folder=second.folder, schema_id=second.schema_id)], Asked(answer="Milk"), None, 5)
    assert [(row.drop, row.answer) for row in found.rows] == [("drop-2", "Only water.")]


def test_meaning_decides_where_a_model_is_here(tmp_path: Path) -> None:
    def embed(texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors: what is about ships, and what is not."""
        return np.array([[1.0, 0.0] if "ship" in text or "boat" in text else [0.0, 1.0] for text in texts], dtype=np.float32)

    sources = [drop(tmp_path / "d", PAIRS, ["train"] * 3)]
    found = nearest(sources, Asked(answer="boat", question="Where is Rome?"), embed, 3)
    assert found.how == "meaning"
    assert {(row.line, row.nearness) for row in found.rows} == {(1, 0.5), (2, 0.5), (3, 0.5)}, "the mean of answer and question"
    assert nearest(sources, Asked(answer="boat"), embed, 1).rows[0].line == 2


def test_a_model_that_fails_leaves_it_to_the_words_and_says_so(tmp_path: Path) -> None:
    def embed(texts: Sequence[str]) -> NDArray[np.float32]:
        raise LoradError("the sentence model failed", hint="pull it again", code="EMBEDDER_FAILED")

    found = nearest([drop(tmp_path / "d", PAIRS, ["train"] * 3)], Asked(answer="shipwright"), embed, 1)
    assert (found.how, found.note, found.rows[0].line) == ("words", "the sentence model failed; pull it again", 2)


def test_of_many_rows_those_with_the_most_words_in_common_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli.nearest, "MOST_EMBEDDED", 2)
    asked: list[str] = []

    def embed(texts: Sequence[str]) -> NDArray[np.float32]:
        asked.extend(texts)
        return np.ones((len(texts), 1), dtype=np.float32)

    found = nearest([drop(tmp_path / "d", PAIRS, ["train"] * 3)], Asked(answer="in a ship"), embed, 5)
    assert (found.compared, found.turns, len(found.rows)) == (2, 3, 2)
    assert "A shipwright builds ships." in asked
    assert len(asked) == 3


def test_each_answer_of_a_talk_is_compared_and_its_row_named_once(tmp_path: Path) -> None:
    source = drop(tmp_path / "d", PAIRS, ["train"] * 3)
    rows = [{"messages": [{"role": role, "content": text} for role, text in (("user", "a?"), ("assistant", "red"), ("user", "b?"), ("assistant", "red blue"))]}]
    raw = (json.dumps(rows[0]) + "\n").encode()
    Path(source.folder, "rows.jsonl.zst").write_bytes(zstandard.ZstdCompressor().compress(raw))
    Path(source.folder, "index.jsonl").write_text(json.dumps({"line": 1, "group": "g", "split": "train"}) + "\n")
    talk = RowsOf(drop="drop-1", sha256=hashlib.sha256(raw).hexdigest(), folder=source.folder, schema_id="chat_sft_v1")
    found = nearest([talk], Asked(answer="blue"), None, 5)
    assert (found.turns, [(row.question, row.answer) for row in found.rows]) == (2, [("b?", "red blue")])


def test_nothing_to_compare_with_is_no_fault(tmp_path: Path) -> None:
    found = nearest([drop(tmp_path / "d", PAIRS, ["dev"] * 3)], Asked(answer="x"), lambda texts: np.zeros((0, 0), dtype=np.float32), 5)
    assert (found.rows, found.turns) == ((), 0)
