"""Messages to the text that a model reads, by the base model's own chat template.

Templates come with a model, so they run sandboxed. The environment is the one that templates are written for
(transformers' `apply_chat_template`): trimmed blocks, loop controls, `raise_exception`, `strftime_now`, `tojson`,
and `{% generation %}` blocks, whose marks are not needed here because masks come from prefixes.
"""

import json
import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from core.errors import LoradError
from rendering.specs import Message


class _Generation(Extension):
    """`{% generation %}…{% endgeneration %}` as its plain body."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 declares it as a class attribute of this type

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)


def _tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: tuple[str, str] | None = None, sort_keys: bool = False) -> str:
    # jinja2's own filter escapes HTML, which a model never saw.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


class ChatTemplate:
    """Renders messages by a Jinja template. Keeps no state between calls; safe in threads.

    Raises LoradError TEMPLATE_SYNTAX for a template that does not parse.
    """

    def __init__(self, source: str, *, bos_token: str = "", eos_token: str = "", strftime: Callable[[str], str] = time.strftime) -> None:
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"])
        environment.filters["tojson"] = _tojson
        environment.globals |= {"raise_exception": _raise_exception, "strftime_now": strftime, "bos_token": bos_token, "eos_token": eos_token}
        try:
            self._template = environment.from_string(source)
        except TemplateError as error:
            raise LoradError(
                f"the chat template does not parse: {error}", hint="take chat_template.jinja from the model's own folder", code="TEMPLATE_SYNTAX"
            ) from None

    def render(self, messages: Sequence[Message], add_generation_prompt: bool = False) -> str:
        """The whole text. Raises LoradError TEMPLATE_RENDER with the template's own words."""
        plain = [{"role": message.role, "content": message.content} | ({"name": message.name} if message.name else {}) for message in messages]
        try:
            return self._template.render(messages=plain, add_generation_prompt=add_generation_prompt, tools=None, documents=None)
        except (TemplateError, TypeError, ValueError, KeyError, AttributeError, IndexError, ArithmeticError, RecursionError) as error:
            raise LoradError(
                f"the chat template refuses these {len(plain)} messages: {error}",
                hint="this base model cannot express them: change the roles or their order, or use another base",
                code="TEMPLATE_RENDER",
            ) from None
