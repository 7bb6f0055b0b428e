"""Rows of other layouts, read: what is asked, what is answered. None where a row cannot be read for certain."""

import json
import re
from collections.abc import Sequence
from typing import Any

from validation.conversions import (
    ANSWERS,
    BETTER,
    CONVERSATIONS,
    KNOWN_ROLES,
    LABELS,
    QUESTIONS,
    SYSTEMS,
    WORSE,
    Plain,
    Reading,
    Turns,
    is_empty,
    verdict,
)


def listed(value: Any) -> list[Any] | None:
    """A list, also one that was written as a text."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, list) else None


def first_key(plain: Plain, keys: Sequence[str]) -> str:
    """The first of the keys that the row has; empty for none."""
    return next((key for key in keys if key in plain), "")


def system_turns(plain: Plain, used: set[str]) -> Turns:
    """The system turn of a row that has its text under a key of its own."""
    key = first_key(plain, SYSTEMS)
    text = _text_of(plain[key]) if key else ""
    if not text:
        return []
    used.add(key)
    return [{"role": "system", "content": text}]


def _text_of(value: Any) -> str:
    """A text, the texts of parts, or the text of {"parts": […]}."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return _text_of(value.get("parts") or value.get("text") or value.get("content") or "")
    if isinstance(value, list) and all(isinstance(part, dict) and isinstance(part.get("text"), str) and part.get("type", "text") == "text" for part in value):
        return "".join(part["text"] for part in value)
    return ""


def turn_of(one: Any) -> dict[str, Any] | None:
    """A turn under whatever names: role or from, content or value or text."""
    if not isinstance(one, dict):
        return None
    names = first_key(one, ("role", "from", "speaker", "author"))
    texts = first_key(one, ("content", "value", "text", "message", "parts"))
    role = one.get(names) if names else None
    if not isinstance(role, str) or not texts:
        return None
    if role.strip().lower() in ("function_call", "tool_call"):
        return _calling_turn(one[texts])
    right = KNOWN_ROLES.get(role.strip().lower())
    content = one[texts] if isinstance(one[texts], str) else _text_of(one[texts])
    if not right or (not content and one[texts] not in ("", None)) or (one[texts] is None and not one.get("tool_calls")):
        return None
    kept = {key: one[key] for key in ("name", "weight", "tool_calls", "tool_call_id") if one.get(key) not in (None, "", [])}
    if set(one) - {names, texts, *kept, "name", "weight", "tool_calls", "tool_call_id"}:
        return None  # a turn has no metadata: its other keys would be lost
    return {"role": right, "content": one[texts] if one[texts] is None else content} | kept


def _calling_turn(value: Any) -> dict[str, Any] | None:
    """ShareGPT's function_call: JSON of one call, or of a list of calls."""
    try:
        calls = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        return None
    made = []
    for call in calls if isinstance(calls, list) else [calls]:
        if not isinstance(call, dict) or not isinstance(call.get("name"), str):
            return None
        arguments = call.get("arguments", {})
        text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        made.append({"type": "function", "function": {"name": call["name"], "arguments": text}})
    return {"role": "assistant", "content": None, "tool_calls": made} if made else None


def turns_of(value: Any) -> Turns | None:
    """Turns out of a list of them, or of {human, assistant} pairs."""
    items = listed(value)
    if not items:
        return None
    turns: Turns = []
    for item in items:
        if isinstance(item, dict) and set(item) in ({"human", "assistant"}, {"user", "assistant"}, {"question", "answer"}, {"human", "gpt"}):
            question, answer = item.values() if next(iter(item)) in ("human", "user", "question") else reversed(item.values())
            turn, other = turn_of({"role": "user", "content": question}), turn_of({"role": "assistant", "content": answer})
            if turn is None or other is None:
                return None
            turns += [turn, other]
            continue
        turn = turn_of(item)
        if turn is None:
            return None
        turns.append(turn)
    return turns


def conversation(plain: Plain) -> Reading | None:
    """ShareGPT and its kin: a list of turns under some key, tools and the system text beside it."""
    key = first_key(plain, CONVERSATIONS)
    turns = turns_of(plain[key]) if key else None
    if turns is None:
        return None
    used = {key}
    if turns[0]["role"] != "system":
        turns = system_turns(plain, used) + turns
    reading = Reading(used, turns)
    tools = listed(plain.get("tools"))
    if tools and all(isinstance(tool, dict) for tool in tools):
        reading.tools = tools
        used.add("tools")
    elif tools == []:
        used.add("tools")
    return reading


