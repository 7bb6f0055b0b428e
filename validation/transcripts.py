"""Running texts that a chat template was applied to, taken apart again: only where every character belongs to one turn."""

import re
from collections.abc import Mapping
from typing import Any

from validation.conversions import KNOWN_ROLES, Reading

LONGEST_TEXT = 1 << 20  # characters that are searched for marks

_CHATML = re.compile(r"<\|im_start\|>(\w+)\n(.*?)<\|im_end\|>\s*", re.DOTALL)
_LLAMA3 = re.compile(r"<\|start_header_id\|>(\w+)<\|end_header_id\|>\n\n(.*?)<\|eot_id\|>\s*", re.DOTALL)
_GEMMA = re.compile(r"<start_of_turn>(\w+)\n(.*?)<end_of_turn>\s*", re.DOTALL)
_ZEPHYR = re.compile(r"<\|(system|user|assistant)\|>\n(.*?)(?:</s>|<\|end\|>)\s*", re.DOTALL)
_HEADERS = re.compile(r"### (Instruction|Human|User|Question|Input|Response|Assistant|Answer|Output): ?\n?(.*?)(?:\n(?=### )|\Z)", re.DOTALL)
_SPEAKERS = re.compile(
    r"(Human|User|Question|Q|Assistant|AI|Bot|Answer|A): ?(.*?)(?:\n(?=(?:Human|User|Question|Q|Assistant|AI|Bot|Answer|A): )|\Z)", re.DOTALL
)
_LLAMA2 = re.compile(r"(?:<s>)?\s*\[INST\] ?(?:<<SYS>>\n(?P<system>.*?)\n<</SYS>>\n\n)?(?P<user>.*?)\[/INST\] ?(?P<assistant>.*?)(?:</s>|\Z)\s*", re.DOTALL)
_BOS = re.compile(r"\s*(?:<\|begin_of_text\|>|<bos>)?\s*")
_ALPACA_HEAD = re.compile(r"Below is an instruction.*?\n\n", re.DOTALL)
_ROLES = KNOWN_ROLES | dict.fromkeys(("instruction", "q", "input"), "user") | dict.fromkeys(("response", "output", "a"), "assistant")

Said = list[tuple[str, str]]
"""(name in front of the text, text) in order."""


def running_text(plain: Mapping[str, Any]) -> Reading | None:
    """The turns of a row's `text`; None where it has no marks, or text outside of them."""
    text = plain.get("text")
    if not isinstance(text, str) or len(text) > LONGEST_TEXT:
        return None
    start = _BOS.match(text)
    body = text[start.end() :] if start else text
    for marks in (_CHATML, _LLAMA3, _GEMMA, _ZEPHYR):
        if reading := _reading(_taken_apart(marks, body)):
            return reading
    if reading := _reading(_llama2(body)):
        return reading
    head = _ALPACA_HEAD.match(body)
    body = body[head.end() :] if head else body
    return _reading(_inputs_joined(_taken_apart(_HEADERS, body))) or _reading(_taken_apart(_SPEAKERS, body))


def _taken_apart(marks: re.Pattern[str], text: str) -> Said:
    """Texts between marks that follow each other from the first to the last character; empty where they do not."""
    said: Said = []
    place = 0
    while place < len(text):
        found = marks.match(text, place)
        if found is None:
            return []
        said.append((found[1].lower(), found[2].strip()))
        place = found.end()
    return said


def _inputs_joined(said: Said) -> Said:
    """An "### Input:" belongs to the instruction before it."""
    joined: Said = []
    for name, text in said:
        if name == "input" and joined and joined[-1][0] == "instruction":
            joined[-1] = ("instruction", f"{joined[-1][1]}\n\n{text}" if text else joined[-1][1])
        else:
            joined.append((name, text))
    return joined


def _llama2(text: str) -> Said:
    said: Said = []
    place = 0
    while place < len(text):
        found = _LLAMA2.match(text, place)
        if found is None:
            return []
        said += [("system", found["system"].strip())] if found["system"] else []
        said += [("user", found["user"].strip()), ("assistant", found["assistant"].strip())]
        place = found.end()
    return said


def _reading(said: Said) -> Reading | None:
    turns = [{"role": _ROLES.get(name, ""), "content": text} for name, text in said]
    roles = [turn["role"] for turn in turns]
    begins = roles[1:2] if roles[:1] == ["system"] else roles[:1]
    good = begins == ["user"] and roles[-1] == "assistant" and "" not in roles
    return Reading({"text"}, turns) if good else None
