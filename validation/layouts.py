"""Which layout a row has: one of the specs, or one that other tools write; and how to turn the one into the other."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from rendering.specs import ROW_OPTIONAL, SPECS, Spec
from validation import readings, transcripts
from validation.conversions import (
    ANSWERS,
    BETTER,
    CONVERSATIONS,
    LABELS,
    QUESTIONS,
    SPECS_WRITTEN,
    SYSTEMS,
    WORSE,
    Plain,
    Reading,
    loss,
    written,
)
from validation.readings import first_key, listed

UNKNOWN = "unknown"
CONVERT = "lorad fix {file} -o {out} --schema "
CHECK = "lorad check {file} --schema "
AS_IT_IS = "this is the layout of "
"""How the hint begins where the rows are rows of a spec already; the spec's id follows."""


def _nothing(plain: Plain) -> Reading | None:
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A shape of rows that lorad knows by sight; its id is that of a spec, or a name of its own.

    `read` says what a row says. `is_sure`: it is this layout even where the keys of the declared spec are there too.
    """

    id: str
    title: str
    matches: Callable[[Plain], bool]
    read: Callable[[Plain], Reading | None] = _nothing
    hint: str = "turn each row into this spec's form"
    fix: str = ""
    is_sure: bool = False

    @property
    def convert(self) -> Mapping[str, Callable[[Plain], dict[str, Any] | None]]:
        """Functions from a row of this layout to a row of a spec, by spec; None where a row cannot be converted without loss."""
        if self.read is _nothing:
            return MappingProxyType({})
        return MappingProxyType({spec_id: lambda plain, spec_id=spec_id: written(self.read(plain), plain, spec_id) for spec_id in SPECS_WRITTEN})

    def way(self, plain: Plain, spec_id: str) -> tuple[str, str]:
        """(hint, fix): how rows like this one become rows of the spec."""
        converts = convert_as(self, plain, spec_id) is not None
        fix = f"{CONVERT}{spec_id}" if converts else self.fix
        reading = None if converts else self.read(plain)
        lost = loss(reading, plain) if reading else ""
        if self.id in SPECS:
            as_it_is = f"{AS_IT_IS}{self.id}: declare --schema {self.id}, or schema_id in the sidecar"
            return (f"{as_it_is}; or convert into {spec_id}" if converts else as_it_is), fix or f"{CHECK}{self.id}"
        if lost:
            return f"no row like this is converted, for {lost}: leave it out, or write it anew by hand", fix
        return ("convert; what the spec has no key for goes into metadata" if converts else self.hint), fix


def _has(*keys: str) -> Callable[[Plain], bool]:
    return lambda plain: all(key in plain for key in keys)


def _messages(plain: Plain) -> list[Any]:
    found = plain.get("messages")
    return found if isinstance(found, list) else []


def _shared_keys(plain: Plain) -> set[str]:
    """The keys of the first message."""
    turns = _messages(plain)
    return set(turns[0]) if turns and isinstance(turns[0], dict) else set()


def _turns_elsewhere(plain: Plain) -> set[str]:
    """The keys of the first turn of a conversation under a key of other tools; empty where there is none."""
    key = first_key(plain, CONVERSATIONS[:-1])
    turns = listed(plain[key]) if key else None
    return set(turns[0]) if turns and isinstance(turns[0], dict) else set()


def _from_value(plain: Plain) -> bool:
    keys = _shared_keys(plain)
    return "role" not in keys and {"from", "value"} <= keys


def _blocks(plain: Plain) -> bool:
    """Whether messages hold blocks for the use of tools as Anthropic's API writes them, or a system text stands beside them."""
    if "system" in plain and isinstance(plain.get("messages"), list):
        return True
    for message in _messages(plain):
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, list) and any(isinstance(part, dict) and part.get("type") in ("tool_use", "tool_result") for part in content):
            return True
    return False


def _pictures(plain: Plain) -> bool:
    if "images" in plain:
        return True
    for message in _messages(plain):
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, list) and any(isinstance(part, dict) and part.get("type") in ("image", "image_url") for part in content):
            return True
    return False


