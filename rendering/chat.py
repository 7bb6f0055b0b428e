"""Messages to the text that a model reads, by the base model's own chat template.

Templates come with a model, so they run sandboxed. The environment is the one that templates are written for
(transformers' `apply_chat_template`): trimmed blocks, loop controls, `raise_exception`, `strftime_now`, `tojson`,
and `{% generation %}` blocks, whose marks are not needed here because masks come from prefixes.

Tools go to the template in the form that Hugging Face documents. Not every template has a place for them, and one that
has none drops them in silence: each template is tried once on a small conversation with marks in it.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal, NoReturn

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment

from core.errors import LoradError
from rendering.specs import Message, ToolCall, Tools
from rendering.tooltext import arguments_of, as_text, json_text, uses_tools

Arguments = Literal["object", "json"]
"""How a template wants a call's arguments: as an object that it writes as JSON itself, or as finished JSON text."""


class _Generation(Extension):
    """`{% generation %}…{% endgeneration %}` as its plain body."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 declares it as a class attribute of this type

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Sandbox(ImmutableSandboxedEnvironment):
    """The sandbox that transformers uses."""

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        # Templates ask for `loop.first` at each turn. A loop is neither code nor a list, so only its private names are unsafe;
        # to try all kinds of objects first takes half of a rendering.
        if type(obj) is LoopContext:
            return not attr.startswith("_")
        return super().is_safe_attribute(obj, attr, value)


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)


def _tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: tuple[str, str] | None = None, sort_keys: bool = False) -> str:
    # jinja2's own filter escapes HTML, which a model never saw.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


class ChatTemplate:
    """Renders messages by a Jinja template. Keeps nothing between calls but what it has learnt of the template; safe in threads.

    Raises LoradError TEMPLATE_SYNTAX for a template that does not parse.
    """

    def __init__(self, source: str, *, bos_token: str = "", eos_token: str = "", strftime: Callable[[str], str] = time.strftime) -> None:
        environment = _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"])
        environment.filters["tojson"] = _tojson
        environment.globals |= {"raise_exception": _raise_exception, "strftime_now": strftime, "bos_token": bos_token, "eos_token": eos_token}
        try:
            self._template = environment.from_string(source)
        except TemplateError as error:
            raise LoradError(
                f"the chat template does not parse: {error}", hint="take chat_template.jinja from the model's own folder", code="TEMPLATE_SYNTAX"
            ) from None
        self._template.globals = dict(environment.globals)  # each rendering copies it, and jinja2's own chain of maps is slow to copy

    def render(self, messages: Sequence[Message], add_generation_prompt: bool = False, tools: Tools = ()) -> str:
        """The whole text. Raises LoradError TEMPLATE_RENDER with the template's own words."""
        if not uses_tools(messages, tools):
            return self._render([_plain(message) for message in messages], add_generation_prompt)
        if self._arguments is None:
            return self._render([_plain(message) for message in self.as_text(messages, tools)], add_generation_prompt)
        return self._render([_with_calls(message, self._arguments) for message in messages], add_generation_prompt, tools)

    def as_text(self, messages: Sequence[Message], tools: Tools = ()) -> list[Message]:
        """The conversation with its tools written as text, where this template's models read declarations best."""
        return as_text(messages, tools, system_turn=self._takes_system)

    @property
    def tools_as_text(self) -> bool:
        """Whether the template has no place for tools, so that they are written as text."""
        return self._arguments is None

    @cached_property
    def _arguments(self) -> Arguments | None:
        forms: tuple[Arguments, ...] = ("object", "json")
        return next((form for form in forms if self._shows_tools(form)), None)

    def _shows_tools(self, form: Arguments) -> bool:
        try:
            text = self._render([_with_calls(message, form) for message in _TRIAL], False, (_TRIAL_TOOL,))
        except LoradError:
            return False
        whole = all(mark in text for mark in (_DESCRIBED, _KEY, _VALUE, _RESULT)) and text.count(_NAME) >= 2  # declared and called
        # Printed by Python, or written as JSON twice: shown, and not what a model should learn.
        return whole and f"'{_KEY}'" not in text and f'\\"{_KEY}' not in text

    @cached_property
    def _takes_system(self) -> bool:
        trial = (Message("system", _RESULT), Message("user", "Hi"), Message("assistant", "Hello"))
        try:
            return _RESULT in self._render([_plain(message) for message in trial], False)
        except LoradError:
            return False

    def _render(self, plain: list[dict[str, Any]], add_generation_prompt: bool, tools: Tools = ()) -> str:
        try:
            return self._template.render(messages=plain, add_generation_prompt=add_generation_prompt, tools=list(tools) or None, documents=None)
        except (TemplateError, TypeError, ValueError, KeyError, AttributeError, IndexError, ArithmeticError, RecursionError) as error:
            raise LoradError(
                f"the chat template refuses these {len(plain)} messages: {error}",
                hint="this base model cannot express them: change the roles or their order, or use another base",
                code="TEMPLATE_RENDER",
            ) from None


def _plain(message: Message) -> dict[str, Any]:
    return {"role": message.role, "content": message.content} | ({"name": message.name} if message.name else {})


def _with_calls(message: Message, form: Arguments) -> dict[str, Any]:
    plain = _plain(message)
    if message.tool_calls:
        plain["tool_calls"] = [_call(call, form) for call in message.tool_calls]
    if message.tool_call_id:
        plain["tool_call_id"] = message.tool_call_id
    return plain


def _call(call: ToolCall, form: Arguments) -> dict[str, Any]:
    arguments = arguments_of(call)
    if form == "json" and not isinstance(arguments, str):
        arguments = json_text(arguments)  # written in one way, however the row writes it
    function = {"name": call.name, "arguments": arguments}
    return {"type": "function", "function": function} | ({"id": call.id} if call.id else {})


# A conversation that every template with tools knows. The id has nine letters and digits because Mistral's templates refuse others.
_NAME, _DESCRIBED, _KEY, _VALUE, _RESULT = "lorad_mark_name", "lorad-mark-described", "lorad_mark_key", "lorad-mark-value", "lorad-mark-result"
_TRIAL = (
    Message("user", "Hi"),
    Message("assistant", "", tool_calls=(ToolCall(_NAME, f'{{"{_KEY}": "{_VALUE}"}}', "probe0001"),)),
    Message("tool", _RESULT, tool_call_id="probe0001"),
    Message("assistant", "Hello"),
)
_TRIAL_TOOL: Mapping[str, Any] = {
    "type": "function",
    "function": {
        "name": _NAME,
        "description": _DESCRIBED,
        "parameters": {"type": "object", "properties": {"word": {"type": "string", "description": "A word."}}, "required": ["word"]},
    },
}
