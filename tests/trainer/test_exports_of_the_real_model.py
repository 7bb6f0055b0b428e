"""The embedded base with a really trained adapter: merged folder and merged GGUF answer ten prompts as the served adapter does."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from export_cases import export_task, note_in, run_folder
from trainer_cases import chat, results_of

from core.config import Config
from core.tasks import RowsOf, TrainTask
from rendering.specs import Message
from rendering.tokens import Renderer
from trainer.backends.exports.answers import MOST_GAP
from trainer.backends.model import choose_place, load_base, read_adapter
from trainer.backends.peft import PeftBackend
from trainer.export import export
from trainer.run import RunFolder

pytestmark = [pytest.mark.model, pytest.mark.full, pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")]

PEOPLE = ["baker", "smith", "judge", "miner", "nurse", "pilot", "tailor", "farmer"]
ASKED = [*(f"What does a {word} say?" for word in PEOPLE), "What is the capital of France?", "Count from 2020  to   2024."]
NUM_TOKENS = 12


@pytest.fixture(scope="module")
def renderer(real_base: Path) -> Renderer:
    return Renderer.load(real_base)


@pytest.fixture
def adapter(real_base: Path, drop: Callable[..., RowsOf], run_in: Callable[..., RunFolder]) -> Path:
    rows = drop([chat(f"What does a {word} say?", f"A {word} says: quack.") for word in PEOPLE])
    settings = Config.model_validate({"batch_size": 8, "learning_rate": 1e-3, "training": {"epochs": 5.0, "checkpoints": 1}}).model_dump(mode="json")
    run = run_in("01-train")
    PeftBackend().train(TrainTask(job="job-1", backend="peft", base=str(real_base), rows=(rows,), settings=settings), run)
    (kept,) = results_of(run).candidates
    return run.root / kept.path


def greedy(model: Any, prompts: list[list[int]]) -> list[list[int]]:
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    with torch.inference_mode():
        made = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=NUM_TOKENS, do_sample=False, eos_token_id=-1, pad_token_id=0)
    found: list[list[int]] = made[:, longest:].tolist()
    return found


def unexplained(served: Any, prompts: list[list[int]], wanted: list[list[int]], found: list[list[int]], eos: int) -> list[str]:
    """Answers that part where the served adapter was sure by more than bf16 rounds away: rounding cannot explain them."""
    told = []
    for prompt, own, other in zip(prompts, wanted, found, strict=True):
        if own != other:
            own, other = ([*ids, eos] for ids in (own, other))  # one that ends sooner parts at its end
            step = next(place for place, pair in enumerate(zip(own, other, strict=False)) if pair[0] != pair[1])
            with torch.inference_mode():
                logprobs = served(torch.tensor([prompt + own[:step]])).logits[0, -1].float().log_softmax(-1)
            gap = float(logprobs[own[step]] - logprobs[other[step]])
            told += [f"{own} became {other}: {gap:.3f} nats"] if gap > MOST_GAP["bf16"] else []
    return told


def test_merged_folder_and_merged_gguf_answer_as_the_served_adapter_does(real_base: Path, adapter: Path, renderer: Renderer, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    place = choose_place()
    prompts = [renderer.prompt([Message("user", text)]) for text in ASKED]
    served = read_adapter(load_base(real_base, place), adapter)
    wanted = greedy(served, prompts)
    assert "quack" in renderer.decode(wanted[0])

    export(export_task("merged", real_base, adapter, tmp_path / "merged"), run_folder(tmp_path / "run-1"))
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=place.dtype).eval()
    found = greedy(merged, prompts)
    assert unexplained(served, prompts, wanted, found, renderer.eos_id) == []
    assert sum(own == other for own, other in zip(wanted, found, strict=True)) >= 8
    check = note_in(tmp_path / "merged")["check"]
    assert check["equal"] >= 9
    assert check["logprob_moved_mean"] < check["adapter_moves_mean"] / 20

    pytest.importorskip("xllamacpp")
    from llama_cpp import llama_tokens, up_to_end

    export(export_task("merged-gguf", real_base, adapter, tmp_path / "gguf"), run_folder(tmp_path / "run-2"))
    assert note_in(tmp_path / "gguf")["check"]["equal"] == 10
    wanted = up_to_end(wanted, renderer.eos_id)
    by_llama = up_to_end(llama_tokens(tmp_path / "gguf" / "model.gguf", prompts, NUM_TOKENS), renderer.eos_id)
    assert unexplained(served, prompts, wanted, by_llama, renderer.eos_id) == []
    assert sum(own == other for own, other in zip(wanted, by_llama, strict=True)) >= 8