def pictures(plain: Plain) -> Reading | None:
    """LLaVA and its kin: a conversation whose texts hold <image>, and the picture under a key."""
    reading = conversation(plain)
    key = first_key(plain, ("images", "image"))
    images = [plain[key]] if isinstance(plain.get(key), str) else listed(plain.get(key))
    if reading is None or not images or not all(isinstance(image, str) for image in images):
        return None
    for turn in reading.turns:
        if isinstance(turn["content"], str) and "<image>" in turn["content"]:
            turn["content"] = _parts(turn["content"])
    reading.images = images
    reading.used.add(key)
    return reading


def _parts(text: str) -> list[dict[str, str]]:
    """Image and text parts of a text with <image> in it."""
    parts: list[dict[str, str]] = []
    for place, piece in enumerate(text.split("<image>")):
        if place:
            parts.append({"type": "image"})
            piece = piece.removeprefix("\n")
        if piece.strip():
            parts.append({"type": "text", "text": piece})
    return parts


def question_and_answer(plain: Plain) -> Reading | None:
    """Two texts under whatever names, perhaps with an input and a system text."""
    question, answer = first_key(plain, QUESTIONS), first_key(plain, ANSWERS)
    if not question or not answer or not isinstance(plain[question], str) or not isinstance(plain[answer], str):
        return None
    if question == "input":  # an instruction may be missing: what it was to be done on is no question
        return None
    used = {question, answer}
    text = _task(plain, question, used)
    turns = [{"role": "user", "content": text}, {"role": "assistant", "content": plain[answer]}]
    reading = Reading(used, system_turns(plain, used) + turns)
    reading.task = (plain[question], text[len(plain[question]) :].removeprefix("\n\n"))
    return reading


def _task(plain: Plain, question: str, used: set[str]) -> str:
    """The question; an instruction with what it is to be done on."""
    text = str(plain[question])
    for key in ("input", "context") if question == "instruction" else ():
        if isinstance(plain.get(key), str):
            text = f"{text}\n\n{plain[key]}" if plain[key] else text
            used.add(key)
    return text


def gemini(plain: Plain) -> Reading | None:
    """Contents of parts; only where every part is a text."""
    turns = turns_of(plain.get("contents"))
    if turns is None:
        return None
    used = {"contents"}
    return Reading(used, system_turns(plain, used) + turns)


def anthropic(plain: Plain) -> Reading | None:
    """Messages whose system text stands beside them, with blocks for the use of tools."""
    turns: Turns = []
    for message in listed(plain.get("messages")) or []:
        if not isinstance(message, dict) or set(message) != {"role", "content"}:
            return None
        found = _blocks(message["role"], message["content"])
        if found is None:
            return None
        turns += found
    used = {"messages", "tools"}
    given = listed(plain.get("tools"))
    tools = [_declaration(tool) for tool in given or []]
    if not turns or not all(tools) or (given is None and not is_empty(plain.get("tools"))):
        return None
    return Reading(used, system_turns(plain, used) + turns, tools=tools)


def _blocks(role: str, content: Any) -> Turns | None:
    text = _text_of(content)
    if text or not isinstance(content, list):
        turn = turn_of({"role": role, "content": text})
        return [turn] if turn else None
    texts, calls, results = [], [], []
    for block in content:
        kind = block.get("type") if isinstance(block, dict) else None
        if kind == "text":
            texts.append(str(block.get("text", "")))
        elif kind == "tool_use" and isinstance(block.get("name"), str):
            arguments = json.dumps(block.get("input") or {}, ensure_ascii=False)
            calls.append({"id": str(block.get("id", "")), "type": "function", "function": {"name": block["name"], "arguments": arguments}})
        elif kind == "tool_result":
            results.append({"role": "tool", "content": _text_of(block.get("content", "")), "tool_call_id": str(block.get("tool_use_id", ""))})
        else:
            return None
    if role == "assistant":
        return [{"role": role, "content": "".join(texts) or None, "tool_calls": calls}] if calls and not results else None
    return results + ([{"role": "user", "content": "".join(texts)}] if texts else []) if results and not calls else None


