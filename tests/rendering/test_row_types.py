"""What a line may say, and that everything else is an error."""

import pytest

from rendering.specs import BAD_JSON, SPECS, ChatRow, Message

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


def test_every_example_is_a_row_of_its_own_spec_and_of_no_other() -> None:
    for spec in SPECS.values():
        row = spec.decode(spec.example.encode())
        assert spec.messages(row)[-1].role == "assistant"
        for other in SPECS.values():
            if other is not spec:
                with pytest.raises(BAD_JSON):
                    other.decode(spec.example.encode())
                with pytest.raises(TypeError):
                    other.messages(row)


@pytest.mark.parametrize(
    "line",
    [
        b'{"messages": [{"role": "user", "content": "q"}], "source": "x"}',
        b'{"messages": [{"role": "user", "content": "q", "tool_calls": []}]}',
        b'{"messages": [{"role": "tool", "content": "q"}]}',
        b'{"messages": [{"role": "user", "content": "q", "weight": 0}]}',
        b'{"messages": [{"role": "assistant", "content": "q", "weight": 0.5}]}',
        b'{"messages": [{"role": "assistant", "content": null}]}',
        b'{"messages": [{"role": "assistant"}]}',
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


def test_an_empty_conversation_is_a_row_and_the_gate_judges_it() -> None:
    assert CHAT.decode(b'{"messages": []}') == ChatRow(messages=[])
