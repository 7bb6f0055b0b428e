"""What a row of another layout says, and how it is written as a row of a spec. Who reads it: readings.py, transcripts.py.

Nothing is invented and nothing is lost: keys that the spec does not have go into `metadata`, where they are kept and
never trained on. What cannot be read for certain, or would lose its meaning there, is not converted.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

Plain = Mapping[str, Any]
Turns = list[dict[str, Any]]

ROLE_NAMES = {
    "human": "user",
    "person": "user",
    "customer": "user",
    "prompter": "user",
    "question": "user",
    "gpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "ai": "assistant",
    "chatbot": "assistant",
    "chatgpt": "assistant",
    "claude": "assistant",
    "bard": "assistant",
    "llm": "assistant",
    "agent": "assistant",
    "answer": "assistant",
    "function": "tool",
    "ipython": "tool",
    "observation": "tool",
    "tool_result": "tool",
    "function_response": "tool",
    "developer": "system",
}
"""Names of roles in other tools, in small letters, and our own."""

QUESTIONS = ("prompt", "question", "query", "instruction", "input", "user", "human", "problem", "request")
ANSWERS = ("completion", "response", "answer", "output", "reply", "target", "assistant", "gpt", "bot", "solution")
SYSTEMS = ("system", "system_prompt", "system_message", "systemInstruction", "system_instruction")
CONTEXTS = ("input", "context", "contexts", "passage", "document", "documents", "article", "background", "history", "choices", "options")
CONVERSATIONS = ("conversations", "conversation", "dialogue", "dialog", "chat", "turns", "messages")
BETTER = ("chosen", "preferred_output", "response_chosen", "chosen_response", "preferred")
WORSE = ("rejected", "non_preferred_output", "response_rejected", "rejected_response", "dispreferred")
LABELS = ("label", "kto_tag", "thumbs", "feedback", "is_good")
VERDICTS = (*LABELS, "good", "correct", "is_correct", "accepted", "is_accepted", "is_helpful", "thumb", "vote")
"""Keys that may say whether the answer is a good one; the LABELS are those that lorad reads."""

_NAMES_OF_PEOPLE = ("user", "human", "assistant", "gpt", "bot", "request")  # which may as well hold who it was
_BESIDE = ("tools", "functions", "image", "images", "video", "videos", "audio", "correction", "corrected", "corrected_output")
_MEANT = frozenset((*QUESTIONS, *ANSWERS, *SYSTEMS, *CONTEXTS, *CONVERSATIONS, *BETTER, *WORSE, *_BESIDE)) - frozenset(_NAMES_OF_PEOPLE)
_THUMBS = {"up": True, "down": False, "true": True, "false": False, "good": True, "bad": False, "1": True, "0": False, "1.0": True, "0.0": False}
_THUMBS |= {"yes": True, "no": False, "-1": False, "-1.0": False}

KNOWN_ROLES = {role: role for role in ("system", "user", "assistant", "tool")} | ROLE_NAMES


@dataclass(slots=True)
class Reading:
    """What a row says, whatever its layout. `used` are the keys that this was read from."""

    used: set[str]
    turns: Turns = field(default_factory=list)
    chosen: Turns | str | None = None
    rejected: Turns | str | None = None
    label: bool | None = None
    tools: list[Any] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    task: tuple[str, str] | None = None
    """(instruction, input) where the question was written as these two."""

    @property
    def exchange(self) -> tuple[str, str] | None:
        """(question, answer) where the row is one of each and nothing else."""
        if [turn["role"] for turn in self.turns] != ["user", "assistant"] or self.tools or self.images:
            return None
        texts = [turn["content"] for turn in self.turns if set(turn) == {"role", "content"} and isinstance(turn["content"], str)]
        return (texts[0], texts[1]) if len(texts) == 2 else None


# --- what would be lost


def verdict(value: Any) -> bool | None:
    """Whether a label calls an answer good; None where it says nothing of the kind."""
    return _THUMBS.get(str(value).strip().lower()) if isinstance(value, str | int | float) else None


def is_empty(value: Any) -> bool:
    """Whether there is nothing in it."""
    return value is None or (isinstance(value, str | list | dict) and not value) or (isinstance(value, str) and not value.strip())


_LEAST_QUOTE = 12  # characters; a shorter text stands in many a longer one


def is_among(value: Any, texts: Iterable[str]) -> bool:
    """Whether a text is one of these, or so long that it stands in one of them by no chance."""
    if not isinstance(value, str):
        return False
    wanted = value.strip()
    return any(wanted == text or (len(wanted) >= _LEAST_QUOTE and wanted in text) for text in texts)


def loss(reading: Reading, plain: Plain) -> str:
    """Why the row cannot be converted without harm, in words; empty where it can.

    A key that was not read may go into metadata only where nothing of what is asked or learnt hangs on it.
    """
    said = _texts_of(reading.turns)
    held = plain.get("metadata")
    metadata = held if isinstance(held, dict) else {}
    for key, value in plain.items():
        if key in reading.used or is_empty(value) or key == "metadata":
            continue
        if key in VERDICTS and verdict(value) is False:
            return f"{key!r} says that the answer is a bad one, and it would be learnt as a good one"
        if key in _MEANT and not is_among(value, said):
            return f"what {key!r} says would be lost"
        if key == "weight" and not _is_weight(value):
            return "'weight' is no number from 0 to 1, and would be lost"
        if key in metadata and metadata[key] != value:
            return f"the metadata has a {key!r} of its own"
    return ""


def _texts_of(turns: Turns) -> list[str]:
    found = []
    for turn in turns:
        content = turn["content"]
        parts = [content] if isinstance(content, str) else [part.get("text", "") for part in content or ()]
        found += [part.strip() for part in parts]
    return found


def _is_weight(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


# --- writing


def _chat(reading: Reading) -> dict[str, Any] | None:
    if reading.chosen is not None or reading.label is not None or reading.images or not reading.turns:
        return None
    return {"messages": reading.turns} | ({"tools": reading.tools} if reading.tools else {})


def _completion(reading: Reading) -> dict[str, Any] | None:
    pair = reading.exchange if reading.chosen is None and reading.label is None else None
    return {"prompt": pair[0], "completion": pair[1]} if pair else None


def _instruction(reading: Reading) -> dict[str, Any] | None:
    pair = reading.exchange if reading.chosen is None and reading.label is None else None
    if not pair:
        return None
    instruction, given = reading.task or (pair[0], "")
    return {"instruction": instruction} | ({"input": given} if given else {}) | {"output": pair[1]}


def _preference(reading: Reading) -> dict[str, Any] | None:
    if reading.chosen is None or reading.rejected is None or not reading.turns:
        return None
    prompt: Any = reading.turns
    if isinstance(reading.chosen, str) and isinstance(reading.rejected, str) and [turn["role"] for turn in reading.turns] == ["user"]:
        prompt = reading.turns[0]["content"]
    return {"prompt": prompt, "chosen": _as_turns(reading.chosen, prompt), "rejected": _as_turns(reading.rejected, prompt)}


def _as_turns(answer: Turns | str, prompt: Any) -> Turns | str:
    return [{"role": "assistant", "content": answer}] if isinstance(answer, str) and not isinstance(prompt, str) else answer


def _unpaired(reading: Reading) -> dict[str, Any] | None:
    if reading.label is None or reading.tools or len(reading.turns) < 2 or reading.turns[-1]["role"] != "assistant":
        return None
    pair = reading.exchange
    prompt: Any = pair[0] if pair else reading.turns[:-1]
    return {"prompt": prompt, "completion": pair[1] if pair else reading.turns[-1:], "label": reading.label}


def _vision(reading: Reading) -> dict[str, Any] | None:
    return {"messages": reading.turns, "images": reading.images} if reading.images and reading.turns and not reading.tools else None


_WRITERS: Mapping[str, Callable[[Reading], dict[str, Any] | None]] = {
    "chat_sft_v1": _chat,
    "syllo_v1": _chat,
    "completion_v1": _completion,
    "instruction_v1": _instruction,
    "preference_v1": _preference,
    "unpaired_v1": _unpaired,
    "vision_v1": _vision,
}


SPECS_WRITTEN = tuple(_WRITERS)


def written(reading: Reading | None, plain: Plain, spec_id: str) -> dict[str, Any] | None:
    """What was read as a row of the spec; None where it is none. Keys that were not read go into metadata."""
    writer = _WRITERS.get(spec_id)
    row = writer(reading) if reading and writer else None
    if row is None or reading is None or loss(reading, plain):
        return None
    metadata = dict(plain["metadata"]) if isinstance(plain.get("metadata"), dict) else {}
    for key, value in plain.items():
        if key in reading.used or key in row or value is None or (key == "metadata" and isinstance(value, dict)):
            continue
        if key == "id" and isinstance(value, str | int) and not isinstance(value, bool):
            row["id"] = value
        elif key == "weight" and _is_weight(value):
            row["weight"] = value
        else:
            metadata.setdefault(key, value)
    return row | ({"metadata": metadata} if metadata else {})
