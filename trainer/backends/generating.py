"""Greedy answers of a model, in batches of prompts of like length, with a KV cache.

Rows are padded on the left; one that has ended leaves the batch and the cache. The model computes as a serving process has
it (transformers' own attention, PEFT's own layers), and the rules of the job's profile hold as they do there.

Axes: B rows that are still being written, N tokens of the longest prompt, V vocabulary.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from core.answering import AnswerRules
from core.errors import ChildError
from core.exits import ChildExit
from rendering.answerrules import TextRules, TokenTexts
from rendering.tokens import Renderer
from store.child import is_out_of_memory
from trainer.backends.lora import fuse, unfuse
from trainer.scores import Answer

log = logging.getLogger(__name__)

MOST_ROWS = {"cpu": 32, "cuda": 256}
BATCH_TOKENS = {"cpu": 8192, "cuda": 131_072}  # of prompt and answer, padding counted: what the cache may hold


@dataclass(frozen=True, slots=True)
class Prompt:
    """What an answer is wanted for: its tokens, the question that named endings look at, and how long the answer may be."""

    ids: Sequence[int]
    question: str
    max_new_tokens: int


@contextmanager
def as_served(model: Any) -> Iterator[None]:
    """The model with transformers' own attention and PEFT's own layers, as an inference box computes."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    used = inner.config._attn_implementation
    unfuse(model)
    inner.set_attn_implementation("sdpa" if inner._supports_sdpa else "eager")
    try:
        yield
    finally:
        inner.set_attn_implementation(used)
        fuse(model)


@dataclass(slots=True)
class _Row:
    """One answer that is being written."""

    place: int
    prompt: Prompt
    rules: TextRules | None
    began_s: float
    ids: list[int] = field(default_factory=list)
    heard: str = ""


@dataclass(slots=True, kw_only=True)
class Generating:
    """Writes answers. `most_rows` shrinks where memory runs out."""

    renderer: Renderer
    rules: AnswerRules
    beat: Callable[[], None]
    most_rows: int = 0  # 0: by the device
    texts: TokenTexts | None = None

    def answers(self, model: Any, prompts: Sequence[Prompt]) -> Iterator[list[tuple[int, Answer]]]:
        """Batch after batch: the places of its prompts with their answers. Longest first, so that too large a batch fails at once.

        Raises ChildError LOGITS_NAN for a model whose output is not a number, and whatever a batch of one row raises.
        """
        order = sorted(range(len(prompts)), key=lambda place: (-len(prompts[place].ids), place))
        device = model.device
        while order:
            size = self._size([prompts[place] for place in order], device.type)
            try:
                with as_served(model), torch.inference_mode():
                    found = self._batch(model, [(place, prompts[place]) for place in order[:size]])
            except Exception as error:
                if not is_out_of_memory(error) or size == 1:
                    raise
                self.most_rows = size // 2
                log.warning("out of memory: answers are written %d at a time", self.most_rows)
                continue
            order = order[size:]
            yield found

    def _size(self, prompts: Sequence[Prompt], device: str) -> int:
        longest = max(len(prompts[0].ids) + prompt.max_new_tokens for prompt in prompts)
        most = self.most_rows or MOST_ROWS.get(device, MOST_ROWS["cpu"])
        return max(1, min(most, BATCH_TOKENS.get(device, BATCH_TOKENS["cpu"]) // longest))

    def _batch(self, model: Any, prompts: Sequence[tuple[int, Prompt]]) -> list[tuple[int, Answer]]:
        rows = [_Row(place, prompt, self._own_rules(prompt.question), time.monotonic()) for place, prompt in prompts]
        longest = max(len(row.prompt.ids) for row in rows)
        ids_BN = torch.tensor([[0] * (longest - len(row.prompt.ids)) + list(row.prompt.ids) for row in rows], device=model.device)
        mask_BN = torch.tensor([[0] * (longest - len(row.prompt.ids)) + [1] * len(row.prompt.ids) for row in rows], device=model.device)
        positions_BN = (mask_BN.cumsum(-1) - 1).clamp(min=0)
        cache: Any = None
        done: list[tuple[int, Answer]] = []
        while rows:
            self.beat()
            out = model(input_ids=ids_BN, attention_mask=mask_BN, position_ids=positions_BN, past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache = out.past_key_values
            chosen_B = self._choose(out.logits[:, -1].float(), rows)
            keep = []
            for place, (row, token) in enumerate(zip(rows, chosen_B, strict=True)):
                answer = self._take(row, token)
                keep += [place] if answer is None else []
                done += [] if answer is None else [(row.place, answer)]
            if len(keep) < len(rows):
                rows = [rows[place] for place in keep]
                if not rows:
                    break
                kept = torch.tensor(keep, device=model.device)
                cache.batch_select_indices(kept)
                mask_BN, positions_BN = mask_BN[kept], positions_BN[kept]
            ids_BN = torch.tensor([[row.ids[-1]] for row in rows], device=model.device)
            mask_BN = torch.cat([mask_BN, mask_BN.new_ones(len(rows), 1)], dim=-1)
            positions_BN = positions_BN[:, -1:] + 1
        return done

    def _choose(self, logits_BV: torch.Tensor, rows: Sequence[_Row]) -> list[int]:
        """The likeliest token of each row, under its rules."""
        if not bool(torch.isfinite(logits_BV).all()):
            raise ChildError("the model's output is not a number", hint="train with a lower learning_rate", code="LOGITS_NAN", exit_code=ChildExit.BAD_SPEC)
        chosen: list[int] = logits_BV.argmax(-1).tolist()
        for place, row in enumerate(rows):
            if row.rules is None:
                continue
            if row.rules.must_end:
                chosen[place] = self.renderer.eos_id
                continue
            before_V = logits_BV[place]
            changed_V = before_V.clone()
            for ids, penalty in row.rules.disliked():
                found = torch.tensor([id for id in ids if id < len(before_V)], dtype=torch.long, device=before_V.device)
                changed_V[found] = torch.minimum(changed_V[found], before_V[found] - penalty)
            chosen[place] = int(changed_V.argmax())
        return chosen

    def _take(self, row: _Row, token: int) -> Answer | None:
        """Add a token to an answer; the answer, once it has ended."""
        row.ids.append(token)
        ended = token == self.renderer.eos_id
        text = row.heard
        if row.rules is not None or ended or len(row.ids) == row.prompt.max_new_tokens:
            text = self.renderer.decode(row.ids[:-1] if ended else row.ids)
        if row.rules is not None and not text.endswith("\ufffd"):  # half a letter is not heard yet
            row.rules.hear(text[len(row.heard) :])
            row.heard = text
        stop = min((place for stop in self.rules.stops if (place := text.find(stop)) >= 0), default=-1) if self.rules.stops else -1
        if stop >= 0:
            text = text[:stop]
        elif not ended and len(row.ids) < row.prompt.max_new_tokens:
            return None
        return Answer(text=self.rules.extract(text), tokens=len(row.ids), seconds=round(time.monotonic() - row.began_s, 3))

    def _own_rules(self, question: str) -> TextRules | None:
        if not (self.rules.penalties or self.rules.stops or self.rules.end_after or self.rules.named_end):
            return None
        if self.rules.penalties and self.texts is None:
            self.texts = TokenTexts.of(self.renderer.tokenizer)
        return TextRules(self.rules, question, self.texts)