def _puzzle(plain: Plain) -> bool:
    turns = [message.get("content") for message in _messages(plain) if isinstance(message, dict)]
    return any(isinstance(content, str) and "syllable bank:" in content.lower() for content in turns)


_WRAPPERS = ("data", "rows", "examples", "train", "items", "samples", "records", "dataset")


def _wrapper(plain: Plain) -> str:
    """The key under which one object holds all rows."""
    if len(plain) > 3:
        return ""
    for key in _WRAPPERS:
        held = plain.get(key)
        if isinstance(held, list) and held and all(isinstance(one, dict) for one in held):
            return key
    return ""


LAYOUTS: tuple[Layout, ...] = (
    Layout(
        id="openai_batch",
        title="requests for the OpenAI batch API",
        matches=_has("custom_id", "body"),
        hint="requests hold no answers: join them with the batch's results by custom_id first",
    ),
    Layout(
        id="openai_batch_output",
        title="results of the OpenAI batch API",
        matches=_has("custom_id", "response"),
        hint="results hold no questions: join them with the batch's requests by custom_id first",
    ),
    Layout(
        id="openai_preference",
        title="OpenAI's pairs (input, preferred_output, non_preferred_output)",
        matches=_has("input", "preferred_output", "non_preferred_output"),
        read=readings.preference,
    ),
    Layout(
        id="sharegpt_messages",
        title="ShareGPT turns (from, value) under the key messages",
        matches=_from_value,
        read=readings.conversation,
        is_sure=True,
    ),
    Layout(
        id="anthropic",
        title="messages as Anthropic's API writes them (system beside them, blocks of tool use)",
        matches=_blocks,
        read=readings.anthropic,
        hint="put the system text first as a message; calls go into tool_calls, results into turns of role tool",
        is_sure=True,
    ),
    Layout(
        id="correction_v1",
        title="corrections (prompt, model_output, correction)",
        matches=_has("model_output", "correction"),
        read=readings.correction,
    ),
    Layout(id="preference_v1", title="preference pairs (prompt, chosen, rejected)", matches=_has("prompt", "chosen", "rejected")),
    Layout(
        id="preference",
        title="preference pairs (a better and a worse answer)",
        matches=lambda plain: bool(first_key(plain, BETTER)) and bool(first_key(plain, WORSE)),
        read=readings.preference,
        hint="a pair has prompt, chosen and rejected: check it with --schema preference_v1 once it has them",
    ),
    Layout(id="unpaired_v1", title="labelled answers (prompt, completion, label)", matches=_has("prompt", "completion", "label")),
    Layout(
        id="llava",
        title="ShareGPT conversations with pictures (LLaVA)",
        matches=lambda plain: bool(_turns_elsewhere(plain)) and first_key(plain, ("image", "images")) != "",
        read=readings.pictures,
    ),
    Layout(
        id="labelled",
        title="labelled answers (an answer, and whether it is a good one)",
        matches=lambda plain: first_key(plain, LABELS) != "" and first_key(plain, (*ANSWERS, *CONVERSATIONS)) != "",
        read=readings.labelled,
        hint="a labelled answer has prompt, completion and label (true or false): check it with --schema unpaired_v1 once it has them",
    ),
    Layout(
        id="sharegpt",
        title="ShareGPT conversations (from, value)",
        matches=lambda plain: "from" in _turns_elsewhere(plain),
        read=readings.conversation,
    ),
    Layout(
        id="turns",
        title="conversations under another key than messages",
        matches=lambda plain: bool(_turns_elsewhere(plain)),
        read=readings.conversation,
    ),
    Layout(
        id="instruction_v1",
        title="Alpaca rows (instruction, input, output)",
        matches=_has("instruction", "output"),
        read=readings.question_and_answer,
    ),
    Layout(id="vision_v1", title="conversations about pictures (messages, images)", matches=lambda plain: "messages" in plain and _pictures(plain)),
    Layout(id="syllo_v1", title="word puzzles (messages with a syllable bank)", matches=lambda plain: "messages" in plain and _puzzle(plain)),
    Layout(id="chat_sft_v1", title="chat rows (messages)", matches=_has("messages"), read=readings.conversation),
    Layout(id="completion_v1", title="completion rows (prompt, completion)", matches=_has("prompt", "completion"), read=readings.question_and_answer),
    Layout(
        id="prompt_response",
        title="question and answer under other names",
        matches=lambda plain: first_key(plain, QUESTIONS) != "" and first_key(plain, ANSWERS) != "",
        read=readings.question_and_answer,
        hint="name the two texts as the spec does; an 'input' alone is no question: an instruction may be missing",
    ),
    Layout(id="gemini", title="Gemini contents (role, parts)", matches=_has("contents"), read=readings.gemini),
    Layout(
        id="message",
        title="one message instead of a conversation (role, content)",
        matches=_has("role", "content"),
        hint="a row is a whole conversation: put its messages into one list under the key messages",
    ),
    Layout(
        id="text",
        title="running text (text)",
        matches=_has("text"),
        read=transcripts.running_text,
        hint="running text has no question and no answer: say what is asked and what is to be learnt",
    ),
    Layout(
        id="wrapper",
        title="one object that holds all rows in a list",
        matches=lambda plain: bool(_wrapper(plain)),
        hint="write each value of the list on a line of its own",
        fix="jq -c '.[] | select(type == \"array\") | .[]' {file} > {out}",
    ),
    Layout(
        id="api_error",
        title="error messages of a web service",
        matches=lambda plain: len(plain) <= 3 and "error" in plain,
        hint="the download failed: fetch the file again",
    ),
)
_BY_ID: Mapping[str, Layout] = MappingProxyType({layout.id: layout for layout in LAYOUTS})
_SURE = tuple(layout for layout in LAYOUTS if layout.is_sure)


