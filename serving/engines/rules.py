"""The rules of a profile at the logits of one answer. Each answer has its own: two adapters never see each other's.

Axes: V vocabulary.
"""

import torch

from core.answering import AnswerRules
from rendering.answerrules import TextRules, TokenTexts


class LogitsRules(TextRules):
    """Penalties and the forced end of one answer. `hear` each piece of text, then `apply` to the next logits."""

    def __init__(self, rules: AnswerRules, question: str, end_id: int, texts: TokenTexts | None = None) -> None:
        super().__init__(rules, question, texts)
        self._end_id = end_id

    def apply(self, logits_V: torch.Tensor) -> torch.Tensor:
        """The logits under the rules; the given ones are left as they are. After an ending all but the end token are -inf."""
        if self.must_end:
            forced_V = torch.full_like(logits_V, -torch.inf)
            forced_V[self._end_id] = 0.0
            return forced_V
        changed_V = logits_V
        for ids, penalty in self.disliked():
            # A tokenizer may know more tokens than the model.
            found = torch.tensor([id for id in ids if id < len(logits_V)], dtype=torch.long, device=logits_V.device)
            changed_V = logits_V.clone() if changed_V is logits_V else changed_V
            changed_V[found] = torch.minimum(changed_V[found], logits_V[found] - penalty)
        return changed_V
