"""A tiny base, adapters on it that were taught what to say, and releases of them for either real engine."""

import json
import shutil
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench.faults import CannotRun

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "serving"))  # a tiny base, an inference box in a folder

ENGINES = ("transformers", "llamacpp")
PACKAGES = ("torch", "transformers", "peft", "gguf", "xllamacpp")
MARKERS = ("amber", "cobalt", "olive")
WORDS = ("rain", "stone", "cloud")  # as many tokens each
TOKENS = 96
STEPS, RATE = 40, 1e-2
SURE = 0.2  # nats a token: this base can hardly give one more than 85 %
LORA: dict[str, Any] = {"r": 16, "lora_alpha": 32, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}


def question(word: str) -> str:
    """The user's turn."""
    return f"Tell me about {word}."


class Shelf:
    """The base and an adapter for each marker, in the forms of both engines. Raises CannotRun."""

    def __init__(self, root: Path) -> None:
        if lacks := [name for name in PACKAGES if find_spec(name) is None]:
            raise CannotRun(f"needs {', '.join(lacks)}: two engines answer")
        from tiny_llama import exported, make_gguf_base

        self.models = root
        self.base = make_gguf_base(root)
        self.adapters = [root / marker for marker in MARKERS]
        for adapter in self.adapters:
            teach(self.base, adapter, adapter.name)
            exported(self.base, adapter, root / f"{adapter.name}-gguf", "gguf", "f32")
            shutil.move(root / f"{adapter.name}-gguf" / "adapter.gguf", adapter)

    def engine(self, name: str) -> Any:
        """With one stream, not opened yet."""
        from serving.engines.llamacpp import LlamaCppEngine, LlamaOptions
        from serving.engines.transformers_peft import TorchSettings, TransformersEngine

        if name == "llamacpp":
            return LlamaCppEngine(self.base, LlamaOptions(threads=1, streams=1))
        return TransformersEngine(self.base, TorchSettings(threads=1, streams=1))

    def pack(self, world: Any, engine: str) -> list[str]:
        """A release of each adapter, with a probe that this engine measured."""
        from inference_box import Recipe

        measuring = self.engine(engine)
        measuring.open()
        known, packed = measuring.base, []
        hashes = {"base": known.base_sha256, "tokenizer": known.tokenizer_sha256, "template": known.template_sha256}
        for version, adapter in enumerate(self.adapters, 1):
            measuring.load(adapter.name, adapter)

            def fill(folder: Path, adapter: Path = adapter) -> None:
                shutil.copytree(adapter, folder, dirs_exist_ok=True)
                (folder / "probe.jsonl").write_text(_probe(measuring, adapter.name))

            packed.append(world.pack(Recipe(version=version, backend="peft", fill=fill, **hashes)))
        measuring.close()
        return packed


def _probe(engine: Any, name: str) -> str:
    from serving.engines.port import only

    prompt, ids = (5, 6, 7), (8, 9, 40)
    sides = {side: {"ids": ids, "logprobs": engine.logprobs(blend, prompt, ids)} for side, blend in (("base", ()), ("adapter", only(name)))}
    return json.dumps({"prompt": "Hi", "prompt_ids": prompt, **sides}) + "\n"


def teach(base: Path, folder: Path, marker: str) -> None:
    """An adapter that says `marker` again and again, and is so sure of each token that no rounding changes one."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    lines_BT, labels_BT = _lines(base, marker)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(1)
        model = get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), LoraConfig(**LORA))
        optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], lr=RATE, weight_decay=0.0)
        for _ in range(STEPS):
            loss = model(input_ids=lines_BT, labels=labels_BT).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        model.save_pretrained(str(folder))
    assert float(loss.detach()) < SURE, f"{marker} was not learnt: {float(loss.detach()):.3f} nats"


def _lines(base: Path, marker: str) -> tuple[Any, Any]:
    """The questions with their answers; and the same with the questions masked."""
    import torch

    from rendering.specs import Message
    from rendering.tokens import Renderer

    renderer = Renderer.load(base)
    prompts = [renderer.prompt([Message("user", question(word))]) for word in WORDS]
    answer = renderer.tokenizer.encode(f"{marker} " * TOKENS, add_special_tokens=False).ids[:TOKENS]
    lines_BT = torch.tensor([[*prompt, *answer] for prompt in prompts])
    labels_BT = lines_BT.clone()
    labels_BT[:, : len(prompts[0])] = -100
    return lines_BT, labels_BT
