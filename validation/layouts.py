"""Which layout a row has: one of the specs, or one that other tools write; and how to turn the one into the other."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rendering.specs import SPECS

QUESTIONS = ("prompt", "question", "input", "query", "instruction")
ANSWERS = ("completion", "response", "answer", "output", "reply", "target", "chosen")
UNKNOWN = "unknown"

Plain = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A shape of rows that lorad knows by sight. `fixes` maps a spec to the command that converts rows to it."""

    id: str
    title: str
    matches: Callable[[Plain], bool]
    fixes: Callable[[Plain], Mapping[str, str]] = lambda plain: {}
    hint: str = "turn each row into this spec's form"


def _jq(program: str) -> str:
    return f"jq -c '{program}' {{file}} > {{out}}"


def _pair(question: str, answer: str) -> Mapping[str, str]:
    return {
        "chat_sft_v1": _jq(f'{{messages: [{{role: "user", content: {question}}}, {{role: "assistant", content: {answer}}}]}}'),
        "completion_v1": _jq(f"{{prompt: {question}, completion: {answer}}}"),
    }


def _first(plain: Plain, keys: tuple[str, ...]) -> str:
    return next((key for key in keys if key in plain), "")


def _question_and_answer(plain: Plain) -> Mapping[str, str]:
    return _pair(f".{_first(plain, QUESTIONS)}", f".{_first(plain, ANSWERS)}")


def _alpaca(plain: Plain) -> Mapping[str, str]:
    question = r'(.instruction + (if (.input // "") == "" then "" else "\n\n" + .input end))'
    return _pair(question, f".{_first(plain, ('output', 'response', 'answer'))}")


def _share_gpt(plain: Plain) -> Mapping[str, str]:
    key = _first(plain, ("conversations", "conversation"))
    roles = '{"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}'
    return {"chat_sft_v1": _jq(f"{{messages: [.{key}[] | {{role: {roles}[.from], content: .value}}]}}")}


def _other_spec(spec_id: str) -> Callable[[Plain], Mapping[str, str]]:
    return lambda plain: dict.fromkeys(SPECS, f"lorad check {{file}} --schema {spec_id}")


LAYOUTS: tuple[Layout, ...] = (
    Layout(
        id="openai_batch",
        title="requests for the OpenAI batch API",
        matches=lambda plain: "custom_id" in plain and "body" in plain,
        hint="requests hold no answers: join them with the batch's results first",
    ),
    Layout(
        id="sharegpt",
        title="ShareGPT conversations (from, value)",
        matches=lambda plain: bool(_first(plain, ("conversations", "conversation"))),
        fixes=_share_gpt,
    ),
    Layout(
        id="preference",
        title="preference pairs (chosen, rejected)",
        matches=lambda plain: "chosen" in plain and "rejected" in plain,
        hint="this lorad learns from answers, not from pairs: give the chosen answers as rows of this spec",
    ),
    Layout(
        id="correction",
        title="corrections (prompt, model_output, correction)",
        matches=lambda plain: "correction" in plain and "model_output" in plain,
        fixes=lambda plain: _pair(".prompt", ".correction"),
    ),
    Layout(
        id="alpaca",
        title="Alpaca rows (instruction, input, output)",
        matches=lambda plain: "instruction" in plain and bool(_first(plain, ("output", "response", "answer"))),
        fixes=_alpaca,
    ),
    Layout(
        id="chat_sft_v1",
        title="chat rows (messages)",
        matches=lambda plain: "messages" in plain,
        fixes=_other_spec("chat_sft_v1"),
        hint='declare it: --schema chat_sft_v1, or "schema_id": "chat_sft_v1" in the sidecar',
    ),
    Layout(
        id="completion_v1",
        title="completion rows (prompt, completion)",
        matches=lambda plain: "prompt" in plain and "completion" in plain,
        fixes=_other_spec("completion_v1"),
        hint='declare it: --schema completion_v1, or "schema_id": "completion_v1" in the sidecar',
    ),
    Layout(
        id="prompt_response",
        title="question and answer under other names",
        matches=lambda plain: bool(_first(plain, QUESTIONS)) and bool(_first(plain, ANSWERS)),
        fixes=_question_and_answer,
    ),
    Layout(
        id="gemini",
        title="Gemini contents (role, parts)",
        matches=lambda plain: "contents" in plain,
        fixes=lambda plain: {
            "chat_sft_v1": _jq('{messages: [.contents[] | {role: {"user": "user", "model": "assistant"}[.role], content: [.parts[].text] | join("")}]}')
        },
    ),
    Layout(
        id="message",
        title="one message instead of a conversation (role, content)",
        matches=lambda plain: "role" in plain and "content" in plain,
        hint="a row is a whole conversation: put its messages into one list under the key messages",
    ),
    Layout(
        id="text",
        title="running text (text)",
        matches=lambda plain: "text" in plain,
        hint="running text has no question and no answer: say what is asked and what is to be learnt",
    ),
)


def layout_of(plain: Plain, spec_id: str = "") -> Layout | None:
    """The layout of a row; the named spec first where its required keys are there. None: not known by sight."""
    if spec_id and all(key in plain for key in SPECS[spec_id].required):
        return next(layout for layout in LAYOUTS if layout.id == spec_id)
    return next((layout for layout in LAYOUTS if layout.matches(plain)), None)
