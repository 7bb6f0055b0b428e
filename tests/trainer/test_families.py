"""Each family goes a path that is right for it: losses and LoRA gradients are those of transformers and PEFT, row by row."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from family_cases import SHAPES, example, gradients, packing, row_by_row, rows, small_base, with_adapter

from trainer.backends.families import forward_for, path_of
from trainer.backends.lora import fuse
from trainer.backends.model import Place, load_base
from trainer.backends.plain import PaddedForward

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning:transformers.*"),
    pytest.mark.filterwarnings("ignore:.*fan_in_fan_out.*:UserWarning"),
]

DELTA = ("qwen3_5_text", "qwen3_5_moe_text", "qwen3_next")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("family", SHAPES)
def test_losses_and_gradients_are_those_of_transformers_and_peft(family: str, packed: bool) -> None:
    model, examples = with_adapter(small_base(family)), rows()
    fuse(model)
    losses = forward_for(model, packing(packed)).token_losses(examples)
    found = gradients(model, losses)
    wanted = row_by_row(model, examples)
    torch.testing.assert_close(losses, wanted, atol=2e-5, rtol=2e-5)
    expected = gradients(model, wanted)
    assert found.keys() == expected.keys()
    assert any("lora_B" in name and gradient.abs().max() > 1e-3 for name, gradient in expected.items())
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=5e-5, rtol=5e-4, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("family", DELTA)
def test_no_state_crosses_rows(family: str, packed: bool) -> None:
    """Other tokens in one row, padding beside it included, leave every other row's losses equal to the bit."""
    forward = forward_for(with_adapter(small_base(family)), packing(packed))
    examples = rows()
    sizes = [len(one.learnt) for one in examples]
    with torch.no_grad():
        before = forward.token_losses(examples).split(sizes)
        for changed in range(len(examples)):
            other = replace(examples[changed], ids=example(len(examples[changed].ids), [1], seed=99).ids)
            after = forward.token_losses([*examples[:changed], other, *examples[changed + 1 :]]).split(sizes)
            for place, (old, new) in enumerate(zip(before, after, strict=True)):
                assert torch.equal(old, new) is (place != changed), f"row {place} when row {changed} changed"


@pytest.mark.parametrize("family", DELTA)
def test_padding_does_not_reach_into_the_state(family: str) -> None:
    """A short row has the losses that it has by itself, however long its neighbour is."""
    forward = PaddedForward(with_adapter(small_base(family)).get_base_model())
    short = example(11, range(1, 11))
    with torch.no_grad():
        alone = forward.token_losses([short])
        for longest in (12, 64, 65, 130):
            beside = forward.token_losses([short, example(longest, [longest - 1])])[: len(alone)]
            torch.testing.assert_close(beside, alone, atol=5e-6, rtol=5e-6)


def test_a_window_that_no_row_reaches_costs_nothing() -> None:
    model = with_adapter(small_base("gemma3_text", sliding_window=128))
    assert path_of(model.get_base_model(), packing(True)).kind == "flat"
    assert path_of(model.get_base_model(), packing(True, max_length=129)).kind == "padded"
    losses = forward_for(model, packing(True)).token_losses(rows())
    torch.testing.assert_close(losses, row_by_row(model, rows()), atol=2e-5, rtol=2e-5)


LONG = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 8, "long_factor": [4.0] * 8}


def test_a_rope_that_looks_at_the_longest_row_of_a_batch_gets_one_row_at_a_time() -> None:
    model = with_adapter(small_base("phi3", rope_parameters=LONG, original_max_position_embeddings=64))
    base, config = model.get_base_model(), packing(True)
    assert path_of(base, packing(True, max_length=64)).kind != "single"  # no row is that long
    path = path_of(base, config)
    assert path.kind == "single"
    assert "longrope" in path.why
    wanted = row_by_row(model, rows())
    torch.testing.assert_close(forward_for(model, config).token_losses(rows()), wanted, atol=2e-5, rtol=2e-5)
    together = PaddedForward(base).token_losses(rows())
    assert not torch.allclose(together, wanted, atol=1e-4), "the test's rope does not look at the batch"


@pytest.mark.parametrize(
    ("family", "kind"), [("llama", "fast"), ("mixtral", "flat"), ("mistral", "padded"), ("qwen3_5_text", "flat"), ("gemma2", "padded"), ("gpt2", "padded")]
)
def test_the_path_says_why(family: str, kind: str) -> None:
    path = path_of(small_base(family), packing(True))
    assert path.kind == kind
    assert kind in path.why
    assert path_of(small_base(family), packing(False)).why == "padded: training.packing is false"


def test_all_linear_covers_the_linear_attention_and_not_the_head() -> None:
    adapted = {name.split(".lora_A")[0].rsplit(".", 1)[-1] for name, _ in with_adapter(small_base("qwen3_5_text")).named_parameters() if "lora_A" in name}
    linear_attention = {"in_proj_qkv", "in_proj_z", "in_proj_a", "in_proj_b", "out_proj"}
    assert adapted == linear_attention | {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe", "qwen3_next", "gpt_oss"])
def test_experts_keep_their_weights(family: str) -> None:
    """PEFT could attach to the fused experts and their router, but no serving engine reads that."""
    names = [name for name, param in with_adapter(small_base(family)).named_parameters() if param.requires_grad]
    assert any("q_proj" in name for name in names)
    assert not [name for name in names if ".experts." in name or ".gate." in name or ".router." in name]


@pytest.mark.model
def test_the_paths_agree_on_the_real_model(real_base: Path) -> None:
    """In fp32, with an adapter at work: the hot loop, the flat and the padded path against transformers and PEFT, row by row."""
    model = with_adapter(load_base(real_base, Place(device="cpu", dtype=torch.float32)))
    examples = rows()[1:3]
    wanted = row_by_row(model, examples)
    expected = gradients(model, wanted)
    fuse(model)
    for kind, config in (("padded", packing(False)), ("flat", None), ("fast", packing(True))):
        assert path_of(model.get_base_model(), config).kind == kind
        losses = forward_for(model, config).token_losses(examples)
        torch.testing.assert_close(losses, wanted, atol=1e-3, rtol=1e-4, msg=lambda text, kind=kind: f"{kind}: {text}")
        found = gradients(model, losses)
        for name, gradient in expected.items():
            assert (found[name] - gradient).norm() <= 1e-3 * gradient.norm(), f"{kind}: {name}"
