"""The flat batch, the padded batch and transformers' own forward agree, and only supervised tokens count."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from trainer_cases import SHAPE, chat, questions

from core.tasks import RowsOf
from rendering.rows import read_rows
from rendering.tokens import Renderer
from trainer.backends import attention
from trainer.backends.batches import Cut, FlatForward, micro_batches
from trainer.backends.families import forward_for
from trainer.backends.lora import fuse, unfuse
from trainer.backends.plain import PaddedForward
from trainer.examples import Example, encode_rows

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:transformers.*")

FAMILIES: dict[str, dict[str, Any]] = {"llama": {}, "mistral": {"sliding_window": None}, "qwen2": {}, "qwen3": {}}


@pytest.fixture
def examples(tiny_base: Path, drop: Callable[..., RowsOf]) -> list[Example]:
    """Rows of one and of several turns, one with a turn of weight 0, one of weight one half."""
    several = {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "What is it?"},
            {"role": "assistant", "content": "A library."},
            {"role": "user", "content": "And this?"},
            {"role": "assistant", "content": "The sea.", "weight": 0},
            {"role": "user", "content": "And that over there?"},
            {"role": "assistant", "content": "A morning."},
        ]
    }
    rows = [*questions(4), several, chat("How many?", "Three of them", weight=0.5)]
    return encode_rows(Renderer.load(tiny_base), read_rows([drop(rows)]), 256).kept


def build(family: str, **shape: Any) -> Any:
    """A random model of a family, fp32, with an adapter whose second matrix is not zero."""
    config = transformers.AutoConfig.for_model(family, **{**SHAPE, **shape})
    attention.register()
    kind = {"attn_implementation": attention.FLAT} if family in FAMILIES else {}
    torch.manual_seed(5)
    base = transformers.AutoModelForCausalLM.from_config(config, **kind).eval()
    model = get_peft_model(base, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    for name, param in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(param, std=0.1)
    return model


def gradients(model: Any, losses: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    losses.sum().backward()
    return {name: param.grad.clone() for name, param in model.named_parameters() if param.requires_grad}


def naive(model: Any, examples: Sequence[Example]) -> torch.Tensor:
    """Row by row through transformers' eager attention and PEFT's own layers, labels shifted by hand."""
    unfuse(model)
    model.get_base_model().set_attn_implementation("eager")
    losses = []
    for example in examples:
        logits = model(input_ids=torch.tensor([list(example.ids)]), use_cache=False).logits[0]
        labels = torch.full((len(example.ids),), -100)
        for place in example.learnt:
            labels[place] = example.ids[place]
        kept = torch.nn.functional.cross_entropy(logits[:-1], labels[1:], ignore_index=-100, reduction="none")
        losses.append(kept[labels[1:] != -100])
    return torch.cat(losses)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_flat_batch_gives_the_losses_and_gradients_of_row_by_row(family: str, examples: list[Example]) -> None:
    model = build(family, **FAMILIES[family])
    fuse(model)
    forward = forward_for(model)
    assert isinstance(forward, FlatForward)
    flat = forward.token_losses(examples)
    flat_gradients = gradients(model, flat)
    own = naive(model, examples)
    torch.testing.assert_close(flat, own, atol=1e-5, rtol=1e-5)
    for name, gradient in gradients(model, own).items():
        torch.testing.assert_close(flat_gradients[name], gradient, atol=1e-5, rtol=1e-4, msg=name)


def test_a_padded_batch_gives_the_same(examples: list[Example]) -> None:
    model = build("llama")
    flat = gradients(model, FlatForward(model.get_base_model()).token_losses(examples))
    model.get_base_model().set_attn_implementation("sdpa")
    losses = PaddedForward(model.get_base_model()).token_losses(examples)
    torch.testing.assert_close(losses, naive(model, examples), atol=1e-5, rtol=1e-5)
    model.get_base_model().set_attn_implementation("sdpa")
    for name, gradient in gradients(model, PaddedForward(model.get_base_model()).token_losses(examples)).items():
        torch.testing.assert_close(flat[name], gradient, atol=1e-5, rtol=1e-4, msg=name)


def test_a_model_with_soft_caps_and_windows_goes_padded(examples: list[Example]) -> None:
    model = build("gemma2", sliding_window=8, query_pre_attn_scalar=8)
    forward = forward_for(model)
    assert isinstance(forward, PaddedForward)
    torch.testing.assert_close(forward.token_losses(examples), naive(model, examples), atol=1e-5, rtol=1e-5)


def test_a_window_takes_a_flat_family_out_of_the_flat_layout() -> None:
    assert isinstance(forward_for(build("mistral", sliding_window=16)), PaddedForward)


def test_long_rows_keep_no_probabilities_and_get_the_same_result(examples: list[Example], monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("llama")
    short = forward_for(model).token_losses(examples)
    short_gradients = gradients(model, short)
    lengths = sorted(len(example.ids) for example in examples)
    monkeypatch.setattr(attention, "LONGEST_KEPT", lengths[len(lengths) // 2])  # half of the rows count as long
    long = forward_for(model).token_losses(examples)
    torch.testing.assert_close(long, short, atol=1e-5, rtol=1e-5)
    for name, gradient in gradients(model, long).items():
        torch.testing.assert_close(short_gradients[name], gradient, atol=1e-5, rtol=1e-4, msg=name)


def test_a_row_is_blind_to_its_neighbours(examples: list[Example]) -> None:
    forward = forward_for(build("llama"))
    first, second, third = examples[:3]
    other = replace(second, ids=type(second.ids)("i", [(token + 7) % 300 for token in second.ids]))
    before = forward.token_losses([first, second, third]).split([len(first.learnt), len(second.learnt), len(third.learnt)])
    after = forward.token_losses([first, other, third]).split([len(first.learnt), len(second.learnt), len(third.learnt)])
    assert torch.equal(before[0], after[0])
    assert torch.equal(before[2], after[2])
    assert not torch.equal(before[1], after[1])


def test_what_is_not_learnt_gives_no_gradient(examples: list[Example]) -> None:
    """Hidden states from which no learnt token is predicted get exactly zero from the head."""
    model = build("llama")
    seen: list[torch.Tensor] = []

    def watch(module: Any, args: Any, output: Any) -> None:
        output.last_hidden_state.retain_grad()
        seen.append(output.last_hidden_state)

    model.get_base_model().get_decoder().register_forward_hook(watch)
    FlatForward(model.get_base_model()).token_losses(examples).sum().backward()
    assert seen[0].grad is not None
    moved = seen[0].grad[0].abs().sum(-1) > 0
    starts = itertools.accumulate([0, *(len(example.ids) for example in examples[:-1])])
    wanted = {start + place - 1 for start, example in zip(starts, examples, strict=True) for place in example.learnt}
    assert set(moved.nonzero().flatten().tolist()) == wanted


def test_a_turn_of_weight_0_is_context_and_not_learnt(examples: list[Example], tiny_base: Path) -> None:
    learnt = [examples[4].ids[place] for place in examples[4].learnt]
    assert Renderer.load(tiny_base).decode(learnt, skip_special=False) == "A library.<|im_end|>A morning.<|im_end|>"
    assert examples[4].num_last == sum(1 for _ in itertools.takewhile(lambda token: token != 2, reversed(learnt[:-1]))) + 1


@pytest.mark.parametrize(("most_rows", "most_tokens"), [(1, 0), (2, 0), (0, 1), (0, 60), (0, 10_000)])
def test_micro_batches_keep_every_row_in_order(examples: list[Example], most_rows: int, most_tokens: int) -> None:
    forward = forward_for(build("llama"))
    cut = list(micro_batches(forward, examples, Cut(rows=most_rows, tokens=most_tokens)))
    assert [example for batch in cut for example in batch] == examples
    for batch in cut:
        assert len(batch) == 1 or (len(batch) <= most_rows if most_rows else sum(len(example.ids) for example in batch) <= most_tokens)


def test_fused_layers_step_aside_for_dropout_and_come_back_off(examples: list[Example]) -> None:
    base = build("llama").unload()
    model = get_peft_model(base, LoraConfig(r=4, lora_dropout=0.5, target_modules="all-linear", task_type="CAUSAL_LM"))
    for name, param in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(param, std=0.5)
    fuse(model)
    model.eval()
    forward = forward_for(model)
    with torch.no_grad():
        steady = forward.token_losses(examples)
        model.train()
        assert not torch.allclose(steady, forward.token_losses(examples))  # dropout is at work
        model.eval()
        unfuse(model)
        torch.testing.assert_close(forward.token_losses(examples), steady, atol=1e-5, rtol=1e-5)
