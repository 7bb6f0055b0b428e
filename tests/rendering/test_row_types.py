"""What a line may say, and that everything else is an error."""

import json

import pytest

from rendering.rowtypes import VisionRow
from rendering.specs import BAD_JSON, SPECS, ChatRow, Message, ToolCall

CHAT = SPECS["chat_sft_v1"]
COMPLETION = SPECS["completion_v1"]


def test_a_chat_row_with_everything_that_is_allowed() -> None:
    row = CHAT.decode(
        b'{"id": "a-1", "weight": 0.5, "metadata": {"source": "x", "n": [1, {}]}, "messages": [{"content": "s", "role": "system"},'
        b'{"role": "user", "content": "q", "name": "ann"}, {"role": "assistant", "content": "a", "weight": 0}]}\r'
    )
    assert row.weight == 0.5
    assert row.id == "a-1"
    assert CHAT.messages(row) == [Message("system", "s"), Message("user", "q", name="ann"), Message("assistant", "a", weight=0)]


def test_every_example_is_a_row_of_its_own_spec() -> None:
    for spec in SPECS.values():
        row = spec.decode(spec.example.encode())
        assert isinstance(row, spec.row)
        assert spec.messages(row)[-1].role == "assistant"
        assert set(json.loads(spec.example)) >= set(spec.required)


def test_an_example_is_no_row_of_a_spec_with_another_row_type() -> None:
    for spec in SPECS.values():
        row = spec.decode(spec.example.encode())
        for other in SPECS.values():
            if other.row is not spec.row:
                with pytest.raises(TypeError):
                    other.messages(row)
            if not {spec.row, other.row} <= {ChatRow, VisionRow} and other.row is not spec.row:
                with pytest.raises(BAD_JSON):
                    other.decode(spec.example.encode())


CALL = b'{"role": "assistant", "content": null, "tool_calls": [{"id": "c1", "function": {"name": "f", "arguments": "{}"}}]}'


@pytest.mark.parametrize(
    "line",
    [
        b'{"messages": [{"role": "user", "content": "q"}], "source": "x"}',
        b'{"messages": [{"role": "human", "content": "q"}]}',
        b'{"messages": [{"role": "User", "content": "q"}]}',
        b'{"messages": [{"role": "user", "content": "q", "tool_cals": []}]}',
        b'{"messages": [{"role": "user", "content": "q", "tool_calls": null}]}',
        b'{"messages": [{"role": "user", "content": "q", "tool_calls": [{"function": {"name": "f"}}]}]}',
        b'{"messages": [{"role": "user", "content": "q", "weight": 0}]}',
        b'{"messages": [{"role": "user", "content": "q", "weight": 0.5}]}',
        b'{"messages": [{"role": "assistant", "content": "q", "weight": 1.5}]}',
        b'{"messages": [{"role": "assistant", "content": "q", "weight": -0.5}]}',
        b'{"messages": [{"role": "assistant", "content": "q", "weight": true}]}',
        b'{"messages": [{"role": "assistant", "content": null}]}',
        b'{"messages": [{"role": "assistant"}]}',
        b'{"messages": [{"role": "assistant", "tool_calls": []}], "metadata": {"content": "x"}}',
        b'{"messages": [{"role": "tool", "tool_call_id": "c1"}]}',
        b'{"messages": [{"role": "user"}], "metadata": {"content": "a key of this name elsewhere"}}',
        b'{"messages": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what is it?"}]}]}',
        b'{"messages": [], "weight": 1.5}',
        b'{"messages": [], "weight": NaN}',
        b'{"messages": [], "metadata": "x"}',
        b'{"messages": [], "metadata": {"bad": "\\ud800"}}',
        b'{"messages": [], "metadata": {"bad": "\xff"}}',
        b'{"messages": [], "metadata": ' + b'{"a":' * 60_000 + b"1" + b"}" * 60_000 + b"}",
    ],
)
def test_anything_else_is_an_error_of_a_known_kind(line: bytes) -> None:
    with pytest.raises(BAD_JSON):
        CHAT.decode(line)


