"""A project's own rows: a small file says what they mean, and a wrong file says what is wrong with it."""

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from core.errors import ConfigError
from rendering.ownspecs import load_file, load_specs
from rendering.specs import BAD_JSON, SPECS, Message

HOWTO = Path(__file__).parents[2] / "docs" / "howto" / "own-spec.md"
QA: dict[str, Any] = {
    "id": "qa_v1",
    "title": "questions and answers",
    "keys": {"question": "string", "answer": "string", "score": "number?"},
    "messages": [{"role": "system", "content": "Answer briefly."}, {"role": "user", "content": "{question}"}, {"role": "assistant", "content": "{answer}"}],
    "example": {"question": "1 + 1?", "answer": "2"},
}


def written(folder: Path, name: str = "qa.json", **changes: Any) -> Path:
    path = folder / name
    path.write_text(json.dumps(QA | changes, ensure_ascii=False), encoding="utf-8")
    return path


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", HOWTO.read_text(encoding="utf-8"), flags=re.DOTALL)


# --- what a file makes


def test_a_row_becomes_the_messages_that_the_file_says(tmp_path: Path) -> None:
    written(tmp_path)
    specs = load_specs({"qa_v1": "qa.json"}, tmp_path)
    assert {*SPECS, "qa_v1"} == set(specs)
    spec = specs["qa_v1"]
    row = spec.decode('{"question": "wo?", "answer": "hier ü", "score": 0.5, "id": 7, "metadata": {"a": 1}, "weight": 0.25}'.encode())
    assert spec.messages(row) == [Message("system", "Answer briefly."), Message("user", "wo?"), Message("assistant", "hier ü")]
    assert (row.id, row.weight, row.metadata) == (7, 0.25, {"a": 1})
    assert (spec.required, spec.optional, spec.objective) == (("question", "answer"), ("score", "metadata", "id", "weight"), "sft")
    assert spec.file == str(tmp_path / "qa.json")
    assert msgspec.to_builtins(row)["question"] == "wo?"


@pytest.mark.parametrize(
    "line",
    [
        '{"question": "q"}',
        '{"question": "q", "answer": 3}',
        '{"question": "q", "answer": null}',
        '{"question": "q", "answer": "a", "score": "high"}',
        '{"question": "q", "answer": "a", "other": 1}',
        '{"question": "q", "answer": "a", "key_0": "b"}',
        '{"question": "q", "answer": "a", "weight": 2}',
        '{"messages": []}',
    ],
)
def test_its_rows_are_denied_by_default_like_all_others(tmp_path: Path, line: str) -> None:
    with pytest.raises(BAD_JSON):
        load_file(written(tmp_path)).decode(line.encode())


def test_its_rows_may_have_declared_columns(tmp_path: Path) -> None:
    line = b'{"question": "q", "answer": "a", "lang": null}'
    spec = load_file(written(tmp_path))
    assert len(spec.messages(spec.with_columns(["lang"]).decode(line))) == 3
    assert len(spec.messages(spec.with_any_columns().decode(line))) == 3


def test_values_that_are_no_text_are_written_as_json_and_braces_can_be_doubled(tmp_path: Path) -> None:
    keys = {"nested": "object", "list": "array", "yes": "boolean", "how many?": "number", "left out": "string?", "answer": "string"}
    content = "{nested} {list} {yes} {how many?} [{left out}] {{braces}}"
    messages = [{"role": "user", "content": content}, {"role": "assistant", "content": "{answer}"}]
    spec = load_file(written(tmp_path, keys=keys, messages=messages, example={}))
    row = spec.decode('{"nested": {"ä": [1]}, "list": ["x", null], "yes": true, "how many?": 3, "answer": "{list}"}'.encode())
    assert [message.content for message in spec.messages(row)] == ['{"ä": [1]} ["x", null] true 3 [] {braces}', "{list}"]
    assert json.loads(spec.example) == {"nested": {}, "list": [], "yes": True, "how many?": 1, "left out": "…", "answer": "…"}


def test_a_system_message_of_which_nothing_is_given_is_left_out(tmp_path: Path) -> None:
    messages = [{"role": "system", "content": "Context: {context}"}, *QA["messages"][1:]]
    spec = load_file(written(tmp_path, keys=QA["keys"] | {"context": "string?"}, messages=messages))
    rows = [b'{"question": "q", "answer": "a"}', b'{"question": "q", "answer": "a", "context": "c"}']
    assert [len(spec.messages(spec.decode(row))) for row in rows] == [2, 3]


# --- what may be wrong with a file


@pytest.mark.parametrize(
    ("changes", "what", "hint"),
    [
        ({"id": "chat_sft_v1"}, "chat_sft_v1", "my_chat_sft_v1"),
        ({"id": "bad id/.."}, "bad id/..", "letters"),
        ({"keys": {}}, "no keys", "question"),
        ({"keys": {"question": "string", "answer": "text"}}, "'text'", "string, number, boolean, object, array"),
        ({"keys": QA["keys"] | {"metadata": "object"}}, "metadata", "leave it out"),
        ({"messages": [*QA["messages"][:2], {"role": "assistant", "content": "{anser}"}]}, "messages[2] has the placeholder {anser}", "did you mean {answer}?"),
        ({"messages": [{"role": "assistant", "content": "{0.__class__}"}]}, "placeholder {0.__class__}", "question, answer, score"),
        ({"messages": [{"role": "assistant", "content": "{answer"}]}, "'{'", "{{ and }}"),
        ({"messages": QA["messages"][:2]}, "no message of the role assistant", "assistant"),
        ({"messages": [*QA["messages"], {"role": "tool", "content": "x"}]}, "messages[3] has the role 'tool'", "system, user, assistant"),
        ({"messages": [{"role": "assistant", "content": "{answer}", "weight": 1}]}, "weight", "own-spec.md"),
        ({"example": {"question": "q"}}, "example that is not a row", "example"),
        ({"example": {"question": "q", "answer": "  "}}, "no assistant text", "placeholder"),
        ({"row": {}}, "row", "id, keys, messages, title, example, hint"),
        ({"keys": ["question"]}, "Expected `object`", "own-spec.md"),
    ],
)
def test_a_wrong_file_says_what_and_what_to_do(tmp_path: Path, changes: dict[str, Any], what: str, hint: str) -> None:
    path = written(tmp_path, **changes)
    with pytest.raises(ConfigError) as caught:
        load_file(path)
    assert str(path) in caught.value.what
    assert what in caught.value.what
    assert hint in caught.value.hint


