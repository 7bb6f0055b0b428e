"""A random base of two layers and random adapters on it, as sealed folders: every path of the torch engine in milliseconds."""

import shutil
import warnings
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import LoraConfig, get_peft_model

from serving.engines.transformers_peft import TorchSettings, TransformersEngine
from store import codec
from store.bases import BASE, TEMPLATE, TOKENIZER, Base
from store.seals import hash_file, seal

DATA = Path(__file__).parents[1] / "data" / "tiny_base"
SHAPE: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "bos_token_id": None,
    "eos_token_id": 2,
    "pad_token_id": None,
    "initializer_range": 0.3,
}


def make_base(folder: Path, kind: str = "llama", **changes: Any) -> Path:
    """A sealed base with random weights in fp32."""
    torch.set_num_threads(1)
    torch.manual_seed(1)
    config = transformers.AutoConfig.for_model(kind, **SHAPE | changes)
    transformers.AutoModelForCausalLM.from_config(config).float().save_pretrained(folder)
    for name in (TOKENIZER, TEMPLATE):
        shutil.copyfile(DATA / name, folder / name)
    hashes = {"tokenizer_sha256": hash_file(folder / TOKENIZER), "template_sha256": hash_file(folder / TEMPLATE)}
    codec.write(folder / BASE, Base(name="tiny", source="tests", source_sha256="0" * 64, weights=".", eos_token="<|im_end|>", **hashes))
    seal(folder)
    return folder


def make_adapter(base: Path, folder: Path, seed: int, **changes: Any) -> Path:
    """A random adapter, strong enough to change every answer."""
    shape = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "init_lora_weights": False, "task_type": "CAUSAL_LM"} | changes
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        torch.manual_seed(seed)
        adapted = get_peft_model(model, LoraConfig(**shape))
        with torch.no_grad():
            for name, weight in adapted.named_parameters():
                if "lora_" in name:
                    weight.normal_(std=0.3)
        adapted.save_pretrained(str(folder))
    return folder


def open_engine(base: Path, **settings: Any) -> TransformersEngine:
    engine = TransformersEngine(base, TorchSettings(**{"threads": 1, "max_new_tokens": 24} | settings))
    engine.open()
    return engine