def test_the_decoder_says_where_a_turn_has_nothing_to_say() -> None:
    with pytest.raises(BAD_JSON, match=r"`content` - at `\$\.messages\[1\]`"):
        CHAT.decode(b'{"messages": [{"role": "user", "content": "q"}, {"role": "assistant"}]}')
    with pytest.raises(BAD_JSON, match=r"`content` - at `\$\.chosen\[0\]`"):
        SPECS["preference_v1"].decode(b'{"prompt": "p", "chosen": [{"role": "assistant"}], "rejected": "r"}')


def test_a_turn_that_calls_tools_needs_no_content() -> None:
    for call in (CALL, CALL.replace(b'"content": null, ', b""), CALL.replace(b"null", b'"let me see"')):
        (message,) = CHAT.messages(CHAT.decode(b'{"messages": [' + call + b"]}"))
        assert message.tool_calls == (ToolCall("f", "{}", "c1"),)
        assert message.content in ("", "let me see")


def test_arguments_may_be_an_object_or_its_json_text() -> None:
    row = CHAT.decode(
        b'{"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {"b": 1, "a": "\xc3\xa9"}}},'
        b'{"function": {"name": "g", "arguments": "{\\"b\\": 1}"}}, {"function": {"name": "h"}}]}],'
        b' "tools": [{"type": "function"}], "parallel_tool_calls": true}'
    )
    assert [call.arguments for call in CHAT.messages(row)[0].tool_calls] == ['{"b":1,"a":"é"}', '{"b": 1}', "{}"]
    assert list(CHAT.tools(row)) == [{"type": "function"}]


def test_text_parts_are_joined_and_developer_is_system() -> None:
    row = CHAT.decode(b'{"messages": [{"role": "developer", "content": [{"type": "text", "text": "be "}, {"type": "text", "text": "brief"}]}]}')
    assert CHAT.messages(row) == [Message("system", "be brief")]


def test_pictures_belong_to_vision_rows() -> None:
    row = SPECS["vision_v1"].decode(b'{"messages": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "?"}]}], "images": ["a.png"]}')
    assert SPECS["vision_v1"].messages(row) == [Message("user", "?")]


def test_declared_columns_pass_and_others_do_not() -> None:
    line = b'{"prompt": "p", "completion": "c", "dialogue_id": [1, {"x": null}], "column_0": 7}'
    with pytest.raises(BAD_JSON):
        COMPLETION.decode(line)
    with pytest.raises(BAD_JSON):
        COMPLETION.with_columns(["dialogue_id"]).decode(line)
    spec = COMPLETION.with_columns(["dialogue_id", "column_0", "prompt"])
    assert spec.messages(spec.decode(line)) == [Message("user", "p"), Message("assistant", "c")]
    assert spec.keys[-2:] == ("dialogue_id", "column_0")


def test_a_judged_row_may_have_any_column_and_is_otherwise_as_strict() -> None:
    spec = CHAT.with_any_columns()
    assert len(spec.messages(spec.decode(b'{"lang": "en", "messages": [{"role": "user", "content": "q"}], "n": null}'))) == 1
    for line in (b'{"messages": [{"role": "assistant"}], "lang": "en"}', b'{"messages": [{"role": "user", "content": "q", "lang": "en"}]}'):
        with pytest.raises(BAD_JSON):
            spec.decode(line)


def test_an_answer_that_repeats_its_prompt_is_the_whole_conversation() -> None:
    spec = SPECS["preference_v1"]
    line = (
        b'{"prompt": [{"role": "user", "content": "q"}], "chosen": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "good"}],'
        b' "rejected": [{"role": "assistant", "content": "bad"}]}'
    )
    row = spec.decode(line)
    assert spec.messages(row) == [Message("user", "q"), Message("assistant", "good")]
    assert spec.rejected(row) == [Message("user", "q"), Message("assistant", "bad")]


def test_an_empty_conversation_is_a_row_and_the_gate_judges_it() -> None:
    assert CHAT.decode(b'{"messages": []}') == ChatRow(messages=[])
