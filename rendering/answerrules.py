"""The rules of a profile at one answer, as far as text decides: what has been said, which tokens are disliked next, whether it must end.

The tensors are the business of whoever decodes: a serving engine, or the trainer that writes answers to be judged.
"""

from collections.abc import Iterator, Sequence
from functools import cache

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

    def _completing(self, text: str, said: int) -> tuple[int, ...]:
        """Ids of the tokens that complete `text` once its first `said` letters are there: those that go on with the rest of it."""
        rest = text[said:]
        return tuple(id for id, token in enumerate(self._texts) if (token.startswith(rest) if said else text in token))


class TextRules:
    """Penalties and the forced end of one answer. `hear` each piece of text that was given out; whole letters only."""

    def __init__(self, rules: AnswerRules, question: str, texts: TokenTexts | None = None) -> None:
        assert texts is not None or not rules.penalties, "penalties need the texts of the tokens"
        self._penalties = dict(rules.penalties)
        self._endings = tuple(ending for ending in rules.endings(question) if ending)
        self._texts = texts
        self._kept = max(map(len, (*self._penalties, *self._endings)), default=0)
        self._tail = ""

    def hear(self, text: str) -> None:
        """Text that was given out; whole letters only."""
        if text and self._kept:
            self._tail = (self._tail + text)[-self._kept :]

    @property
    def must_end(self) -> bool:
        """Whether nothing but the end token can follow."""
        return any(self._tail.endswith(ending) for ending in self._endings)

    def disliked(self) -> Iterator[tuple[tuple[int, ...], float]]:
        """Ids of the tokens that would complete a penalised text now, and the penalty in nats."""
        for text, penalty in self._penalties.items():
            assert self._texts is not None
            for said in range(len(text)):
                if self._tail.endswith(text[:said]) and (ids := self._texts.completing(text, said)):
                    yield ids, penalty