_TELLING = frozenset((*QUESTIONS, *ANSWERS, *SYSTEMS, *CONVERSATIONS, *BETTER, *WORSE, *LABELS, "text", "contents", "role", "content", "context", "image"))
_TELLING |= {key for spec in SPECS.values() for key in spec.required + spec.own}
"""Keys that say which layout a row has."""


def is_incomplete(plain: Plain, spec: Spec) -> bool:
    """Whether a row is one of the spec but for a required key: it has some of the spec's own, and none that tells of another layout."""
    if all(key in plain for key in spec.required):
        return False
    known = set(spec.keys)
    own = known - set(ROW_OPTIONAL) - set(spec.columns)
    return any(key in own for key in plain) and not any(key in _TELLING and key not in known for key in plain)


def layout_of(plain: Plain, spec: Spec | None = None) -> Layout | None:
    """The layout of a row; that of the spec where its required keys are there.

    None: not known by sight, or the layout of a project's own spec, or a row of the spec that lacks a key.
    """
    if spec is not None and all(key in plain for key in spec.required):
        sure = next((layout for layout in _SURE if "messages" in spec.required and layout.matches(plain)), None)
        return sure or _BY_ID.get(spec.id)
    if spec is not None and is_incomplete(plain, spec):
        return None
    return next((layout for layout in LAYOUTS if layout.matches(plain)), None)


def convert(plain: Plain, spec_id: str) -> dict[str, Any] | None:
    """The row as one of the spec; None where it is one already, or cannot be one without loss."""
    spec = SPECS.get(spec_id)
    layout = layout_of(plain, spec) if spec else None
    if layout is None and spec_id == "preference_v1" and "prompt" not in plain:
        layout = _BY_ID["preference"]  # the prompt is what both answers begin with
    if layout is None or layout.id == spec_id:
        return None
    return convert_as(layout, plain, spec_id)


def convert_as(layout: Layout, plain: Plain, spec_id: str) -> dict[str, Any] | None:
    """The same for a row whose layout is known."""
    return written(layout.read(plain), plain, spec_id)
