"""Declarations, calls and results reach the model whatever its template knows of them."""

import json
from collections.abc import Callable
from contextlib import suppress

import pytest
import template_cases as templates

from core.errors import LoradError
from rendering.chat import ChatTemplate
from rendering.rowtypes import Role
from rendering.specs import SPECS, Message, ToolCall
from rendering.tokens import Renderer
from rendering.tooltext import arguments_of

TOOLS = [{"type": "function", "function": {"name": "weather", "description": "how it is", "parameters": {"type": "object", "properties": {}}}}]


def calling(*calls: tuple[str, str, str], content: str = "", weight: int = 1) -> Message:
    return Message("assistant", content, weight=1 if weight else 0, tool_calls=tuple(ToolCall(*call) for call in calls))


TALK = [
    Message("user", "Rome and Oslo?"),
    calling(("weather", '{"city":"Rome"}', "c1"), ("weather", '{"city": "Ōslo", "days": 2}', "c2")),
    Message("tool", "sunny", tool_call_id="c1"),
    Message("tool", "snow", tool_call_id="c2"),
    Message("assistant", "Sun and snow."),
    Message("user", "And Bonn?"),
    calling(("weather", '{"city": "Bonn"}', "c3"), content="I look."),
    Message("tool", "rain", tool_call_id="c3"),
    Message("assistant", "Rain."),
]


def learnt(renderer: Renderer, messages: list[Message], tools: list[dict[str, object]]) -> list[str]:
    """The text of each unbroken run of supervised tokens."""
    encoding = renderer.encode(messages, tools)
    runs: list[list[int]] = []
    for index, supervised in enumerate(encoding.supervised):
        if supervised and not encoding.supervised[index - 1]:
            runs.append([])
        if supervised:
            runs[-1].append(encoding.ids[index])
    return [renderer.decode(run, skip_special=False) for run in runs]


# --- what a template knows


@pytest.mark.parametrize(
    ("source", "as_text"),
    [
        (templates.OBJECT_TOOLS, False),
        (templates.TEXT_TOOLS, False),
        (templates.PLAIN, True),
        (templates.NO_SYSTEM, True),
        (templates.PYTHON_TOOLS, False),  # prints an object as Python does, and JSON text as it is
        (templates.NAMELESS_TOOLS, True),
        (templates.DECLARATIONS_ONLY, True),
        ("{{ raise_exception('no tools') if tools }}" + templates.OBJECT_TOOLS, True),
        ("{{ messages | length }}", True),
    ],
)
def test_one_trial_tells_whether_a_template_shows_tools(source: str, as_text: bool) -> None:
    assert ChatTemplate(source).tools_as_text is as_text


def test_a_template_gets_arguments_as_the_object_that_it_writes_itself() -> None:
    text = ChatTemplate(templates.OBJECT_TOOLS).render(TALK, tools=TOOLS)
    assert 'call weather {"city": "Rome"}\ncall weather {"city": "Ōslo", "days": 2}<|im_end|>' in text
    assert text.startswith(f"<|im_start|>system\n{json.dumps(TOOLS[0])}\n<|im_end|>\n<|im_start|>user\nRome")
    assert "<|im_start|>user\nresult c1: sunny\nresult c2: snow<|im_end|>" in text


def test_a_template_that_joins_texts_gets_arguments_as_json_text() -> None:
    for source in (templates.TEXT_TOOLS, templates.PYTHON_TOOLS):
        assert 'call weather {"city": "Rome"}\n' in ChatTemplate(source).render(TALK, tools=TOOLS)


def test_templates_see_tools_only_where_a_row_has_them() -> None:
    probe = ChatTemplate("{{ 'tools' if tools }}{% for m in messages %}{{ m.tool_calls is defined }}{{ m.tool_call_id is defined }}{{ m.content }}{% endfor %}")
    assert probe.render([Message("user", "a")]) == "FalseFalsea"


# --- tools as text


def test_tools_are_written_into_the_texts_of_a_template_without_a_place_for_them() -> None:
    template = ChatTemplate(templates.PLAIN)
    text = template.render([Message("system", "Be brief."), *TALK[:5]], tools=TOOLS)
    system, user, calls, results, answer, rest = text.split("<|im_end|>\n")
    assert system.startswith("<|im_start|>system\nBe brief.\n\n")
    assert f"<tools>\n{json.dumps(TOOLS[0])}\n</tools>" in system
    assert user == "<|im_start|>user\nRome and Oslo?"
    assert calls == (
        '<|im_start|>assistant\n<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>\n'
        '<tool_call>\n{"name": "weather", "arguments": {"city": "Ōslo", "days": 2}}\n</tool_call>'
    )
    assert results == "<|im_start|>user\n<tool_response>\nsunny\n</tool_response>\n<tool_response>\nsnow\n</tool_response>"
    assert answer == "<|im_start|>assistant\nSun and snow."
    assert rest == ""


def test_what_the_assistant_says_stands_before_its_call() -> None:
    assert 'assistant\nI look.\n<tool_call>\n{"name": "weather"' in ChatTemplate(templates.PLAIN).render(TALK, tools=TOOLS)


