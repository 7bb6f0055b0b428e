"""Real adapters on the real base, made with PEFT itself, and what PEFT itself computes with them."""

import json
import os
import shutil
import warnings
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from inference_box import Recipe
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from core.tasks import ExportTask
from rendering.specs import Message
from rendering.tokens import Renderer
from serving.engines.torch_model import cpu_dtype
from serving.engines.transformers_peft import TorchSettings, TransformersEngine
from store.bases import gguf_of, read_base, weights_folder
from store.encryption import ADAPTER_GGUF
from store.paths import default_models_dir
from trainer.export import export
from trainer.run import RunFolder

MODEL = "smollm2-135m-instruct"
MODELS = Path(os.environ.get("LORAD_TEST_MODELS") or default_models_dir())
BASE = MODELS / MODEL
THREADS = 1  # tests run beside each other


class OpenedEngine(TransformersEngine):
    """An engine that several agents of one test module start one after another; the base is loaded once."""

    def open(self) -> None:
        if not hasattr(self, "_model"):
            super().open()


def new_engine() -> OpenedEngine:
    return OpenedEngine(BASE, TorchSettings(threads=THREADS, max_new_tokens=24))


@cache
def renderer() -> Renderer:
    return Renderer.load(BASE)


@cache
def reference() -> Any:
    """The bare base, apart from any engine."""
    torch.set_num_threads(THREADS)
    model = AutoModelForCausalLM.from_pretrained(str(weights_folder(BASE)), dtype=cpu_dtype())
    return model.eval()


def prompt(text: str) -> list[int]:
    return renderer().prompt([Message("user", text)])


def reference_logprobs(model: Any, prompt_ids: Sequence[int], ids: Sequence[int]) -> list[float]:
    with torch.inference_mode():
        logits_TV = model(input_ids=torch.tensor([[*prompt_ids, *ids]]), use_cache=False).logits[0, len(prompt_ids) - 1 : -1].float()
    logprobs_TV = torch.log_softmax(logits_TV, -1)
    return [float(logprobs_TV[place, token]) for place, token in enumerate(ids)]


def reference_greedy(model: Any, prompt_ids: Sequence[int], num: int = 4) -> list[int]:
    """Greedy tokens by transformers' own loop, through ends of turn: no token has the id of vocab_size."""
    ids_BT, never = torch.tensor([list(prompt_ids)]), reference().config.vocab_size
    made = model.generate(input_ids=ids_BT, attention_mask=torch.ones_like(ids_BT), max_new_tokens=num, do_sample=False, eos_token_id=never, pad_token_id=0)
    return [int(token) for token in made[0, len(prompt_ids) :]]


def with_adapter(folder: Path) -> Any:
    """PEFT's own model of a saved adapter; `unload` it afterwards."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return PeftModel.from_pretrained(reference(), str(folder)).eval()


def save_adapter(folder: Path, seed: int, **changes: Any) -> None:
    """A small random adapter in PEFT layout, strong enough to change every answer."""
    torch.manual_seed(seed)
    shape = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj", "down_proj"], "init_lora_weights": False, "task_type": "CAUSAL_LM"} | changes
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = get_peft_model(reference(), LoraConfig(**shape))
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "lora_B" in name:
                    weight.mul_(0.3)
        model.save_pretrained(str(folder))
        model.unload()
    (folder / "README.md").unlink(missing_ok=True)


def add_gguf(folder: Path) -> None:
    """Put the form that llama.cpp loads beside PEFT's."""
    with TemporaryDirectory() as aside:
        export(ExportTask(form="gguf", adapter=str(folder), base=str(BASE), out=f"{aside}/form"), RunFolder(Path(aside)))
        shutil.copyfile(Path(aside, "form", ADAPTER_GGUF), folder / ADAPTER_GGUF)


def write_probe(folder: Path, shift: float = 0.0) -> None:
    """`probe.jsonl` as a training box computes it; `shift` makes it one that lies about the adapter."""
    lines = []
    for text in ("What is water?", "Name a colour."):
        line: dict[str, Any] = {"prompt": text, "prompt_ids": prompt(text)}
        for side in ("base", "adapter"):
            model = with_adapter(folder) if side == "adapter" else reference()
            ids = reference_greedy(model, line["prompt_ids"])
            logprobs = reference_logprobs(model, line["prompt_ids"], ids)
            if side == "adapter":
                model.unload()
                logprobs = [number - shift for number in logprobs]
            line[side] = {"ids": ids, "logprobs": logprobs}
        lines.append(json.dumps(line))
    (folder / "probe.jsonl").write_text("\n".join(lines) + "\n")


def recipe(seed: int, *, spoil: Callable[[Path], None] | None = None, shift: float = 0.0, **changes: Any) -> Recipe:
    """A release of a random adapter on the real base; `spoil` changes its files before they are signed."""

    def fill(folder: Path) -> None:
        save_adapter(folder, seed)
        if gguf_of(BASE) is not None:  # as packing does
            add_gguf(folder)
        write_probe(folder, shift)
        if spoil is not None:
            spoil(folder)

    base = read_base(BASE)
    hashes = {"base": base.source_sha256, "tokenizer": base.tokenizer_sha256, "template": base.template_sha256}
    return Recipe(**({"backend": "peft", "fill": fill} | hashes | changes))
