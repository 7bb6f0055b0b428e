"""The rules of a profile at the logits of one answer. Each answer has its own: two adapters never see each other's.

Axes: V vocabulary.
"""

from collections.abc import Iterator, Sequence
from functools import cache

import torch
from tokenizers import Tokenizer

from core.answering import AnswerRules


class TokenTexts:
    """The text of every token, and which tokens would complete a text. Safe in threads."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = texts
        self.completing = cache(self._completing)

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> "TokenTexts":
        """Of a tokenizer: decodes its whole vocabulary, some tenths of a second."""
        ids = range(tokenizer.get_vocab_size(with_added_tokens=True))
        return cls(tokenizer.decode_batch([[id] for id in ids], skip_special_tokens=False))

    def _completing(self, text: str, said: int) -> torch.Tensor:
        """Ids of the tokens that complete `text` once its first `said` letters are there: those that go on with the rest of it."""
        rest = text[said:]
        found = [id for id, token in enumerate(self._texts) if (token.startswith(rest) if said else text in token)]
        return torch.tensor(found, dtype=torch.long)


class LogitsRules:
    """Penalties and the forced end of one answer. `hear` each piece of text, then `apply` to the next logits."""

    def __init__(self, rules: AnswerRules, question: str, end_id: int, texts: TokenTexts | None = None) -> None:
        assert texts is not None or not rules.penalties, "penalties need the texts of the tokens"
        self._penalties = dict(rules.penalties)
        self._endings = tuple(ending for ending in rules.endings(question) if ending)
        self._end_id = end_id
        self._texts = texts
        self._kept = max(map(len, (*self._penalties, *self._endings)), default=0)
        self._tail = ""

    def hear(self, text: str) -> None:
        """Text that was given out; whole letters only."""
        if text and self._kept:
            self._tail = (self._tail + text)[-self._kept :]

    def apply(self, logits_V: torch.Tensor) -> torch.Tensor:
        """The logits under the rules; the given ones are left as they are. After an ending all but the end token are -inf."""
        if any(self._tail.endswith(ending) for ending in self._endings):
            forced_V = torch.full_like(logits_V, -torch.inf)
            forced_V[self._end_id] = 0.0
            return forced_V
        if self._texts is None or not self._penalties:
            return logits_V
        changed_V = logits_V
        for ids, penalty in self._disliked():
            ids = ids[ids < len(logits_V)]  # a tokenizer may know more tokens than the model
            changed_V = logits_V.clone() if changed_V is logits_V else changed_V
            changed_V[ids] = torch.minimum(changed_V[ids], logits_V[ids] - penalty)
        return changed_V

    def _disliked(self) -> Iterator[tuple[torch.Tensor, float]]:
        """Ids of the tokens that would complete a penalised text now, and the penalty."""
        assert self._texts is not None
        for text, penalty in self._penalties.items():
            for said in range(len(text)):
                if self._tail.endswith(text[:said]) and len(ids := self._texts.completing(text, said)):
                    yield ids, penalty
