"""Exactly which tokens are learnt: decoded, not counted."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from core.errors import BaseMissingError, IntegrityError, LoradError
from rendering.chat import ChatTemplate
from rendering.specs import SPECS, Message
from rendering.tokens import Renderer
from store.bases import TOKENIZER

TINY = Path(__file__).parents[1] / "data" / "tiny_base"
ONE_TURN = [Message("user", "hello"), Message("assistant", "hello world")]
TWO_TURNS = [
    Message("system", "the dog"),
    Message("user", "jumps?"),
    Message("assistant", "yes, 日本 🦊"),
    Message("user", "over?"),
    Message("assistant", "no\nno"),
]


def learnt(renderer: Renderer, messages: list[Message]) -> list[str]:
    """The text of each unbroken run of supervised tokens."""
    encoding = renderer.encode(messages)
    assert len(encoding.ids) == len(encoding.supervised)
    runs: list[list[int]] = []
    for index, supervised in enumerate(encoding.supervised):
        if supervised and (index == 0 or not encoding.supervised[index - 1]):
            runs.append([])
        if supervised:
            runs[-1].append(encoding.ids[index])
    return [renderer.decode(run, skip_special=False) for run in runs]


def test_one_turn_learns_the_answer_and_its_end_and_nothing_else(tiny: Renderer) -> None:
    encoding = tiny.encode(ONE_TURN)
    assert tiny.decode(encoding.ids, skip_special=False) == "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\nhello world<|im_end|>\n"
    assert learnt(tiny, ONE_TURN) == ["hello world<|im_end|>"]
    assert encoding.supervised[-1] is False  # the newline that the template puts after the end token


def test_every_assistant_turn_is_learnt(tiny: Renderer) -> None:
    assert learnt(tiny, TWO_TURNS) == ["yes, 日本 🦊<|im_end|>", "no\nno<|im_end|>"]


def test_a_turn_of_weight_0_is_context_only(tiny: Renderer) -> None:
    muted = [*TWO_TURNS[:2], Message("assistant", "yes", weight=0), *TWO_TURNS[3:]]
    assert learnt(tiny, muted) == ["no\nno<|im_end|>"]
    assert tiny.encode(muted).num_supervised == len(tiny.tokenizer.encode("no\nno<|im_end|>").ids)


def test_last_turn_points_at_the_first_learnt_token_of_the_last_answer(tiny: Renderer) -> None:
    encoding = tiny.encode(TWO_TURNS)
    assert tiny.decode(encoding.ids[encoding.last_turn :], skip_special=False) == "no\nno<|im_end|>\n"
    muted = tiny.encode([*TWO_TURNS[:4], Message("assistant", "no", weight=0)])
    assert muted.last_turn == len(muted.ids)


def test_a_completion_is_learnt_as_the_answer_to_its_prompt(tiny: Renderer) -> None:
    spec = SPECS["completion_v1"]
    messages = spec.messages(spec.decode(b'{"prompt": "the quick", "completion": " brown fox"}'))
    assert learnt(tiny, messages) == [" brown fox<|im_end|>"]
    encoding = tiny.encode(messages)
    assert encoding.ids[: encoding.last_turn] == tiny.prompt(messages[:1]), "training and serving read the same prompt"


@given(answer=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40).filter(lambda text: "<|" not in text))
@settings(max_examples=60, deadline=None)
def test_whatever_the_answer_says_it_is_learnt_whole(answer: str) -> None:
    tokenizer = Tokenizer.from_file(str(TINY / TOKENIZER))
    renderer = Renderer(tokenizer, ChatTemplate((TINY / "chat_template.jinja").read_text()), "<|im_end|>")
    assert learnt(renderer, [Message("user", "the"), Message("assistant", answer)]) == [f"{answer}<|im_end|>"]


def test_a_template_that_forgets_earlier_turns_is_refused(tiny_with: Callable[..., Renderer]) -> None:
    forgetful = tiny_with("{% for m in messages[-2:] %}<|im_start|>{{ m.role }}:{{ m.content }}<|im_end|>{% endfor %}")
    with pytest.raises(LoradError) as caught:
        forgetful.encode(TWO_TURNS)
    assert caught.value.code == "TEMPLATE_NOT_PREFIX"
    assert "turn 2 differently" in caught.value.what


def test_a_template_that_never_ends_a_turn_is_refused(tiny_with: Callable[..., Renderer]) -> None:
    endless = tiny_with("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}")
    with pytest.raises(LoradError) as caught:
        endless.encode(ONE_TURN)
    assert caught.value.code == "TEMPLATE_NO_EOS"


def test_an_end_token_that_the_tokenizer_does_not_know_is_refused(tiny_with: Callable[..., Renderer]) -> None:
    with pytest.raises(LoradError) as caught:
        tiny_with("", "<|nowhere|>")
    assert caught.value.code == "EOS_UNKNOWN"


def test_a_base_without_its_seal_or_with_another_tokenizer_is_refused(tiny_base: Path) -> None:
    with pytest.raises(BaseMissingError):
        Renderer.load(tiny_base.parent / "nowhere")
    (tiny_base / TOKENIZER).write_text("{}")
    with pytest.raises(IntegrityError) as caught:
        Renderer.load(tiny_base)
    assert caught.value.code == "BASE_CHANGED"


@pytest.mark.model
def test_the_real_tokenizer_learns_exactly_the_answers(real: Renderer) -> None:
    assert learnt(real, ONE_TURN) == ["hello world<|im_end|>"]
    assert learnt(real, TWO_TURNS) == ["yes, 日本 🦊<|im_end|>", "no\nno<|im_end|>"]
    assert learnt(real, [*TWO_TURNS[:2], Message("assistant", "yes", weight=0), *TWO_TURNS[3:]]) == ["no\nno<|im_end|>"]
    spec = SPECS["completion_v1"]
    messages = spec.messages(spec.decode(b'{"prompt": "ABSURDITY, n.", "completion": "A statement of belief\\n manifestly inconsistent."}'))
    assert learnt(real, messages) == ["A statement of belief\n manifestly inconsistent.<|im_end|>"]
    encoding = real.encode(messages)
    assert encoding.ids[: encoding.last_turn] == real.prompt(messages[:1])
    assert encoding.ids[-1] != real.eos_id
    assert encoding.supervised[-1] is False
