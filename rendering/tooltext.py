"""Tools written as text, for chat templates that have no place for them.

The markup is the one that Hermes models made common and that Qwen2.5 and SmolLM2 document: declarations between
`<tools>` tags in the system message, calls between `<tool_call>` tags in what the assistant says, results between
`<tool_response>` tags in a user turn.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from core.errors import LoradError
from rendering.specs import BAD_JSON, Message, Role, ToolCall, Tools


def uses_tools(messages: Sequence[Message], tools: Tools) -> bool:
    """Whether tools are declared, called or answered."""
    return bool(tools) or any(message.tool_calls or message.role == "tool" for message in messages)


def arguments_of(call: ToolCall) -> Any:
    """The parsed arguments; the text itself where it is not JSON."""
    try:
        return msgspec.json.decode(call.arguments)
    except BAD_JSON:
        return call.arguments


def json_text(value: Any) -> str:
    """JSON as models are shown it: blanks after the signs, letters of every script as they are. Raises LoradError TEMPLATE_RENDER."""
    try:
        return json.dumps(value, ensure_ascii=False)
    except RecursionError:
        raise LoradError("a tool's declaration or arguments are nested too deeply to be written", hint="flatten them", code="TEMPLATE_RENDER") from None


def as_text(messages: Sequence[Message], tools: Tools, *, system_turn: bool = True) -> list[Message]:
    """The same conversation without tools: system, user and assistant turns only.

    Works turn by turn, so that a conversation cut before an assistant turn gives a beginning of the whole. Neighbouring
    results become one user turn. `system_turn` False puts the declarations before the first user text.
    """
    told: list[Message] = []
    previous = ""
    for message in messages:
        if message.role == "tool":
            result = f"<tool_response>\n{message.content}\n</tool_response>"
            if previous == "tool":
                result = f"{told.pop().content}\n{result}"
            told.append(Message("user", result))
        elif message.tool_calls:
            parts = [message.content] if message.content else []
            parts += [_call(call) for call in message.tool_calls]
            told.append(Message(message.role, "\n".join(parts), message.name, message.weight))
        else:
            told.append(message)
        previous = message.role
    return _declared(told, _declarations(tools), system_turn) if tools else told


def _call(call: ToolCall) -> str:
    return f'<tool_call>\n{{"name": {json_text(call.name)}, "arguments": {json_text(arguments_of(call))}}}\n</tool_call>'


def _declarations(tools: Sequence[Mapping[str, Any]]) -> str:
    listed = "\n".join(json_text(tool) for tool in tools)
    return (
        "You can call these functions, declared one a line:\n"
        f"<tools>\n{listed}\n</tools>\n"
        "To call one, write its name and its arguments as one JSON object:\n"
        '<tool_call>\n{"name": <name>, "arguments": <object>}\n</tool_call>\n'
        "Each result comes back between <tool_response> tags."
    )


def _declared(messages: list[Message], declarations: str, system_turn: bool) -> list[Message]:
    role: Role = "system" if system_turn else "user"
    place = next((index for index, message in enumerate(messages) if message.role == role), None)
    if place is None:
        return [Message(role, declarations), *messages]
    found = messages[place]
    parts = (found.content, declarations) if system_turn else (declarations, found.content)
    joined = Message(role, "\n\n".join(part for part in parts if part), found.name)
    return [*messages[:place], joined, *messages[place + 1 :]]
