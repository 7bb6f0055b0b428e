"""What is learnt under the chat templates of nine model families: the answers and their end, of no other text a letter."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from core.errors import LoradError
from rendering.chat import ChatTemplate
from rendering.specs import SPECS, Message, ToolCall
from rendering.tokens import Renderer, supervised_text

TEMPLATES = Path(__file__).parents[1] / "data" / "templates"
THOUGHT = "<think>\n\n</think>\n\n"
TOOL = {"type": "function", "function": {"name": "weather", "description": "Weather.", "parameters": {"type": "object", "properties": {}}}}


@dataclass(frozen=True, kw_only=True)
class Family:
    """A template, its control tokens, and what it writes of an answer between prompt and end."""

    end: str
    controls: tuple[str, ...]
    said: Callable[[str], str] = lambda content: content
    said_last: Callable[[str], str] | None = None
    takes_system: bool = True


FAMILIES = {
    "chatml": Family(end="<|im_end|>", controls=("<|im_start|>", "<|im_end|>", "<|endoftext|>")),
    "smollm2": Family(end="<|im_end|>", controls=("<|im_start|>", "<|im_end|>", "<|endoftext|>")),
    "qwen3": Family(end="<|im_end|>", controls=("<|im_start|>", "<|im_end|>", "<|endoftext|>"), said_last=lambda content: THOUGHT + content.lstrip("\n")),
    "llama3": Family(end="<|eot_id|>", controls=("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"), said=str.strip),
    "mistral": Family(end="</s>", controls=("<s>", "</s>", "[INST]", "[/INST]"), said=lambda content: f" {content}"),
    "gemma": Family(end="<end_of_turn>", controls=("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"), said=str.strip, takes_system=False),
    "phi3": Family(end="<|end|>", controls=("<|user|>", "<|assistant|>", "<|system|>", "<|end|>", "<|endoftext|>")),
    "deepseek": Family(end="<｜end▁of▁sentence｜>", controls=("<｜begin▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>", "<｜end▁of▁sentence｜>")),
    "zephyr": Family(end="</s>", controls=("<s>", "</s>", "<|user|>", "<|assistant|>", "<|system|>"), said=lambda content: f"\n{content}"),
}


@cache
def renderer_of(name: str) -> Renderer:
    """The family's template over a tokenizer of single bytes and its control tokens."""
    family = FAMILIES[name]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: id for id, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in family.controls])
    source = (TEMPLATES / f"{name}.jinja").read_text(encoding="utf-8")
    return Renderer(tokenizer, ChatTemplate(source, bos_token=family.controls[0], eos_token=family.end), family.end)


def expected(name: str, messages: Sequence[Message]) -> list[str]:
    """By hand: each answer that counts, as the family writes it, and the token that ends it."""
    family = FAMILIES[name]
    last = max(index for index, message in enumerate(messages) if message.role == "assistant")
    told = []
    for index, message in enumerate(messages):
        if message.role == "assistant" and message.weight:
            says = family.said_last if index == last and family.said_last else family.said
            told.append(says(message.content) + family.end)
    return told


def letters(name: str) -> st.SearchStrategy[str]:
    """Texts of any script, with the family's own marks, and halves of them, in the middle."""
    controls = FAMILIES[name].controls
    marks = [*controls, *(control[: len(control) // 2] for control in controls), "assistant\n", "\n", "  ", "🦊", "é", "Ω≈ç", "<tool_call>", "{{ x }}"]
    plain = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
    return st.lists(st.one_of(st.sampled_from(marks), plain), min_size=1, max_size=4).map("".join).filter(str.strip)


@st.composite
def talks(draw: st.DrawFn, name: str) -> list[Message]:
    """Conversations of one to three exchanges, each answer with a weight of its own."""
    texts = letters(name)
    messages = [Message("system", draw(texts))] if FAMILIES[name].takes_system and draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 3))):
        messages += [Message("user", draw(texts)), Message("assistant", draw(texts), weight=draw(st.sampled_from([0.0, 0.25, 1.0])))]
    return messages