def test_a_file_that_is_missing_or_no_json_or_of_another_kind_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "torn.json").write_text('{"id": ')
    (tmp_path / "latin.json").write_bytes('{"id": "ü"}'.encode("latin-1"))
    (tmp_path / "deep.json").write_text("[" * 100_000)
    (tmp_path / "spec.yaml").write_text("id: x")
    (tmp_path / "folder.json").mkdir()
    for name in ("torn.json", "latin.json", "deep.json", "spec.yaml", "folder.json", "nowhere.json"):
        with pytest.raises(ConfigError, match=re.escape(name)):
            load_file(tmp_path / name)


def test_the_config_and_the_file_must_name_the_same_id(tmp_path: Path) -> None:
    written(tmp_path)
    with pytest.raises(ConfigError, match=r"specs\.other_v1: .*qa_v1"):
        load_specs({"other_v1": "qa.json"}, tmp_path)
    with pytest.raises(ConfigError, match="completion_v1"):
        load_specs({"completion_v1": "qa.json"}, tmp_path)


# --- Python


def test_the_examples_of_the_guide_work(tmp_path: Path) -> None:
    config, spec_file = blocks("json")
    ((id, name),) = json.loads(config)["specs"].items()
    (tmp_path / "specs").mkdir()
    (tmp_path / name).write_text(spec_file, encoding="utf-8")
    (tmp_path / "specs" / "quiz_v1.py").write_text(blocks("python")[0], encoding="utf-8")
    specs = load_specs({id: name, "quiz_v1": "specs/quiz_v1.py"}, tmp_path)
    helpdesk = specs["helpdesk_v1"]
    assert [message.role for message in helpdesk.messages(helpdesk.decode(helpdesk.example.encode()))] == ["system", "user", "assistant"]
    assert len(helpdesk.messages(helpdesk.decode(b'{"question": "q", "reply": "r", "minutes": 3}'))) == 2
    quiz = specs["quiz_v1"]
    row = quiz.decode(b'{"question": "Which?", "choices": ["a", "b"], "right": 0, "metadata": {"source": "x"}}')
    assert quiz.messages(row) == [Message("user", "Which?\n1. a\n2. b"), Message("assistant", "a")]


def test_a_row_that_an_own_function_fails_on_is_refused_and_not_a_crash(tmp_path: Path) -> None:
    (tmp_path / "quiz_v1.py").write_text(blocks("python")[0], encoding="utf-8")
    spec = load_file(tmp_path / "quiz_v1.py")
    line = b'{"question": "Which?", "choices": ["a"], "right": 5}'
    for one in (spec, spec.with_columns(["lang"]), spec.with_any_columns()):
        with pytest.raises(msgspec.ValidationError, match="IndexError"):
            one.decode(line)
    with pytest.raises(BAD_JSON):
        spec.decode(b'{"question": "Which?", "choices": ["a"], "right": 0, "lang": "en"}')


PYTHON = """
from __future__ import annotations
from rendering.rowtypes import OwnRow
from rendering.specs import Message, Spec
class Row(OwnRow, frozen=True):
    text: str
SPEC = Spec(id="mine_v1", title="t", row=Row, required=("text",), turns=lambda row: [Message("assistant", row.text)], example='{"text": "x"}')
"""


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("SPEC = 1 / 0", "ZeroDivisionError"),
        ("import no_such_module_of_ours", "ModuleNotFoundError"),
        ("def (", "SyntaxError"),
        ("x = 1", "has no `SPEC`"),
        (PYTHON.replace('required=("text",)', 'required=("txt",)'), "text, txt"),
        (PYTHON.replace("(OwnRow, frozen=True)", "(OwnRow, frozen=True, forbid_unknown_fields=False)"), "row type Row"),
        (PYTHON.replace("row.text", "row.nothing"), "AttributeError"),
        (PYTHON.replace('[Message("assistant", row.text)]', "['x']"), "list of messages"),
        (PYTHON.replace('[Message("assistant", row.text)]', '[Message("user", row.text)]'), "no assistant text"),
        (PYTHON.replace("mine_v1", "syllo_v1"), "syllo_v1"),
    ],
)
def test_a_wrong_python_file_says_what(tmp_path: Path, code: str, what: str) -> None:
    path = tmp_path / "mine_v1.py"
    path.write_text(code)
    with pytest.raises(ConfigError) as caught:
        load_file(path)
    assert str(path) in caught.value.what
    assert what in caught.value.what
    assert caught.value.hint


def test_two_python_files_of_one_name_stay_apart(tmp_path: Path) -> None:
    for folder, id in (("a", "one_v1"), ("b", "two_v1")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "spec.py").write_text(PYTHON.replace("mine_v1", id))
    one, two = load_file(tmp_path / "a" / "spec.py"), load_file(tmp_path / "b" / "spec.py")
    assert (one.id, two.id) == ("one_v1", "two_v1")
    assert one.row is not two.row
    assert one.with_columns(["x"]).decode(b'{"text": "t", "x": 1}').weight == 1.0