def _declaration(tool: Any) -> dict[str, Any] | None:
    if not isinstance(tool, dict) or not isinstance(tool.get("name"), str):
        return None
    function = {"name": tool["name"], "description": tool.get("description", ""), "parameters": tool.get("input_schema", {})}
    return {"type": "function", "function": function}


def preference(plain: Plain) -> Reading | None:
    """Pairs under other names, or without a prompt of their own."""
    better, worse = first_key(plain, BETTER), first_key(plain, WORSE)
    if not better or not worse:
        return None
    used = {better, worse}
    chosen, rejected = _answer(plain[better]), _answer(plain[worse])
    if chosen is None or rejected is None:
        return None
    asked = first_key(plain, (*QUESTIONS, *CONVERSATIONS))
    if not asked:
        found = _shared_prompt(chosen, rejected, used)
        if found and found.turns[0]["role"] != "system":
            found.turns = system_turns(plain, used) + found.turns
        return found
    used.add(asked)
    value = _task(plain, asked, used) if isinstance(plain[asked], str) else plain[asked]
    if isinstance(value, dict) and isinstance(value.get("messages"), list):  # OpenAI: {"input": {"messages": […]}}
        if any(not is_empty(held) for key, held in value.items() if key != "messages"):
            return None  # tools of the request have no place in a pair
        value = value["messages"]
    turns = [{"role": "user", "content": value}] if isinstance(value, str) else turns_of(value)
    return Reading(used, system_turns(plain, used) + turns, chosen, rejected) if turns else None


def _answer(value: Any) -> Turns | str | None:
    if isinstance(value, dict):
        value = [value]
    return value if isinstance(value, str) else turns_of(value)


_HUMAN_TURN = re.compile(r"(?:\A|\n\n)(Human|Assistant): ?")


def _shared_prompt(chosen: Turns | str, rejected: Turns | str, used: set[str]) -> Reading | None:
    """Two whole conversations that begin alike: what they share is the prompt."""
    one = _by_speakers(chosen) if isinstance(chosen, str) else chosen
    other = _by_speakers(rejected) if isinstance(rejected, str) else rejected
    if not one or not other:
        return None
    shared = 0
    while shared < min(len(one), len(other)) - 1 and one[shared] == other[shared]:
        shared += 1
    if not shared or one[shared - 1]["role"] != "user":
        return None
    return Reading(used, one[:shared], one[shared:], other[shared:])


def whole_conversations(plain: Plain) -> tuple[Turns, Turns] | None:
    """(chosen, rejected) of a pair without a prompt whose answers hold their questions; None where they do not."""
    found = []
    for key in ("chosen", "rejected"):
        value = _answer(plain.get(key))
        turns = _by_speakers(value) if isinstance(value, str) else value
        if not turns or all(turn["role"] != "user" for turn in turns):
            return None
        found.append(turns)
    return found[0], found[1]


def _by_speakers(text: str) -> Turns | None:
    """Turns out of a text of "Human: " and "Assistant: " paragraphs, as HH-RLHF writes them."""
    pieces = _HUMAN_TURN.split(text)
    if len(pieces) < 5 or pieces[0].strip():
        return None
    return [{"role": KNOWN_ROLES[name.lower()], "content": said.strip()} for name, said in zip(pieces[1::2], pieces[2::2], strict=True)]


def labelled(plain: Plain) -> Reading | None:
    """An exchange with a thumb up or down under some name."""
    key = first_key(plain, LABELS)
    label = verdict(plain[key]) if key else None
    reading = question_and_answer(plain) or conversation(plain)
    if label is None or reading is None:
        return None
    reading.label = label
    reading.used.add(key)
    return reading


def correction(plain: Plain) -> Reading | None:
    """A correction as an exchange; what the model had said goes into metadata."""
    if not isinstance(plain.get("prompt"), str) or not isinstance(plain.get("correction"), str):
        return None
    turns = [{"role": "user", "content": plain["prompt"]}, {"role": "assistant", "content": plain["correction"]}]
    used = {"prompt", "correction"}
    return Reading(used, system_turns(plain, used) + turns)
