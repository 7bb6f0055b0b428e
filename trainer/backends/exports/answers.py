"""What base and adapter by PEFT answer to ten prompts, and whether an exported form answers the same.

Both sides compute in fp32, so that what differs is what writing the form has rounded, and nothing else. The reference are
greedy tokens; the form is shown prompt and answer and asked for its own next token at every place. Where the two first
part, the reference's preference for its own token over the form's tells a tie that rounding broke from another model.

Axes: B rows, T tokens, V vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from core.errors import ChildError
from core.exits import ChildExit
from rendering.specs import Message
from rendering.tokens import Renderer
from trainer.probes import read_prompts

Logits_TV = NDArray[np.float32]
Logits_BTV = NDArray[np.float32]
Reader = Callable[[Sequence[Sequence[int]]], Logits_BTV]
"""Rows of token ids, all of one length -> logits after each token, in fp32. What stands behind a token never counts for it."""

NUM_TOKENS = 16
MORE_PROMPTS = ("Write one sentence about the number 2024.", "Name three animals, one on each line.")
MOST_GAP = {"f32": 0.01, "f16": 0.1, "bf16": 0.5, "q8_0": 0.5}
"""Nats by which the reference may prefer its own token where a form parts from it."""
MOST_MOVED = {"f32": 0.001, "f16": 0.006, "bf16": 0.05, "q8_0": 0.15}
"""Nats by which a form may move the log-probability of a token in the mean: about ten times what the 135M model showed (f16
0.0006, bf16 0.005, q8_0 0.017)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One prompt, the tokens that follow it, the reference's greedy token at each of these places and its log-probabilities there."""

    prompt: list[int]
    ids: list[int]
    best: list[int]
    logprobs_TV: Logits_TV
    effect_T: Logits_TV  # by how much the adapter moves the log-probability of each token


def reference_answers(model: Any, renderer: Renderer) -> list[Answer]:
    """What a PEFT model answers greedily to ten prompts: NUM_TOKENS each, going on past an end of turn."""
    prompts = [renderer.prompt([Message("user", text)]) for text in (*read_prompts(), *MORE_PROMPTS)]
    longest = max(map(len, prompts))
    ids_BT = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask_BT = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    how = {"max_new_tokens": NUM_TOKENS, "do_sample": False, "eos_token_id": -1, "pad_token_id": 0}
    with torch.inference_mode():
        made: list[list[int]] = model.generate(input_ids=ids_BT, attention_mask=mask_BT, **how)[:, longest:].tolist()
    read, rows = reader_of(model), list(zip(prompts, made, strict=True))
    with model.disable_adapter():
        of_base = _logprobs(read, rows)
    found = []
    for (prompt, ids), logprobs_TV, base_TV in zip(rows, _logprobs(read, rows), of_base, strict=True):
        # What it says without padding, should the two ever differ by a tie.
        best: list[int] = logprobs_TV.argmax(axis=1).tolist()
        found.append(Answer(prompt=prompt, ids=ids, best=best, logprobs_TV=logprobs_TV, effect_T=_moved(logprobs_TV, base_TV, ids)))
    return found


def reader_of(model: Any) -> Reader:
    """The reader of a transformers model."""

    def read(rows: Sequence[Sequence[int]]) -> Logits_TV:
        with torch.inference_mode():
            logits_BTV: Logits_BTV = model(input_ids=torch.tensor(rows), use_cache=False).logits.float().numpy()
        return logits_BTV

    return read


def compared(answers: Sequence[Answer], read: Reader, dtype: str, what: str) -> dict[str, Any]:
    """How the form that `read` reads answers, for export.json. Raises ChildError EXPORT_DIFFERS where it is another model."""
    equal, tokens, moved, parts = 0, 0, [], []
    found = _logprobs(read, [(answer.prompt, answer.ids) for answer in answers])
    for place, (answer, logprobs_TV) in enumerate(zip(answers, found, strict=True)):
        moved.append(_moved(logprobs_TV, answer.logprobs_TV, answer.ids))
        own = logprobs_TV.argmax(axis=1)
        same = own == np.array(answer.best)
        equal += bool(same.all())
        tokens += int(same.sum())
        if not same.all():
            step = int(np.argmin(same))
            gap = float(answer.logprobs_TV[step, answer.best[step]] - answer.logprobs_TV[step, own[step]])
            parts.append({"prompt": place, "token": step, "reference": answer.best[step], "form": int(own[step]), "gap_nats": round(gap, 6)})
    widest = max((part["gap_nats"] for part in parts), default=0.0)
    mean = float(np.mean(np.concatenate(moved)))
    if not mean <= MOST_MOVED[dtype] or widest > MOST_GAP[dtype]:  # not a number is no agreement
        raise ChildError(
            f"the {what} that was written does not answer as base and adapter do: log-probabilities moved by {mean:.3f} nats in the mean, "
            f"{dtype} explains {MOST_MOVED[dtype]}",
            hint="nothing was left; report it with this base's config.json",
            code="EXPORT_DIFFERS",
            exit_code=ChildExit.BAD_SPEC,
        )
    return {
        "kind": "greedy tokens against base and adapter by PEFT, both in fp32",
        "prompts": len(answers),
        "equal": equal,
        "tokens": sum(len(answer.ids) for answer in answers),
        "equal_tokens": tokens,
        "logprob_moved_mean": round(mean, 6),
        "logprob_moved_most": round(float(np.max(np.concatenate(moved))), 6),
        "adapter_moves_mean": round(float(np.mean(np.concatenate([answer.effect_T for answer in answers]))), 6),
        "parts": parts,
        "why": f"rounding to {dtype} broke ties: the reference itself prefers its token by at most {widest:.4f} nats" if parts else "",
    }


def _moved(logprobs_TV: Logits_TV, other_TV: Logits_TV, ids: Sequence[int]) -> Logits_TV:
    """By how much the log-probability of each token differs."""
    steps = np.arange(len(ids))
    found: Logits_TV = np.abs(logprobs_TV[steps, ids] - other_TV[steps, ids])
    return found


def _logprobs(read: Reader, rows: Sequence[tuple[list[int], list[int]]]) -> list[Logits_TV]:
    """Log-probabilities at each answer's tokens, all rows in one pass: filled up behind their end, where it changes nothing before."""
    longest = max(len(prompt) + len(ids) for prompt, ids in rows)
    logits_BTV = read([[*prompt, *ids, *[0] * (longest - len(prompt) - len(ids))] for prompt, ids in rows])
    found = []
    for (prompt, ids), logits_TV in zip(rows, logits_BTV, strict=True):
        own_TV = logits_TV[len(prompt) - 1 : len(prompt) + len(ids) - 1].astype(np.float64)
        own_TV -= own_TV.max(axis=1, keepdims=True)
        found.append((own_TV - np.log(np.exp(own_TV).sum(axis=1, keepdims=True))).astype(np.float32))
    return found
