"""The renderer of any model folder: a sealed base, or a Hugging Face folder as it was saved.

Of an unsealed folder only the tokenizer files are read: tokenizer.json, the chat template (chat_template.jinja,
chat_template.json, or the key in tokenizer_config.json), tokenizer_config.json, special_tokens_map.json and
generation_config.json for the token that ends a turn. A folder without a chat template gets a generic ChatML one.
"""

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from core.errors import LoradError
from rendering.chat import ChatTemplate
from rendering.specs import Message
from rendering.tokens import Renderer
from store.bases import TEMPLATE, TOKENIZER
from store.seals import is_sealed

TOKENIZER_CONFIG = "tokenizer_config.json"

# ChatML with the model's own end token, so that it works for tokenizers that have no <|im_end|>.
GENERIC_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + eos_token + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
_PROBE = (Message("user", "a question"), Message("assistant", "xZanswerZx"))


class FolderRenderer(Renderer):
    """The renderer of an unsealed folder."""

    template_is_generic = False
    """Whether the folder has no chat template of its own."""


def renderer_of(folder: Path) -> Renderer:
    """Tokenizer and template of a sealed base, or of any Hugging Face folder.

    Raises LoradError: what is missing or damaged.
    """
    return Renderer.load(folder) if is_sealed(folder) else renderer_of_folder(folder)


def template_is_generic(renderer: Renderer) -> bool:
    """Whether the renderer's model has no chat template of its own."""
    return isinstance(renderer, FolderRenderer) and renderer.template_is_generic


def renderer_of_folder(folder: Path) -> FolderRenderer:
    """Tokenizer and template of a folder that was never sealed.

    Raises LoradError: NO_SUCH_FOLDER, NO_TOKENIZER, TOKENIZER_DAMAGED, TEMPLATE_SYNTAX, EOS_UNKNOWN.
    """
    tokenizer = _tokenizer(folder)
    config = _mapping(folder / TOKENIZER_CONFIG)
    source = _template(folder, config)
    ends = _end_tokens(folder, config, tokenizer)
    if not ends:
        raise LoradError(
            f"{str(folder)!r} does not say which token ends a turn",
            hint=f"name it as eos_token in {TOKENIZER_CONFIG}, and have it among the tokens of {TOKENIZER}",
            code="EOS_UNKNOWN",
        )
    template = ChatTemplate(source or GENERIC_TEMPLATE, bos_token=_token(config.get("bos_token")), eos_token=ends[0])
    renderer = FolderRenderer(tokenizer, template, _ending(template, ends), folder / TOKENIZER)
    renderer.template_is_generic = not source
    return renderer


def _tokenizer(folder: Path) -> Tokenizer:
    if not folder.is_dir():
        raise LoradError(f"there is no model folder {str(folder)!r}", hint="`lorad models list` names the bases that are here", code="NO_SUCH_FOLDER")
    path = folder / TOKENIZER
    if not path.is_file():
        raise LoradError(
            f"{str(folder)!r} holds no {TOKENIZER}", hint="save the model's fast tokenizer into the folder (save_pretrained writes it)", code="NO_TOKENIZER"
        )
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # a border: the library has no narrower error for a damaged file
        raise LoradError(
            f"{str(path)!r} is no tokenizer: {error}", hint="copy the file again from where the model came from", code="TOKENIZER_DAMAGED"
        ) from None


def _mapping(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty where there is no file."""
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise LoradError(
            f"{str(path)!r} cannot be read: {error}", hint="copy the file again from where the model came from", code="TOKENIZER_DAMAGED"
        ) from None
    if not isinstance(tree, dict):
        raise LoradError(f"{str(path)!r} is not a JSON object", hint="copy the file again from where the model came from", code="TOKENIZER_DAMAGED")
    return tree


def _template(folder: Path, config: dict[str, Any]) -> str:
    """The text of the folder's chat template; of several named ones the default. Empty where there is none."""
    path = folder / TEMPLATE
    if path.is_file():
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise LoradError(f"{str(path)!r} cannot be read: {error}", hint="a template is a UTF-8 text", code="TEMPLATE_SYNTAX") from None
    for place in (_mapping(folder / "chat_template.json"), config):
        found = place.get("chat_template")
        if isinstance(found, list):  # [{"name": "default", "template": "…"}, {"name": "tool_use", …}]
            named = {str(one.get("name")): one.get("template") for one in found if isinstance(one, dict)}
            found = named.get("default") or next(iter(named.values()), None)
        if isinstance(found, str) and found.strip():
            return found
    return ""


def _token(value: Any) -> str:
    """A token of tokenizer_config.json: a text, or an object with its text as `content`."""
    found = value.get("content") if isinstance(value, dict) else value
    return found if isinstance(found, str) else ""


def _end_tokens(folder: Path, config: dict[str, Any], tokenizer: Tokenizer) -> list[str]:
    """Every token that the folder calls the end, the tokenizer's own first."""
    names = [_token(config.get("eos_token")), _token(_mapping(folder / "special_tokens_map.json").get("eos_token"))]
    for file in ("generation_config.json", "config.json"):
        ids = _mapping(folder / file).get("eos_token_id")
        known = [id for id in (ids if isinstance(ids, list) else [ids]) if isinstance(id, int) and 0 <= id < 1 << 31]
        names += [tokenizer.id_to_token(id) or "" for id in known]
    return [name for name in dict.fromkeys(names) if name and tokenizer.token_to_id(name) is not None]


def _ending(template: ChatTemplate, ends: list[str]) -> str:
    """The end token that the template writes after an answer: some models have one for texts and another for turns."""
    try:
        after = template.render(_PROBE).rpartition(_PROBE[-1].content)[2]
    except LoradError:
        return ends[0]
    return next((end for end in ends if end in after), ends[0])
