"""Probe lines: what base and adapter answer to eight fixed prompts, so that an inference box can prove what it loaded.

They are computed by transformers' own attention and PEFT's own layers, as a serving process computes them, and not by
the trainer's faster forms: those round at other places.
"""

import json
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from rendering.specs import Message
from rendering.tokens import Renderer
from store.durable import replace_file
from trainer.backends.generating import as_served
from trainer.probes import NUM_TOKENS, PROBE, read_prompts


def write_probe(root: Path, renderer: Renderer, model: Any) -> None:
    """Write `probe.jsonl` for an adapter on its base (for the bare base, both answers are the base's)."""
    prompts = read_prompts()
    ids = [renderer.prompt([Message("user", prompt)]) for prompt in prompts]
    with as_served(model), torch.inference_mode():
        adapter = _answers(model, ids)
        with model.disable_adapter() if hasattr(model, "disable_adapter") else nullcontext():
            base = _answers(model, ids)
    rows = zip(prompts, ids, base, adapter, strict=True)
    lines = [json.dumps({"prompt": prompt, "prompt_ids": own, "base": plain, "adapter": adapted}) for prompt, own, plain, adapted in rows]
    replace_file(root / PROBE, "\n".join(lines) + "\n")


def _answers(model: Any, prompts: Sequence[list[int]]) -> list[dict[str, list[Any]]]:
    """Greedy tokens after each prompt with their natural log-probabilities."""
    continued = _greedy(model, prompts)
    return [{"ids": ids, "logprobs": _logprobs(model, prompt, ids)} for prompt, ids in zip(prompts, continued, strict=True)]


def _greedy(model: Any, prompts: Sequence[list[int]]) -> list[list[int]]:
    """NUM_TOKENS greedy tokens for each prompt, going on past an end of turn; all prompts in one batch, padded on the left."""
    longest = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts], device=model.device)
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=model.device)
    # `eos_token_id` -1 is no token: eight tokens always.
    made = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=NUM_TOKENS, do_sample=False, eos_token_id=-1, pad_token_id=0)
    found: list[list[int]] = made[:, longest:].tolist()
    return found


def _logprobs(model: Any, prompt: list[int], ids: list[int]) -> list[float]:
    """One forward pass of prompt and tokens together, batch 1, without a cache."""
    logits = model(input_ids=torch.tensor([prompt + ids], device=model.device), use_cache=False).logits[0]
    logprobs = logits[len(prompt) - 1 : -1].float().log_softmax(-1)
    return [round(float(logprobs[place, token]), 6) for place, token in enumerate(ids)]
