"""One answer on its way: what it has said, what it may say next, when it ends. Steps run on the engine's thread."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from core.errors import LoradError
from serving.engines.choosing import Chooser, tell_likely
from serving.engines.grammar import Grammar
from serving.engines.port import Blend, Chosen, FinishReason, Piece, Sampling, Sink
from serving.engines.rules import LogitsRules
from serving.text import Detokenizer

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Voice:
    """How token ids of a base become text and bytes, and which of them end an answer."""

    decode: Callable[[Sequence[int]], str]
    bytes_of: Callable[[int], bytes]
    eos_ids: frozenset[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What one answer is made from."""

    blend: Blend
    prompt_ids: Sequence[int]
    sampling: Sampling
    max_tokens: int
    rules: LogitsRules | None = None
    grammar: Grammar | None = None


class Answering:
    """See `port.Generation`. `take` gets the logits of each step, `fail` and `stop` end it; the sink hears one end."""

    def __init__(self, wish: Wish, voice: Voice, sink: Sink) -> None:
        self.wish = wish
        self.prompt_tokens = len(wish.prompt_ids)
        self.completion_tokens = 0
        self.cached_tokens = 0
        self.last_token = -1
        self.is_over = False
        self.is_cancelled = False
        self.awake: Callable[[], None] = lambda: None  # tells the engine's loop that something changed
        self._voice = voice
        self._sink = sink
        self._choose = Chooser(wish.sampling, wish.prompt_ids)
        self._text = Detokenizer(voice.decode)
        self._tokens: list[Chosen] = []

    @property
    def made(self) -> list[int]:
        """The tokens so far, the end token included."""
        return self._choose.made

    def cancel(self) -> None:
        """Stop before the next step."""
        self.is_cancelled = True
        self.awake()

    def take(self, logits_V: torch.Tensor) -> None:
        """Choose the next token and tell what became certain."""
        try:
            self._take(logits_V)
        except LoradError as error:
            self.fail(error)

    def fail(self, error: LoradError) -> None:
        """End with an error."""
        self._tell(Piece(error=error))

    def stop(self) -> None:
        """End as cancelled."""
        self._tell(Piece(end="cancelled"))

    def _take(self, logits_V: torch.Tensor) -> None:
        if not torch.isfinite(logits_V).all():
            raise LoradError("the model's output is not a number", hint="roll this adapter back: `lorad adapters rollback`", code="LOGITS_NAN")
        wish = self.wish
        final_V = self._choose.changed(logits_V)
        if wish.grammar:
            final_V = wish.grammar.apply(final_V)
        if wish.rules:
            final_V = wish.rules.apply(final_V)
        token = self._choose.choose(final_V)
        self.last_token = token
        self.completion_tokens += 1
        if token in self._voice.eos_ids:
            self._say("", "stop")
            return
        if wish.grammar:
            wish.grammar.hear(token)
        if wish.sampling.logprobs is not None:
            self._tokens.append(tell_likely(logits_V, token, wish.sampling.logprobs, self._voice.bytes_of))
        text = self._text.feed(token)
        if wish.rules:
            wish.rules.hear(text)
        self._say(text, "length" if self.completion_tokens == wish.max_tokens else None)

    def _say(self, text: str, end: FinishReason | None) -> None:
        if end:
            text += self._text.flush()
        if text or end:
            tokens, self._tokens = tuple(self._tokens), []
            self._tell(Piece(text=text, tokens=tokens, end=end))

    def _tell(self, piece: Piece) -> None:
        if self.is_over:
            return
        self.is_over = piece.end is not None or piece.error is not None
        try:
            self._sink(piece)
        except Exception:  # the border to whoever listens: one listener's fault must not stop the others' answers
            log.exception("nobody hears an answer", extra={"action": "sink_failed"})
            self.is_over = True
