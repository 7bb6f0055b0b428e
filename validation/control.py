"""Control tokens that begin or end a turn."""

import re
from collections.abc import Iterable
from pathlib import Path

import msgspec

# Tokens that begin or end a turn in common model families. The whole text of a row is tokenised at once, so such a
# token inside a content is not text: it forges a turn.
CONTROL_TOKENS = (
    *("<|im_start|>", "<|im_end|>", "<|im_sep|>", "<|endoftext|>", "<|startoftext|>"),  # ChatML: Qwen, SmolLM2, Phi-4
    *("<|im_user|>", "<|im_assistant|>", "<|im_system|>", "<|im_middle|>"),  # Kimi
    *("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|eom_id|>", "<|python_tag|>"),  # Llama 3
    *("<|header_start|>", "<|header_end|>", "<|eot|>"),  # Llama 4
    *("<start_of_turn>", "<end_of_turn>"),  # Gemma
    *("<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|observation|>", "<|end_of_turn|>"),  # Phi-3, GLM, Zephyr, OpenChat
    *("<|start_of_role|>", "<|end_of_role|>"),  # Granite
    *("<|start|>", "<|message|>", "<|channel|>", "<|constrain|>", "<|return|>", "<|call|>"),  # gpt-oss
    *("<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>", "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>", "<|SYSTEM_TOKEN|>"),  # Command R
    *("<｜User｜>", "<｜Assistant｜>", "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<|EOT|>"),  # DeepSeek
    *("<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", "<｜tool▁outputs▁begin｜>"),  # DeepSeek
)
_CONTROL_SHAPE = re.compile(
    r"<\|[^|\s]+\|>|<｜[^｜\s]+｜>|</?s>|<(?:start|end)_of_turn>|<[be]os>|\[/?(?:INST|SYSTEM_PROMPT|TOOL_CALLS|TOOL_RESULTS)\]|\[\|\w+\|\]"
)

# Every token begins so where JSON writes it plainly; and so may one that JSON writes with escapes. Screen.rows relies on both.
opens_a_token = re.compile(rb"<(?:\||/?s>|[be]os>|start_of_|end_of_|\xef\xbd\x9c)").search
escapes_a_token = re.compile(rb"\\u00[2-7]|\\u[fF][fF]5[cC]").search
# The end token of Llama 2 and Mistral is also a tag of HTML and a word of texts about models: only where a text ends
# with it right behind a word or behind the end of a sentence, and no <s> opened it.
_ended_by_s = re.compile(r"""(?:[^\s`'"“(<>]|[.!?…)\]»。！？]\s)</s>\s*\Z""").search
_opened_by_s = re.compile(r"<s[\s>]").search


class ControlTokens:
    """Finds control tokens in texts: those of the common families and, where one is given, of the job's own tokenizer."""

    def __init__(self, special_tokens: Iterable[str] = ()) -> None:
        self.special_tokens = tuple(special_tokens)
        own = [token for token in self.special_tokens if _CONTROL_SHAPE.fullmatch(token)]
        wanted = sorted({*CONTROL_TOKENS, *own}, key=len, reverse=True)
        self._find = re.compile("|".join(map(re.escape, wanted))).search
        self.brackets = any(token.startswith("[") for token in own)

    def may_stand_in(self, raw: bytes) -> bool:
        """Whether a line of JSON is worth a closer look: few are."""
        if b"<" in raw and opens_a_token(raw):
            return True
        # One byte is looked for in a tenth of the time of two.
        return (b"\\" in raw and escapes_a_token(raw) is not None) or (self.brackets and b"[" in raw)

    def first_in(self, text: str) -> str | None:
        """The first control token in the text."""
        if found := self._find(text):
            return found[0]
        return "</s>" if "</s>" in text and _ended_by_s(text) and not _opened_by_s(text) else None


class _AddedToken(msgspec.Struct):
    content: str
    special: bool = False


class _TokenizerFile(msgspec.Struct):
    added_tokens: list[_AddedToken] = []


def special_tokens(tokenizer_json: Path) -> list[str]:
    """The special tokens that a tokenizer.json declares. Raises OSError, msgspec.MsgspecError."""
    found = msgspec.json.decode(tokenizer_json.read_bytes(), type=_TokenizerFile)
    return [token.content for token in found.added_tokens if token.special]
