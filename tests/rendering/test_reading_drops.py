"""Rows of accepted drops: their lines, groups and splits, and what a later drop supersedes."""

import hashlib
import json
from pathlib import Path

import pytest
import zstandard

from core.errors import IntegrityError
from core.tasks import RowsOf
from rendering.rows import INDEX, ROWS, conversation_key, read_rows
from rendering.specs import Message

Index = list[tuple[int, str, str]]


def accept(folder: Path, name: str, content: bytes, index: Index, schema_id: str = "completion_v1") -> RowsOf:
    drop = folder / name
    drop.mkdir()
    (drop / ROWS).write_bytes(zstandard.compress(content))
    (drop / INDEX).write_text("".join(json.dumps({"line": line, "group": group, "split": split}) + "\n" for line, group, split in index))
    return RowsOf(drop=name, sha256=hashlib.sha256(content).hexdigest(), folder=str(drop), schema_id=schema_id)


def completion(prompt: str, answer: str) -> str:
    return json.dumps({"prompt": prompt, "completion": answer}, ensure_ascii=False)


def test_lines_are_physical_and_split_at_newlines_only(tmp_path: Path) -> None:
    tricky = completion("one\u2028line\x85 still", "a")
    content = f"\ufeff{tricky}\r\n\n{completion('two', 'b')}".encode()
    rows = read_rows([accept(tmp_path, "d1", content, [(1, "g1", "train"), (3, "g2", "dev")])])
    assert [(row.line, row.group, row.split, row.messages[0].content) for row in rows] == [
        (1, "g1", "train", "one\u2028line\x85 still"),
        (3, "g2", "dev", "two"),
    ]


def test_a_correction_in_a_later_drop_supersedes_the_rows_of_its_group(tmp_path: Path) -> None:
    first = accept(tmp_path, "d1", "\n".join(completion(*pair) for pair in [("a", "wrong"), ("b", "old"), ("a", "wrong too")]).encode(), [
        (1, "ga", "train"), (2, "gb", "gate"), (3, "ga", "train")
    ])  # fmt: skip
    second = accept(tmp_path, "d2", completion("A", "right").encode(), [(1, "ga", "train")])
    assert [(row.drop, row.line, row.messages[1].content) for row in read_rows([first, second])] == [("d1", 2, "old"), ("d2", 1, "right")]
    assert len(read_rows([first])) == 3, "by itself the first drop is whole"


def test_rows_of_different_schemas_stand_side_by_side(tmp_path: Path) -> None:
    chat = b'{"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"a"}],"weight":0.25}\n'
    sources = [accept(tmp_path, "d1", chat, [(1, "g1", "train")], "chat_sft_v1"), accept(tmp_path, "d2", completion("p", "c").encode(), [(1, "g2", "dev")])]
    assert [(row.schema_id, row.weight, [m.role for m in row.messages]) for row in read_rows(sources)] == [
        ("chat_sft_v1", 0.25, ["user", "assistant"]),
        ("completion_v1", 1.0, ["user", "assistant"]),
    ]


@pytest.mark.parametrize("damage", ["other bytes", "torn", "missing line", "no index", "bad index"])
def test_a_drop_that_is_not_what_was_accepted_is_an_integrity_error(tmp_path: Path, damage: str) -> None:
    content = completion("p" * 200, "c" * 200).encode() + b"\n"
    source = accept(tmp_path, "d1", content, [(1, "g1", "train"), *([(9, "g9", "train")] if damage == "missing line" else [])])
    folder = Path(source.folder)
    if damage == "other bytes":
        (folder / ROWS).write_bytes(zstandard.compress(content + b"\n"))
    elif damage == "torn":
        (folder / ROWS).write_bytes((folder / ROWS).read_bytes()[:20])
    elif damage == "no index":
        (folder / INDEX).unlink()
    elif damage == "bad index":
        (folder / INDEX).write_text('{"line": "x"}\n')
    with pytest.raises(IntegrityError):
        read_rows([source])


def test_a_group_survives_retyping_and_a_corrected_answer() -> None:
    asked = [Message("system", "Be brief."), Message("user", "What is  Ｌｏｒａ?\n"), Message("assistant", "A radio.")]
    retyped = [Message("user", "what IS lora?"), Message("assistant", "An adapter.")]
    assert conversation_key(asked).first == conversation_key(retyped).first
    assert conversation_key(asked).whole != conversation_key(retyped).whole
    assert conversation_key(asked).first != conversation_key([Message("user", "what is lora")]).first
    assert len(conversation_key(asked).first) == 64
