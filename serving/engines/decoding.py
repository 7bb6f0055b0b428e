"""The decode loop of one request: chunked prefill, then one token a step, with the request's own KV cache.

Axes: B batch (always 1), T tokens, V vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache, LogitsProcessorList, TemperatureLogitsWarper, TopPLogitsWarper

from core.errors import LoradError
from serving.engines.port import FinishReason, Sampling
from serving.engines.rules import LogitsRules
from serving.text import Detokenizer

PREFILL_TOKENS = 256  # prompt tokens in one step: a long prompt must not hold the others' tokens back
GREEDY_BELOW = 1e-4  # a lower temperature would overflow the logits and means the same


@dataclass(frozen=True, slots=True, kw_only=True)
class Forward:
    """What a decode loop needs of the model. `logits(ids_BT, cache)` gives the last position's fp32 logits_V."""

    logits: Callable[[torch.Tensor, Any], torch.Tensor]
    decode: Callable[[Sequence[int]], str]
    new_cache: Callable[[], DynamicCache]
    eos_ids: frozenset[int]


class Decoding:
    """One answer. `step` runs on the engine's thread."""

    def __init__(self, forward: Forward, prompt_ids: Sequence[int], sampling: Sampling, max_tokens: int, rules: LogitsRules | None = None) -> None:
        self._forward = forward
        self._cache = forward.new_cache()
        self._waiting_BT = torch.tensor([list(prompt_ids)])  # tokens that the cache does not hold yet
        self._choose = make_chooser(sampling)
        self._text = Detokenizer(forward.decode)
        self._max_tokens = max_tokens
        self._rules = rules
        self.prompt_tokens = len(prompt_ids)
        self.completion_tokens = 0
        self.finish_reason: FinishReason | None = None

    def step(self) -> str:
        """A piece of prefill, or one token. Raises LoradError LOGITS_NAN."""
        chunk_BT, self._waiting_BT = self._waiting_BT[:, :PREFILL_TOKENS], self._waiting_BT[:, PREFILL_TOKENS:]
        logits_V = self._forward.logits(chunk_BT, self._cache)
        if self._waiting_BT.shape[1]:
            return ""
        if not torch.isfinite(logits_V).all():
            raise LoradError("the model's output is not a number", hint="roll this adapter back: `lorad adapters rollback`", code="LOGITS_NAN")
        token = self._choose(self._rules.apply(logits_V) if self._rules else logits_V)
        self.completion_tokens += 1
        if token in self._forward.eos_ids:
            return self._end("stop")
        text = self._text.feed(token)
        if self._rules:
            self._rules.hear(text)
        if self.completion_tokens == self._max_tokens:
            return text + self._end("length")
        self._waiting_BT = torch.tensor([[token]])
        return text

    def _end(self, reason: FinishReason) -> str:
        self.finish_reason = reason
        return self._text.flush()


def make_chooser(sampling: Sampling) -> Callable[[torch.Tensor], int]:
    """The function that takes a token out of logits_V. With a seed it draws from its own generator."""
    if sampling.temperature < GREEDY_BELOW:
        return lambda logits_V: int(logits_V.argmax())
    warpers = LogitsProcessorList([TemperatureLogitsWarper(float(sampling.temperature))])
    if sampling.top_p < 1:
        warpers.append(TopPLogitsWarper(float(sampling.top_p)))
    generator = torch.Generator()
    if sampling.seed is None:
        generator.seed()
    else:
        generator.manual_seed(sampling.seed)

    def draw(logits_V: torch.Tensor) -> int:
        scores_BV = warpers(torch.empty(1, 0, dtype=torch.long), logits_V[None])
        return int(torch.multinomial(torch.softmax(scores_BV[0], dim=-1), 1, generator=generator))

    return draw
