"""Small random models of many families, with an adapter at work, and rows for them: what the tests of paths share."""

import random
from array import array
from collections.abc import Sequence
from typing import Any

import torch
import transformers
from peft import LoraConfig, get_peft_model

from core.config import Config
from rendering.rows import Row
from trainer.backends.lora import unfuse
from trainer.backends.targets import targets_of
from trainer.examples import Example

SMALL: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "bos_token_id": None,
    "eos_token_id": 2,
    "pad_token_id": None,
}
PLAIN_HEADS = {key: value for key, value in SMALL.items() if key != "head_dim"}
GPT2 = {key: SMALL[key] for key in ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id")} | {
    "n_embd": 64,
    "n_head": 4,
    "n_layer": 2,
    "n_positions": 256,
}
DELTA = {
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "layer_types": ["linear_attention", "full_attention"],
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32}

SHAPES: dict[str, dict[str, Any]] = {
    "llama": SMALL,
    "mistral": SMALL | {"sliding_window": 8},
    "qwen2": SMALL,
    "qwen3": SMALL,
    "gemma": SMALL,
    "gemma2": SMALL | {"sliding_window": 8, "query_pre_attn_scalar": 16},
    "gemma3_text": SMALL | {"sliding_window": 8, "query_pre_attn_scalar": 16, "layer_types": ["sliding_attention", "full_attention"]},
    "phi": PLAIN_HEADS,
    "phi3": SMALL | {"sliding_window": None},
    "gpt2": GPT2,
    "gpt_neox": PLAIN_HEADS,
    "mixtral": SMALL | {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None},
    "qwen2_moe": SMALL | EXPERTS,
    "qwen3_moe": SMALL | EXPERTS,
    "gpt_oss": SMALL | {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 8},
    "granite": SMALL | {"logits_scaling": 4.0, "embedding_multiplier": 2.0},
    "olmo2": SMALL,
    "olmo3": SMALL | {"sliding_window": 128},
    "falcon": PLAIN_HEADS,
    "smollm3": SMALL,
    "stablelm": PLAIN_HEADS,
    "olmoe": SMALL | {"num_experts": 4, "num_experts_per_tok": 2},
    "qwen3_5_text": SMALL | DELTA,
    "qwen3_5_moe_text": SMALL | DELTA | EXPERTS,
    "qwen3_next": SMALL | DELTA | EXPERTS,
}


def small_base(family: str, **shape: Any) -> Any:
    """A frozen random model, fp32."""
    torch.manual_seed(5)
    model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(family, **{**SHAPES[family], **shape}))
    return model.requires_grad_(False).eval()


def with_adapter(base: Any) -> Any:
    """The model with an adapter on all-linear whose second matrix is not zero."""
    model = get_peft_model(base, LoraConfig(r=4, lora_alpha=8, target_modules=targets_of(base, "all-linear"), task_type="CAUSAL_LM"))
    torch.manual_seed(6)
    for name, param in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(param, std=0.1)
    return model.eval()


def example(length: int, learnt: Sequence[int], seed: int = 0) -> Example:
    """A row of random tokens."""
    rng = random.Random(f"{length}/{seed}")  # noqa: S311 - no secret
    row = Row(drop="drop-1", line=seed + 1, group="g", split="train", schema_id="chat_sft_v1", messages=[], weight=1.0)
    ids = array("i", (rng.randrange(3, 300) for _ in range(length)))
    return Example(row=row, ids=ids, learnt=array("i", learnt), weights=array("f", [1.0] * len(learnt)), num_last=1)


def rows() -> list[Example]:
    """Rows over and under a window of 8 and the delta rule's chunk of 64, with several learnt stretches."""
    return [example(70, [*range(20, 30), *range(60, 70)]), example(9, [7, 8]), example(33, range(5, 33)), example(24, [1, 2, 23])]


def packing(on: bool, **more: Any) -> Config:
    """A config with training.packing."""
    return Config.model_validate({"max_length": 128, **more, "training": {"packing": on}})


def gradients(model: Any, losses: torch.Tensor) -> dict[str, torch.Tensor]:
    """The gradient of the sum of `losses` by every trained parameter that got one."""
    model.zero_grad()
    losses.sum().backward()
    return {name: param.grad.clone() for name, param in model.named_parameters() if param.grad is not None}


def row_by_row(model: Any, examples: Sequence[Example]) -> torch.Tensor:
    """Losses by transformers' eager attention and PEFT's own layers, labels shifted by hand, each row by itself."""
    unfuse(model)
    model.get_base_model().set_attn_implementation("eager")
    losses = []
    for one in examples:
        logits = model(input_ids=torch.tensor([list(one.ids)]), use_cache=False).logits[0].float()
        labels = torch.full((len(one.ids),), -100)
        for place in one.learnt:
            labels[place] = one.ids[place]
        kept = torch.nn.functional.cross_entropy(logits[:-1], labels[1:], ignore_index=-100, reduction="none")
        losses.append(kept[labels[1:] != -100])
    return torch.cat(losses)
