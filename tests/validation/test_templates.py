"""What the base's chat template makes of rows, and rows that carry the marks of another template."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from gate_cases import GOOD, Check, chat, found, turns
from model_folders import CHATML, model_folder

from store.paths import default_models_dir
from validation import Finding, Report
from validation import fidelity as fidelity_module
from validation.context import Surroundings

Under = Callable[..., Report]
BLOCKS = "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + CONTENT + '<|im_end|>\n' }}{% endfor %}"
OPENING = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
TEMPLATE_CHECKS = ("N05", "N06", "N07", "N08", "N09")


def template(content: str, before: str = "") -> str:
    """ChatML whose contents are written by this expression of `m`."""
    return before + BLOCKS.replace("CONTENT", content) + OPENING


STRIPS_THOUGHTS = template("(m['content'].split('</think>')[-1].lstrip() if m['role'] == 'assistant' and not loop.last else m['content'])")
ALTERNATES = template(
    "m['content']",
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Roles must alternate user/assistant') }}{% endif %}{% endfor %}",
)
WITH_TOOLS = (
    "{% if tools %}{{ '<|im_start|>system\n' }}{% for t in tools %}{{ t | tojson }}{% endfor %}{{ '<|im_end|>\n' }}{% endif %}"
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] }}"
    "{% for c in m.tool_calls or [] %}{{ c.function.name + ' ' + (c.function.arguments | tojson) }}{% endfor %}"
    "{{ '<|im_end|>\n' }}{% endfor %}" + OPENING
)


PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}


def tool_row(arguments: object = '{"city": "Köln", "days": 3}', name: str = "weather", answer: str = "rain") -> dict[str, object]:
    """A conversation with one call of a declared tool."""
    return {
        "messages": [
            {"role": "user", "content": "what will it be?"},
            {"role": "assistant", "content": None, "tool_calls": [{"id": "call00001", "function": {"name": name, "arguments": arguments}}]},
            {"role": "tool", "content": '{"sky": "grey"}', "tool_call_id": "call00001"},
            {"role": "assistant", "content": answer},
        ],
        "tools": [{"type": "function", "function": {"name": "weather", "description": "the weather", "parameters": PARAMETERS}}],
    }


@pytest.fixture
def under(check: Check, tmp_path: Path) -> Under:
    """Rows checked under a chat template."""

    def run(source: str, rows: list[object], schema: str = "chat_sft_v1", eos: str = "<|im_end|>") -> Report:
        base = model_folder(tmp_path / "model", source, eos=eos)
        return check(rows, schema, level="standard", around=Surroundings(base=base))

    return run


def told(report: Report) -> list[Finding]:
    """What the checks of the template say."""
    return [finding for finding in report.findings if finding.id in TEMPLATE_CHECKS]


# --- N05


def test_a_template_that_refuses_a_row_is_quoted(under: Under) -> None:
    report = under(ALTERNATES, [*GOOD, turns(("system", "be brief"), ("user", "q"), ("assistant", "a"))])
    finding = found(report, "N05")
    assert (finding.severity, finding.lines, finding.count) == ("error", (13,), 1)
    assert "Roles must alternate user/assistant" in finding.message
    assert len(told(report)) == 1


def test_two_causes_of_a_refusal_are_two_findings(under: Under) -> None:
    source = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + ALTERNATES
    source = source.replace("{% for m", "{% if messages | length > 4 %}{{ raise_exception('too many turns') }}{% endif %}{% for m", 1)
    long = turns(*[("user", "q"), ("assistant", "a")] * 3)
    report = under(source, [*GOOD, turns(("system", "s"), ("user", "q"), ("assistant", "a")), long, long])
    assert {(finding.lines, finding.message.rpartition(": ")[2]) for finding in told(report)} == {((13,), "'no system'"), ((14, 15), "'too many turns'")}


# --- N06


def test_a_template_that_drops_the_system_message_loses_text(under: Under) -> None:
    source = template("m['content']").replace("{% for m in messages %}", "{% for m in messages if m['role'] != 'system' %}", 1)
    report = under(source, [*GOOD, turns(("system", "a"), ("user", "what is a cat?"), ("assistant", "a cat is a cat"))])
    finding = found(report, "N06")
    assert (finding.severity, finding.lines, finding.path) == ("error", (13,), "$.messages[0].content")
    assert "drops what the system turn says: 'a'" in finding.message
    assert "first user turn" in finding.hint


def test_reasoning_that_is_stripped_from_earlier_turns_is_named_with_its_consequence(under: Under) -> None:
    row = turns(("user", "q"), ("assistant", "<think>hm</think>yes"), ("user", "r"), ("assistant", "<think>well</think>no"))
    report = under(STRIPS_THOUGHTS, [*GOOD, turns(("user", "q"), ("assistant", "<think>hm</think>yes")), row])
    lost = found(report, "N06")
    assert (lost.severity, lost.lines, lost.path) == ("warning", (14,), "$.messages[1].content")
    assert "reasoning" in lost.message
    mask = found(report, "N07")
    assert (mask.severity, mask.lines) == ("error", (14,))
    assert "differently once later turns follow" in mask.message


def test_blanks_that_are_trimmed_are_no_more_than_a_note(under: Under) -> None:
    report = under(template("m['content'] | trim"), [*GOOD, chat("what is that?\n", "  the answer\n"), chat("q", "a")])
    finding = found(report, "N06")
    assert (finding.severity, finding.lines, finding.count) == ("info", (13,), 1)
    assert report.verdict == "accepted"
    assert len(told(report)) == 1


def test_a_template_that_knows_no_tools_has_them_written_as_text(under: Under) -> None:
    report = under(CHATML, [*GOOD, tool_row()])
    finding = found(report, "N06")
    assert (finding.severity, finding.lines) == ("info", (13,))
    assert "written as text" in finding.message
    assert len(told(report)) == 1


def test_a_template_with_tools_shows_them_and_nothing_is_said(under: Under) -> None:
    rows = [tool_row(), tool_row({"days": 3, "city": 'a "b" c'}), tool_row("{}"), tool_row('{"city":"日本","days":1.50}')]
    assert told(under(WITH_TOOLS, [*GOOD, *rows])) == []


def test_a_template_that_quotes_or_loses_arguments_is_named(under: Under) -> None:
    written = "c.function.arguments | tojson"
    quoting = WITH_TOOLS.replace(f"({written})", f"({written} | tojson if messages | length > 4 else {written})")
    longer = tool_row()
    longer["messages"] = [*longer["messages"], {"role": "user", "content": "and now?"}, {"role": "assistant", "content": "sun"}]  # type: ignore[misc]
    quoted = found(under(quoting, [*GOOD, longer]), "N06")
    assert quoted.severity == "warning"
    assert "inside a JSON text" in quoted.message
    losing = WITH_TOOLS.replace("(c.function.arguments | tojson)", "(c.function.arguments | tojson if messages | length < 5 else '')")
    lost = found(under(losing, [*GOOD, longer]), "N06")
    assert (lost.severity, lost.path) == ("error", "$.messages[1].tool_calls[0].function")
    dropping = WITH_TOOLS.replace("m.tool_calls or []", "((m.tool_calls or []) if messages | length < 5 else [])")
    report = under(dropping.replace("{% if tools %}", "{% if tools and messages | length < 5 %}"), [*GOOD, longer])
    assert {finding.message for finding in told(report) if finding.id == "N06"} == {
        *("the template drops the call of 'weather'", "the template does not show the declared tool 'weather'")
    }


def test_contents_written_as_json_are_not_lost(under: Under) -> None:
    assert told(under(template("(m['content'] | tojson)"), [*GOOD, chat('say "x"\n', "é\t\\ 日本")])) == []


# --- N07, N08


def test_a_template_that_forgets_earlier_turns_has_no_true_prefixes(under: Under) -> None:
    source = template("m['content']").replace("in messages %}", "in messages[-2:] %}", 1)
    report = under(source, [*GOOD, turns(("user", "first question"), ("assistant", "first"), ("user", "second question"), ("assistant", "second"))])
    finding = found(report, "N07")
    assert (finding.severity, finding.lines) == ("error", (13,))
    assert found(report, "N06").severity == "error"


def test_a_template_without_the_answers_leaves_nothing_to_learn(under: Under) -> None:
    source = (
        "{% for m in messages %}{% if m['role'] == 'user' %}{{ m['content'] + '<|im_end|>' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{% endif %}"
    )
    report = under(source, GOOD)
    assert found(report, "N06").count == 12
    assert {"N07", "N08"} & {finding.id for finding in report.findings}


def test_a_template_that_shows_the_answers_alone_would_learn_every_token(under: Under) -> None:
    source = "{% for m in messages %}{% if m['role'] == 'assistant' %}{{ m['content'] + '<|im_end|>' }}{% endif %}{% endfor %}"
    finding = found(under(source, GOOD), "N07")
    assert (finding.severity, finding.count) == ("error", 12)
    assert "the prompt too" in finding.message


def test_a_template_that_never_ends_a_turn_teaches_a_model_that_never_stops(under: Under) -> None:
    source = template("m['content']").replace("<|im_end|>", "")
    finding = found(under(source, GOOD), "N08")
    assert (finding.severity, finding.count, finding.lines) == ("error", 12, (1, 2, 3, 4, 5))
    assert "never learn to stop" in finding.message


def test_an_end_token_that_is_not_the_templates_is_found(under: Under) -> None:
    assert found(under(CHATML, GOOD, eos="<|endoftext|>"), "N08").count == 12


def test_rows_past_the_first_hundred_get_the_verdict_of_their_kind(under: Under) -> None:
    one, two = chat("q", "a"), turns(("user", "q"), ("assistant", "a"), ("user", "r"), ("assistant", "b"))
    source = template("m['content']").replace("in messages %}", "in messages[-3:] %}", 1)
    report = under(source, [*[one] * 150, *[two] * 3])
    assert found(report, "N07").lines == (151, 152, 153)


def test_the_number_of_rows_that_are_encoded_has_a_bound(under: Under, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fidelity_module, "MOST_ENCODED", 5)
    assert found(under(template("m['content']").replace("<|im_end|>", ""), [chat(f"q {n}", f"a {n}") for n in range(20)]), "N08").count in range(5, 21)


@pytest.mark.parametrize(
    "row",
    [
        chat("👩‍👩‍👧‍👦 🏳️‍🌈", "👍🏽 שלום مرحبا"),
        chat("日本語で？", "はい。\u2028次\u2029行\x85"),
        chat("user", "assistant"),
        chat("xQz0zQx", "xQz1zQx and xQz0zQx"),
        chat("a", "a"),
        chat("\r\nq\r\n", "\ta\n\n"),
        chat("What does {{ messages }} print?", "{% for m in messages %}{{ m }}{% endfor %}"),
        turns(("system", ""), ("user", "q"), ("assistant", "a")),
        turns(("user", "q"), ("assistant", ""), ("user", "r"), ("assistant", "b")),
        {
            "messages": [
                {"role": "user", "content": "q", "name": "ann"},
                {"role": "assistant", "content": "a", "weight": 0},
                {"role": "user", "content": "r"},
                {"role": "assistant", "content": "b"},
            ]
        },
    ],
)
def test_rows_that_a_plain_template_takes_whole(under: Under, row: object) -> None:
    assert [finding for finding in told(under(CHATML, [*GOOD, row])) if finding.id != "N09"] == []


@pytest.mark.parametrize("schema", ["completion_v1", "preference_v1"])
def test_rows_of_texts_are_rendered_as_they_are_trained_on(under: Under, schema: str) -> None:
    rows: list[object] = [
        {"prompt": f"p {n}", "completion": f"c {n}"} if schema == "completion_v1" else {"prompt": f"p {n}", "chosen": f"c {n}", "rejected": f"d {n}"}
        for n in range(12)
    ]
    assert told(under(CHATML, rows, schema)) == []
    finding = found(under(template("m['content']").replace("<|im_end|>", ""), rows, schema), "N08")
    assert finding.count == 12


# --- N09


@pytest.mark.parametrize(
    ("question", "answer", "mark"),
    [
        ("### Instruction:\nWrite a poem.", "Roses", "### Instruction:"),
        ("### Instruction\nWrite a poem.\n### Response\n", "Roses", "### Instruction"),
        ("Write a poem.", "### Response:\nRoses", "### Response:"),
        ("[INST] Write a poem. [/INST]", "Roses", "[INST]"),
        ("<<SYS>>be brief<</SYS>> Write.", "Roses", "<<SYS>>"),
        ("Below is an instruction that describes a task. Write.", "Roses", "Below is an instruction"),
        ("Human: Write a poem.\n\nAssistant:", "Roses", "Human:"),
        ("Human: Hi\n\nAssistant: Hello\n\nHuman: Write a poem.\n\nAssistant: ", "Roses", "Human:"),
        ("\n\nUser: Write a poem.", "Roses", "User:"),
        ("Write a poem.", "Assistant: Roses are red", "Assistant:"),
        ("Write a poem.", " ASSISTANT: Roses", "ASSISTANT:"),
    ],
)
def test_marks_of_another_template_at_the_start_of_turns_are_named(check: Check, question: str, answer: str, mark: str) -> None:
    finding = found(check([*GOOD, chat(question, answer)], level="standard"), "N09")
    assert (finding.severity, finding.lines) == ("warning", (13,))
    assert mark in finding.message
    assert finding.message.startswith(("a user turn", "an assistant turn"))


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("What does ### Instruction: mean in an Alpaca file?", "It begins the task; `### Response:` begins the answer."),
        ("Explain this prompt:\n```\nHuman: hi\n\nAssistant:\n```", "```\n[INST] hi [/INST]\n```"),
        ("Summarise:\nUser: hi\nAssistant: hello", "A greeting."),
        ("User: hi\nAssistant: hello\nUser: bye\nSummarise this talk in a word.", "Polite."),
        ("User: ann\nAction: login\nTime: 12:30", "Ann logged in."),
        ("Write a dialogue.", "User: Is it open?\nAssistant: It is.\nUser: Thanks!"),
        ("### Instructions for the stove", "### Responses so far\nNone."),
        ("Users: how many?", "Humans and assistants: nine."),
        ("Assistant professors earn what?", "User-friendly sums."),
        ("#!/bin/sh\n# Human: who wrote this", "Bold move"),
    ],
)
def test_talk_about_such_marks_is_no_residue(check: Check, question: str, answer: str) -> None:
    assert "N09" not in {finding.id for finding in check([*GOOD, chat(question, answer)], level="standard").findings}


def test_one_such_row_in_a_hundred_is_passed_over(check: Check) -> None:
    rows = [chat(f"question {n}", f"answer {n}") for n in range(99)]
    assert "N09" not in {finding.id for finding in check([*rows, chat("Human: hi", "yes")], level="standard").findings}


@pytest.mark.model
def test_the_real_base_takes_rows_of_every_script_whole(check: Check) -> None:
    models = Path(os.environ.get("LORAD_TEST_MODELS") or default_models_dir())
    rows = [
        *GOOD,
        chat("👩‍👩‍👧‍👦", "日本語\u2028שלום"),
        turns(("system", "brief"), ("user", "q"), ("assistant", "a"), ("user", "r"), ("assistant", "b")),
        tool_row(),
    ]
    report = check(rows, level="standard", around=Surroundings(base=str(models / "smollm2-135m-instruct"), max_length=1024))
    assert [(finding.id, finding.severity) for finding in told(report)] == [("N06", "info")]
    assert not {finding.id for finding in report.findings} & {"N02", "N03", "N04", "X02"}
    tokens = report.stats["tokens"]
    assert isinstance(tokens, dict)
    assert tokens["total"]["max"] > 200, "the declaration of the tool is counted"
