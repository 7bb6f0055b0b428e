"""Rows of accepted drops: their lines, groups and splits, and what a later drop supersedes."""

import hashlib
import json
from pathlib import Path

import pytest
import zstandard

from core.errors import IntegrityError
from core.tasks import RowsOf
from rendering.rows import INDEX, ROWS, conversation_key, read_rows, row_key
from rendering.specs import SPECS, Message, ToolCall

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


def test_lines_without_an_index_entry_are_not_read(tmp_path: Path) -> None:
    content = b"\n".join([completion("a", "1").encode(), b"{not even JSON", b'{"prompt": 3}', completion("b", "2").encode()])
    rows = read_rows([accept(tmp_path, "d1", content, [(1, "ga", "train"), (4, "gb", "train")])])
    assert [(row.line, row.messages[1].content) for row in rows] == [(1, "1"), (4, "2")]


def test_columns_that_the_gate_let_pass_do_not_stop_the_trainer(tmp_path: Path) -> None:
    line = b'{"prompt": "p", "completion": "c", "lang": "en", "scores": [1, null], "weight": 0.5}'
    (row,) = read_rows([accept(tmp_path, "d1", line, [(1, "g", "train")])])
    assert (row.messages[0].content, row.weight, row.objective, list(row.tools)) == ("p", 0.5, "sft", [])


def test_tools_and_calls_of_a_row_are_read(tmp_path: Path) -> None:
    line = b'{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": null, "tool_calls": [{"id": "1", "function": {"name": "f"}}]}],'
    line += b' "tools": [{"type": "function", "function": {"name": "f"}}], "id": "x"}'
    (row,) = read_rows([accept(tmp_path, "d1", line, [(1, "g", "train")], "chat_sft_v1")])
    assert row.messages[1].tool_calls == (ToolCall("f", "{}", "1"),)
    assert list(row.tools) == [{"type": "function", "function": {"name": "f"}}]


def test_rows_of_pairs_say_how_they_are_learnt(tmp_path: Path) -> None:
    line = b'{"prompt": "p", "chosen": "good", "rejected": "bad"}'
    (row,) = read_rows([accept(tmp_path, "d1", line, [(1, "g", "train")], "preference_v1")])
    assert row.objective == "dpo"
    assert row.messages == [Message("user", "p"), Message("assistant", "good")]


def test_a_copy_in_several_frames_is_read_to_its_end(tmp_path: Path) -> None:
    parts = [completion("a", "1").encode() + b"\n", completion("b", "2").encode() + b"\n"]
    source = accept(tmp_path, "d1", b"".join(parts), [(1, "ga", "train"), (2, "gb", "train")])
    Path(source.folder, ROWS).write_bytes(b"".join(zstandard.compress(part) for part in parts))
    assert [row.line for row in read_rows([source])] == [1, 2]


OWN = {
    "id": "faq_v1",
    "keys": {"ask": "string", "tell": "string"},
    "messages": [{"role": "user", "content": "{ask}"}, {"role": "assistant", "content": "{tell}"}],
}


def test_a_projects_own_spec_lies_beside_its_rows(tmp_path: Path) -> None:
    source = accept(tmp_path, "d1", b'{"ask": "q", "tell": "a", "lang": "en"}', [(1, "g", "train")], "faq_v1")
    Path(source.folder, "spec.json").write_text(json.dumps(OWN))
    (row,) = read_rows([source])
    assert row.messages == [Message("user", "q"), Message("assistant", "a")]


@pytest.mark.parametrize("damage", ["none", "other id", "no JSON"])
def test_an_own_spec_that_is_gone_or_another_is_an_integrity_error(tmp_path: Path, damage: str) -> None:
    source = accept(tmp_path, "d1", b'{"ask": "q", "tell": "a"}', [(1, "g", "train")], "faq_v1")
    if damage != "none":
        Path(source.folder, "spec.json").write_text(json.dumps(OWN | {"id": "other_v1"}) if damage == "other id" else "{")
    with pytest.raises(IntegrityError) as caught:
        read_rows([source])
    assert caught.value.code == "SPEC_DAMAGED"
    assert "faq_v1" in caught.value.what or "spec.json" in caught.value.what


def test_a_row_that_is_not_of_its_spec_is_named_by_its_line(tmp_path: Path) -> None:
    content = completion("a", "1").encode() + b'\n{"prompt": 3, "completion": "x"}\n'
    with pytest.raises(IntegrityError, match="line 2 of"):
        read_rows([accept(tmp_path, "d1", content, [(1, "ga", "train"), (2, "gb", "train")])])


def test_a_group_survives_retyping_and_a_corrected_answer() -> None:
    asked = [Message("system", "Be brief."), Message("user", "What is  Ｌｏｒａ?\n"), Message("assistant", "A radio.")]
    retyped = [Message("user", "what IS lora?"), Message("assistant", "An adapter.")]
    assert conversation_key(asked).first == conversation_key(retyped).first
    assert conversation_key(asked).whole != conversation_key(retyped).whole
    assert conversation_key(asked).first != conversation_key([Message("user", "what is lora")]).first
    assert len(conversation_key(asked).first) == 64


def test_a_conversation_is_another_where_its_calls_are_others() -> None:
    def asked(*calls: ToolCall) -> str:
        return conversation_key([Message("user", "weather?"), Message("assistant", "", tool_calls=calls)]).whole

    rome = ToolCall("weather", '{"city": "Rome", "days": 2}', "c1")
    assert asked(rome) == asked(ToolCall("weather", '{"days":2,"city":"ROME"}', "another id"))
    assert len({asked(), asked(rome), asked(ToolCall("weather", '{"city": "Oslo"}')), asked(ToolCall("news", rome.arguments)), asked(rome, rome)}) == 5


def test_answers_that_are_compared_share_the_key_of_their_prompt() -> None:
    def keys(spec_id: str, *lines: str) -> set[str]:
        spec = SPECS[spec_id]
        return {row_key(spec, spec.decode(line.encode())).whole for line in lines}

    assert len(keys("preference_v1", '{"prompt": "p", "chosen": "a", "rejected": "b"}', '{"prompt": "P", "chosen": "c", "rejected": "a"}')) == 1
    assert len(keys("unpaired_v1", '{"prompt": "p", "completion": "a", "label": true}', '{"prompt": "p", "completion": "b", "label": false}')) == 1
    assert len(keys("correction_v1", '{"prompt": "p", "model_output": "a", "correction": "b"}', '{"prompt": "q", "model_output": "a", "correction": "b"}')) == 2
    assert len(keys("completion_v1", '{"prompt": "p", "completion": "a"}', '{"prompt": "p", "completion": "b"}')) == 2