def test_a_template_without_a_system_turn_is_told_of_tools_by_the_first_user_turn() -> None:
    text = ChatTemplate(templates.NO_SYSTEM).render(TALK, tools=TOOLS)
    assert text.startswith("<|im_start|>user\n")
    assert text.index("</tools>") < text.index("\n\nRome and Oslo?")
    assert "system" not in text


def test_calls_and_results_without_declarations_are_written_too() -> None:
    text = ChatTemplate(templates.PLAIN).render(TALK[:4])
    assert "<tools>" not in text
    assert text.count("<tool_call>") == 2
    assert text.count("<tool_response>") == 2
    assert "<|im_start|>tool" not in text


def test_arguments_that_are_no_json_are_shown_as_they_are() -> None:
    assert arguments_of(ToolCall("f", "{'a': 1}")) == "{'a': 1}"
    assert arguments_of(ToolCall("f", "[" * 100_000)) == "[" * 100_000
    for depth in (100, 800, 900, 950, 100_000):  # somewhere there they are too deep to be written, and never a crash
        with suppress(LoradError):
            assert "[[[" in ChatTemplate(templates.PLAIN).render([TALK[0], calling(("f", "[" * depth + "]" * depth, "c1"))])


# --- what is learnt


@pytest.mark.parametrize("source", [templates.PLAIN, templates.NO_SYSTEM, templates.OBJECT_TOOLS, templates.TEXT_TOOLS])
def test_calls_are_learnt_and_results_are_not(tiny_with: Callable[..., Renderer], source: str) -> None:
    renderer = tiny_with(source)
    first, second, third, fourth = learnt(renderer, TALK, TOOLS)
    assert first.count("weather") == 2
    assert first.endswith("<|im_end|>")
    assert "sunny" not in first + second + third + fourth
    assert second == "Sun and snow.<|im_end|>"
    assert third.startswith("I look.\n")
    assert "Bonn" in third
    assert fourth == "Rain.<|im_end|>"


@pytest.mark.parametrize("source", [templates.PLAIN, templates.OBJECT_TOOLS])
def test_a_call_of_weight_0_is_context_only(tiny_with: Callable[..., Renderer], source: str) -> None:
    renderer = tiny_with(source)
    muted = [TALK[0], Message("assistant", "", weight=0, tool_calls=TALK[1].tool_calls), *TALK[2:5]]
    assert learnt(renderer, muted, TOOLS) == ["Sun and snow.<|im_end|>"]
    assert [(span.turn, span.learnt) for span in renderer.encode(muted, TOOLS).spans] == [(1, False), (4, True)]


@pytest.mark.parametrize("source", [templates.PLAIN, templates.NO_SYSTEM, templates.OBJECT_TOOLS])
def test_training_and_serving_read_the_same_prompt_before_every_turn(tiny_with: Callable[..., Renderer], source: str) -> None:
    renderer = tiny_with(source)
    whole = renderer.encode(TALK, TOOLS)
    for span in whole.spans:
        assert whole.text[: span.start] == renderer.render(TALK[: span.turn], TOOLS, add_generation_prompt=True)
    first_turn = renderer.encode(TALK[:2], TOOLS)
    assert first_turn.ids[: first_turn.last_turn] == renderer.prompt(TALK[:1], TOOLS)


def test_offsets_are_places_in_the_text(tiny: Renderer) -> None:
    encoding = tiny.encode([Message("user", "日本 🦊"), Message("assistant", "the dog")])
    assert len(encoding.offsets) == len(encoding.ids)
    place = encoding.text.index("the dog")
    spanned = [encoding.offsets[index] for index, supervised in enumerate(encoding.supervised) if supervised]
    assert encoding.text[spanned[0][0] : spanned[-1][1]] == "the dog<|im_end|>"
    assert spanned[0][0] == place == encoding.spans[0].start


def test_rows_of_every_accepted_form_render_alike(tiny: Renderer) -> None:
    spec = SPECS["chat_sft_v1"]

    def row(call: str) -> str:
        line = f'{{"messages": [{{"role": "user", "content": "q"}}, {call}]}}'
        return tiny.render(spec.messages(spec.decode(line.encode())))

    as_object = row(
        '{"role": "assistant", "content": null, "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": {"a": [1]}}}]}'
    )
    as_json = row('{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{\\"a\\": [1]}"}}]}')
    assert as_object == as_json


@pytest.mark.parametrize("role", ["user", "system"])
def test_an_earlier_text_that_looks_like_a_call_changes_nothing(role: Role) -> None:
    said = Message(role, "<tool_call>\n{}\n</tool_call>")
    assert ChatTemplate(templates.PLAIN).render([said]) == f"<|im_start|>{role}\n<tool_call>\n{{}}\n</tool_call><|im_end|>\n"


@pytest.mark.model
def test_the_real_base_has_no_place_for_tools_and_learns_calls_all_the_same(real: Renderer) -> None:
    assert real.template.tools_as_text
    first, second, third, fourth = learnt(real, TALK, TOOLS)
    assert first == (
        '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>\n'
        '<tool_call>\n{"name": "weather", "arguments": {"city": "Ōslo", "days": 2}}\n</tool_call><|im_end|>'
    )
    assert (second, fourth) == ("Sun and snow.<|im_end|>", "Rain.<|im_end|>")
    assert third.startswith("I look.\n<tool_call>")
