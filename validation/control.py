"""Control tokens that begin or end a turn."""

import re
from collections.abc import Iterable
from pathlib import Path

import msgspec

# Tokens that begin or end a turn in common model families. The whole text of a row is tokenised at once, so such a
# token inside a content is not text: it forges a turn.
CONTROL_TOKENS = (
    *("<|im_start|>", "<|im_end|>", "<|im_sep|>", "<|endoftext|>", "<|startoftext|>"),  # ChatML: Qwen, SmolLM2, Phi-4
    *("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|eom_id|>"),  # Llama 3
    *("<|header_start|>", "<|header_end|>", "<|eot|>"),  # Llama 4
    *("<start_of_turn>", "<end_of_turn>"),  # Gemma
    *("<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|observation|>"),  # Phi-3, GLM, Zephyr
    *("<|start|>", "<|message|>", "<|channel|>", "<|return|>", "<|call|>"),  # gpt-oss
    *("<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>"),  # Command R
    *("<｜User｜>", "<｜Assistant｜>", "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"),  # DeepSeek
)
_CONTROL_SHAPE = re.compile(r"<\|[^|\s]+\|>|</?s>|<(?:start|end)_of_turn>|<[be]os>|\[/?(?:INST|SYSTEM_PROMPT|TOOL_CALLS|TOOL_RESULTS)\]")


class ControlTokens:
    """Finds control tokens in texts: those of the common families and, where one is given, of the job's own tokenizer."""

    def __init__(self, special_tokens: Iterable[str] = ()) -> None:
        self.special_tokens = tuple(special_tokens)
        own = [token for token in self.special_tokens if _CONTROL_SHAPE.fullmatch(token)]
        wanted = sorted({*CONTROL_TOKENS, *own}, key=len, reverse=True)
        self._find = re.compile("|".join(map(re.escape, wanted))).search
        self.brackets = any(token.startswith("[") for token in own)

    def may_stand_in(self, raw: bytes) -> bool:
        """Whether a line of JSON is worth a closer look. Every token begins with "<" or "[", and JSON may write either as an escape."""
        return self.brackets or b"<" in raw or b"\\u" in raw

    def first_in(self, text: str) -> str | None:
        """The first control token in the text."""
        found = self._find(text)
        return found[0] if found else None


class _AddedToken(msgspec.Struct):
    content: str
    special: bool = False


class _TokenizerFile(msgspec.Struct):
    added_tokens: list[_AddedToken] = []


def special_tokens(tokenizer_json: Path) -> list[str]:
    """The special tokens that a tokenizer.json declares. Raises OSError, msgspec.MsgspecError."""
    found = msgspec.json.decode(tokenizer_json.read_bytes(), type=_TokenizerFile)
    return [token.content for token in found.added_tokens if token.special]
