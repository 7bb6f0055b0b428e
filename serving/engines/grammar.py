"""Answers that must be JSON, token by token: which tokens may follow, by llguidance.

Axes: V vocabulary.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from llguidance import LLMatcher, LLTokenizer

from core.errors import LoradError
from serving.engines.port import PromptError

OBJECT = {"type": "object"}
BLANKS = {"whitespace_flexible": True, "whitespace_pattern": r"[ \n\t]{1,20}"}  # a small model would go on with blanks for ever


class Grammars:
    """What the tokens of a base spell, and the grammars over them. Safe in threads."""

    def __init__(self, tokenizer_json: str, vocabulary: int, end_ids: Iterable[int], end_id: int) -> None:
        ends = [end_id, *(id for id in sorted(end_ids) if id != end_id)]
        self._tokens = LLTokenizer(tokenizer_json, n_vocab=max(vocabulary, _size_of(tokenizer_json)), eos_token=ends)

    def bytes_of(self, token: int) -> bytes:
        """What a token spells; nothing for a control token."""
        return b"" if self._tokens.is_special_token(token) else self._tokens.decode_bytes([token])

    def follow(self, schema: Mapping[str, Any]) -> "Grammar":
        """The grammar of one answer. Raises PromptError SCHEMA_UNUSABLE."""
        try:
            text = LLMatcher.grammar_from_json_schema(json.dumps(schema or OBJECT), overrides=BLANKS)  # type: ignore[arg-type]
        except (ValueError, TypeError) as error:
            raise _unusable(str(error)) from None
        matcher = LLMatcher(self._tokens, text, log_level=0)
        if matcher.is_error():
            raise _unusable(matcher.get_error())
        return Grammar(matcher)


class Grammar:
    """Where one answer stands in its grammar."""

    def __init__(self, matcher: LLMatcher) -> None:
        self._matcher = matcher

    def apply(self, logits_V: torch.Tensor) -> torch.Tensor:
        """The logits with -inf at every token that cannot follow. Raises LoradError GRAMMAR_LOST."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        allowed_V = torch.from_numpy(np.unpackbits(bits, bitorder="little", count=len(logits_V)).astype(bool))
        if self._matcher.is_error() or not allowed_V.any():
            raise LoradError(f"the answer cannot go on by its schema: {self._matcher.get_error()[:200]}", hint="ask for a simpler schema", code="GRAMMAR_LOST")
        return logits_V.masked_fill(~allowed_V, -torch.inf)

    def hear(self, token: int) -> None:
        """The token that was chosen."""
        self._matcher.consume_token(token)


def _size_of(tokenizer_json: str) -> int:
    tokenizer = json.loads(tokenizer_json)
    added = [token["id"] for token in tokenizer.get("added_tokens", ())]
    vocabulary = tokenizer["model"]["vocab"]  # a mapping of BPE and WordPiece, a list of Unigram
    ids = vocabulary.values() if isinstance(vocabulary, dict) else (len(vocabulary) - 1,)
    return max((*added, *ids)) + 1


def _unusable(why: str) -> PromptError:
    return PromptError(
        f"the answer cannot follow this schema: {why.splitlines()[0][:300]}", hint="use JSON Schema that llguidance knows", code="SCHEMA_UNUSABLE"
    )
