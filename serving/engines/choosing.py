"""Tokens out of logits, by the wishes of one request.

Order: log-probabilities are told of the model's own logits; then bias, penalties, the profile's rules and the grammar
change them; then temperature, top k and top p; then one is drawn.

Axes: V vocabulary, K candidates.
"""

from collections.abc import Callable, Sequence

import torch

from serving.engines.port import Chosen, Likely, Sampling

GREEDY_BELOW = 1e-4  # a lower temperature would overflow the logits and means the same


class Chooser:
    """What one answer's tokens are drawn by. With a seed it draws from its own generator."""

    def __init__(self, sampling: Sampling, prompt_ids: Sequence[int]) -> None:
        self._sampling = sampling
        self._prompt_ids = prompt_ids
        self.made: list[int] = []
        self._generator = torch.Generator()
        if sampling.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(sampling.seed % (1 << 63))

    def changed(self, logits_V: torch.Tensor) -> torch.Tensor:
        """The logits under bias and penalties; the given ones are left as they are."""
        wishes = self._sampling
        if not (wishes.logit_bias or wishes.repetition_penalty != 1 or wishes.frequency_penalty or wishes.presence_penalty):
            return logits_V
        logits_V = logits_V.clone()
        for token, bias in wishes.logit_bias.items():
            if 0 <= token < len(logits_V):
                logits_V[token] += bias
        if wishes.repetition_penalty != 1:
            seen = torch.tensor(sorted({*self._prompt_ids, *self.made}))
            seen_K = logits_V[seen]
            logits_V[seen] = torch.where(seen_K > 0, seen_K / wishes.repetition_penalty, seen_K * wishes.repetition_penalty)
        if self.made and (wishes.frequency_penalty or wishes.presence_penalty):
            made, counts_K = torch.tensor(self.made).unique(return_counts=True)
            logits_V[made] -= wishes.frequency_penalty * counts_K + wishes.presence_penalty
        return logits_V

    def choose(self, logits_V: torch.Tensor) -> int:
        """The next token, out of logits that are final."""
        token = self._draw(logits_V)
        self.made.append(token)
        return token

    def _draw(self, logits_V: torch.Tensor) -> int:
        wishes = self._sampling
        if wishes.temperature < GREEDY_BELOW:
            return int(logits_V.argmax())
        num = min(wishes.top_k or len(logits_V), len(logits_V))
        logits_K, token_K = logits_V.topk(num)  # the likeliest first
        probs_K = torch.softmax(logits_K / wishes.temperature, dim=-1)
        if wishes.top_p < 1:
            before_K = probs_K.cumsum(-1) - probs_K
            probs_K = probs_K.masked_fill(before_K >= wishes.top_p, 0)  # the likeliest has nothing before it and stays
        return int(token_K[torch.multinomial(probs_K, 1, generator=self._generator)])


def tell_likely(logits_V: torch.Tensor, token: int, num: int, bytes_of: Callable[[int], bytes]) -> Chosen:
    """The log-probability of a token and of the `num` likeliest, of the model's own logits."""
    logprobs_V = torch.log_softmax(logits_V, dim=-1)
    top = logprobs_V.topk(min(num, len(logits_V))).indices.tolist() if num else []

    def likely(id: int) -> Likely:
        raw = bytes_of(id)
        return Likely(text=raw.decode(errors="replace"), raw=raw, logprob=float(logprobs_V[id]))

    return Chosen(token=likely(token), top=tuple(map(likely, top)))
