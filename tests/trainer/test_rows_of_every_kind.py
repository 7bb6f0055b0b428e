"""What the gate accepts is what reaches the model: calls are learnt with their tools in sight, pairs are never learnt as conversations."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from tokenizers import Tokenizer
from trainer_cases import TINY, chat

from core.tasks import RowsOf
from rendering.chat import ChatTemplate
from rendering.rows import read_rows
from rendering.tokens import Renderer
from trainer.examples import encode_rows
from trainer.scores import shift_rows

CALL = {"id": "c1", "type": "function", "function": {"name": "dice", "arguments": '{"sides": 6}'}}
TOOLS = [{"type": "function", "function": {"name": "dice", "parameters": {"type": "object", "properties": {"sides": {"type": "integer"}}}}}]


def throwing(result: str, **more: Any) -> dict[str, Any]:
    turns = [
        {"role": "user", "content": f"Throw for {result}"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": result},
        {"role": "assistant", "content": f"It fell on {result}."},
    ]
    return {"messages": turns, "tools": TOOLS, **more}


@pytest.fixture
def renderer() -> Renderer:
    return Renderer(Tokenizer.from_file(str(TINY / "tokenizer.json")), ChatTemplate((TINY / "chat_template.jinja").read_text()), "<|im_end|>")


def test_calls_are_learnt_with_their_tools_in_sight(renderer: Renderer, drop: Callable[..., RowsOf]) -> None:
    (example,) = encode_rows(renderer, read_rows([drop([throwing("4", lang="en")])]), 1_000).kept
    whole = renderer.decode(example.ids, skip_special=False)
    assert "<tools>\n" in whole
    assert "<tool_response>\n4\n</tool_response>" in whole
    learnt = renderer.decode([example.ids[index] for index in example.learnt], skip_special=False)
    assert learnt == '<tool_call>\n{"name": "dice", "arguments": {"sides": 6}}\n</tool_call><|im_end|>It fell on 4.<|im_end|>'
    assert example.num_last == len(renderer.tokenizer.encode("It fell on 4.<|im_end|>").ids)


def test_a_last_turn_under_another_context_sees_the_tools_of_that_context(drop: Callable[..., RowsOf]) -> None:
    rows = read_rows([drop([throwing("4"), chat("Who?", "Ann.")])])
    moved = dict(shift_rows(rows))
    assert [message.role for message in moved[1].messages] == ["user", "assistant", "tool", "assistant"]
    assert list(moved[1].tools) == TOOLS
    assert list(moved[0].tools) == []
    assert moved[0].messages[-1].content == "It fell on 4."


HUGGING_FACE = """{{ bos_token }}{% for t in tools or [] %}
{{ t | tojson }}
{% endfor %}
{%- for m in messages %}
<|im_start|>{{ m.role }}{% if m.tool_call_id %} {{ m.tool_call_id }}{% endif %}

{{ m.content }}{% for c in m.tool_calls or [] %}[{{ c.id }} {{ c.type }} {{ c.function.name }} {{ c.function.arguments | tojson }}]{% endfor %}<|im_end|>
{% endfor %}
{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


def test_a_template_with_tools_says_the_same_as_under_transformers(drop: Callable[..., RowsOf]) -> None:
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_file(str(TINY / "tokenizer.json")), bos_token="<|im_start|>", eos_token="<|im_end|>")
    template = ChatTemplate(HUGGING_FACE, bos_token="<|im_start|>", eos_token="<|im_end|>")
    assert not template.tools_as_text
    row = throwing("vier ✓")
    (read,) = read_rows([drop([row])])
    plain = [dict(turn) for turn in row["messages"]]
    plain[1] = {"role": "assistant", "content": "", "tool_calls": [{**CALL, "function": {"name": "dice", "arguments": {"sides": 6}}}]}
    for prompt in (True, False):
        theirs = tokenizer.apply_chat_template(plain, tools=TOOLS, chat_template=HUGGING_FACE, tokenize=False, add_generation_prompt=prompt)
        assert template.render(read.messages, prompt, read.tools) == theirs


def test_a_correction_is_learnt_as_the_right_answer(renderer: Renderer, drop: Callable[..., RowsOf]) -> None:
    rows = [{"prompt": "2 + 2?", "model_output": "5", "correction": "4", "signal": "user_correction"}]
    (example,) = encode_rows(renderer, read_rows([replace(drop(rows), schema_id="correction_v1")]), 100).kept
    assert renderer.decode([example.ids[index] for index in example.learnt], skip_special=False) == "4<|im_end|>"