@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_whatever_is_said_the_answers_and_their_ends_are_learnt_and_nothing_else(name: str, data: st.DataObject) -> None:
    messages = data.draw(talks(name))
    renderer = renderer_of(name)
    encoding = renderer.encode(messages)
    assert supervised_text(renderer, encoding) == expected(name, messages)
    runs = groupby(zip(encoding.weights, encoding.supervised, strict=True))
    answers = [message for message in messages if message.role == "assistant"]
    assert [weight for (weight, learnt), _ in runs if learnt or weight] == [message.weight for message in answers if message.weight]
    muted = [*messages[:-1], Message("assistant", messages[-1].content, weight=0.0)]
    assert renderer.encode(muted).last_turn == len(encoding.ids)


TALK = [Message("user", "What is 2 + 2?"), Message("assistant", "4"), Message("user", "And 日本?"), Message("assistant", "Japan 🗾")]


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("chatml", ["4<|im_end|>", "Japan 🗾<|im_end|>"]),
        ("smollm2", ["4<|im_end|>", "Japan 🗾<|im_end|>"]),
        ("qwen3", ["4<|im_end|>", "<think>\n\n</think>\n\nJapan 🗾<|im_end|>"]),
        ("llama3", ["4<|eot_id|>", "Japan 🗾<|eot_id|>"]),
        ("mistral", [" 4</s>", " Japan 🗾</s>"]),
        ("gemma", ["4<end_of_turn>", "Japan 🗾<end_of_turn>"]),
        ("phi3", ["4<|end|>", "Japan 🗾<|end|>"]),
        ("deepseek", ["4<｜end▁of▁sentence｜>", "Japan 🗾<｜end▁of▁sentence｜>"]),
        ("zephyr", ["\n4</s>", "\nJapan 🗾</s>"]),
    ],
)
def test_two_turns_by_hand(name: str, wanted: list[str]) -> None:
    renderer = renderer_of(name)
    assert supervised_text(renderer, renderer.encode(TALK)) == wanted


@pytest.mark.parametrize("name", FAMILIES)
def test_a_completion_is_one_answer(name: str) -> None:
    spec = SPECS["completion_v1"]
    messages = spec.messages(spec.decode(b'{"prompt": "the quick", "completion": " brown fox "}'))
    renderer = renderer_of(name)
    assert supervised_text(renderer, renderer.encode(messages)) == expected(name, messages)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_prompt_before_each_answer_is_the_one_that_is_served(name: str) -> None:
    renderer = renderer_of(name)
    encoding = renderer.encode(TALK)
    for span in encoding.spans:
        first = next(index for index, (start, _) in enumerate(encoding.offsets) if start >= span.start)
        assert encoding.ids[:first] == renderer.prompt(TALK[: span.turn])


CALLS = [
    Message("user", "Weather in Bonn?"),
    Message("assistant", "", tool_calls=(ToolCall("weather", '{"city": "Bonn"}', "c1"),)),
    Message("tool", "sunny", tool_call_id="c1"),
    Message("assistant", "It is sunny.", weight=0.5),
]
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Bonn"}}\n</tool_call>'


@pytest.mark.parametrize("name", FAMILIES)
def test_calls_are_learnt_and_what_the_tools_say_is_not(name: str) -> None:
    family, renderer = FAMILIES[name], renderer_of(name)
    encoding = renderer.encode(CALLS, [TOOL])
    call, answer = supervised_text(renderer, encoding)
    last = family.said_last or family.said
    assert (call, answer) == (family.said(CALL) + family.end, last("It is sunny.") + family.end)
    assert {weight for weight, learnt in zip(encoding.weights, encoding.supervised, strict=True) if learnt} == {1.0, 0.5}


def test_thoughts_of_the_last_turn_are_learnt_and_hidden_ones_are_refused() -> None:
    renderer = renderer_of("qwen3")
    thinking = Message("assistant", "<think>\nhm\n</think>\n\nyes")
    assert supervised_text(renderer, renderer.encode([TALK[0], thinking])) == ["<think>\nhm\n</think>\n\nyes<|im_end|>"]
    with pytest.raises(LoradError) as caught:  # the template would drop the thoughts of the first turn, and nobody would know
        renderer.encode([TALK[0], thinking, *TALK[2:]])
    assert caught.value.code == "TEMPLATE_NOT_PREFIX"
