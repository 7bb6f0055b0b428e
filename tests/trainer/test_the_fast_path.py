"""The hot loop of llama-shaped families gives what transformers and PEFT give themselves, in one rounding, and no row sees another."""

from array import array
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from trainer_cases import SHAPE

from core.config import Config
from rendering.rows import Row
from store.bases import weights_folder
from trainer.backends import attention, batches, flat
from trainer.backends.flat import FastPath, fast_path_of
from trainer.backends.lora import Product
from trainer.examples import Example

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:transformers.*")

FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": 256},
    "qwen2": {},
    "qwen3": {},
    "gemma": {"hidden_activation": "gelu_pytorch_tanh"},
}
PROMPT = list(range(40, 80))  # what all rows begin with, long enough to be shared
CONFIG = Config.model_validate({"max_length": 128, "training": {"compile": "off"}})


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def example(num_own: int, seed: int, prompt: list[int] = PROMPT) -> Example:
    """A random row behind a prompt; two of three own tokens are learnt."""
    own = torch.randint(3, 299, (num_own,), generator=torch.Generator().manual_seed(seed)).tolist()
    learnt = array("i", (place for place in range(len(prompt) + 2, len(prompt) + num_own) if place % 3))
    row = Row(drop="drop-1", line=seed, group="", split="train", schema_id="chat_sft_v1", messages=[], weight=1.0)
    return Example(row=row, ids=array("i", prompt + own), learnt=learnt, weights=array("f", [1.0]) * len(learnt), num_last=len(learnt))


EXAMPLES = [example(9, 1), example(40, 2), example(25, 3)]


def build(family: str, targets: str | list[str] = "all-linear", dtype: torch.dtype = torch.float32, **shape: Any) -> Any:
    """A random model whose adapter, norms and biases all matter."""
    torch.manual_seed(5)
    config = transformers.AutoConfig.for_model(family, **{**SHAPE, **FAMILIES.get(family, {}), **shape})
    base = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    for name, param in base.named_parameters():
        if "norm" in name or "bias" in name:
            torch.nn.init.normal_(param, std=0.2, mean=0.7 if "norm" in name else 0.0)
    model = get_peft_model(base.to(dtype), LoraConfig(r=4, lora_alpha=8, target_modules=targets, task_type="CAUSAL_LM"))
    for name, param in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(param, std=0.1)
    return model


def fast(model: Any, config: Config = CONFIG) -> FastPath:
    found = fast_path_of(model, config)
    assert found is not None
    return found


def own_losses(model: Any, examples: list[Example]) -> torch.Tensor:
    """Row by row, as transformers and PEFT compute them."""
    losses = []
    for one in examples:
        logits = model(input_ids=torch.tensor([list(one.ids)]), use_cache=False).logits[0].float()
        targets = torch.tensor([one.ids[place] for place in one.learnt])
        losses.append(torch.nn.functional.cross_entropy(logits[[place - 1 for place in one.learnt]], targets, reduction="none"))
    return torch.cat(losses)


def gradients(model: Any, losses: torch.Tensor) -> dict[str, torch.Tensor]:
    """Of a sum in which every token has another weight."""
    model.zero_grad()
    (losses * torch.linspace(0.5, 2, len(losses))).sum().backward()
    return {name: param.grad.clone() for name, param in model.named_parameters() if param.requires_grad}


def assert_same(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor], bound: float = 1e-5) -> None:
    """Each gradient to `bound` of the largest of its kind: a gradient that nearly cancels has the rounding of what cancels."""
    largest = max(float(gradient.norm()) for gradient in wanted.values())
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        assert float((found[name] - gradient).norm()) <= bound * max(float(gradient.norm()), 0.01 * largest), name


@pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "down_proj"]], ids=["all", "two"])
@pytest.mark.parametrize("family", FAMILIES)
def test_losses_and_gradients_are_those_of_transformers_and_peft(family: str, targets: str | list[str]) -> None:
    model = build(family, targets)
    wanted = own_losses(model, EXAMPLES)
    wanted_gradients = gradients(model, wanted)
    found = fast(model).token_losses(EXAMPLES)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    assert_same(gradients(model, found), wanted_gradients)
    assert torch.equal(own_losses(model, EXAMPLES), wanted)  # the model itself still works, on the same weights


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_a_shared_beginning_changes_neither_losses_nor_gradients(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(family)
    path = fast(model)
    assert batches.pack(EXAMPLES, torch.device("cpu")).rows.prefix == len(PROMPT)
    shared = path.token_losses(EXAMPLES)
    shared_gradients = gradients(model, shared)
    monkeypatch.setattr(batches, "LEAST_SAVED", 10**9)
    apart = path.token_losses(EXAMPLES)
    torch.testing.assert_close(shared, apart, atol=1e-5, rtol=1e-5)
    assert_same(shared_gradients, gradients(model, apart))


def test_what_is_shared_ends_before_the_first_token_that_is_learnt() -> None:
    device = torch.device("cpu")
    late = replace(EXAMPLES[0], learnt=array("i", [*range(35, 48)]))
    assert batches.pack([late, *EXAMPLES[1:]], device).rows.prefix == 34
    same = [EXAMPLES[1]] * 3
    assert batches.pack(same, device).rows.prefix == EXAMPLES[1].learnt[0] - 1
    assert batches.pack([EXAMPLES[0]], device).rows.prefix == 0
    assert batches.pack([EXAMPLES[0], example(30, 9, prompt=[7, *PROMPT[1:]])], device).rows.prefix == 0
    packed = batches.pack([late, *EXAMPLES[1:]], device)
    for number, target in enumerate(packed.targets_S.tolist()):  # the token behind each source is the one that is learnt there
        assert packed.ids_T[packed.sources_S[number] + 1] == target or number == 0


def test_a_row_is_blind_to_its_neighbours() -> None:
    path = fast(build("llama"))
    lengths = [len(one.learnt) for one in EXAMPLES]
    other = replace(EXAMPLES[1], ids=array("i", [*PROMPT, *((token + 7) % 300 for token in EXAMPLES[1].ids[len(PROMPT) :])]))
    before = path.token_losses(EXAMPLES).split(lengths)
    after = path.token_losses([EXAMPLES[0], other, EXAMPLES[2]]).split(lengths)
    assert torch.equal(before[0], after[0])
    assert torch.equal(before[2], after[2])
    assert not torch.equal(before[1], after[1])


def test_packed_rows_lose_what_they_lose_alone() -> None:
    path = fast(build("qwen2"))
    together = path.token_losses(EXAMPLES)
    torch.testing.assert_close(together, torch.cat([path.token_losses([one]) for one in EXAMPLES]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("tile", "longest"), [(16, 512), (128, 0), (16, 0)], ids=["tiles", "again", "both"])
def test_tiles_and_probabilities_made_again_give_the_same(tile: int, longest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("llama")
    path = fast(model)
    whole = path.token_losses(EXAMPLES)
    whole_gradients = gradients(model, whole)
    monkeypatch.setattr(attention, "TILE", tile)
    monkeypatch.setattr(attention, "LONGEST_KEPT", longest)
    cut = path.token_losses(EXAMPLES)
    torch.testing.assert_close(cut, whole, atol=1e-5, rtol=1e-5)
    assert_same(gradients(model, cut), whole_gradients)


def test_the_kernel_for_a_gpu_is_fed_the_same_rows() -> None:
    """Its fallback, row by row, runs here; the fused one takes the same arguments."""
    heads = tuple(torch.randn(110, num, 8) for num in (4, 2, 2))
    grad, rows = torch.randn(110, 4, 8), attention.Rows([(0, 20), (20, 50), (50, 110)], 20)
    found = []
    for kind in (attention.Plain(), attention.Fused()):
        out, slopes = torch.empty(110, 4, 8), tuple(torch.empty_like(head) for head in heads)
        kept = kind.forward(heads, rows, 0.3, out)
        kind.backward(kept, grad, heads, slopes)
        found.append((out, *slopes))
    for plain, fused in zip(*found, strict=True):
        torch.testing.assert_close(plain, fused, atol=1e-5, rtol=1e-5)


def test_checkpointed_layers_give_the_same_bits() -> None:
    model = build("qwen3")
    plain = gradients(model, fast(model).token_losses(EXAMPLES))
    again = fast(model, CONFIG.model_copy(update={"training": CONFIG.training.model_copy(update={"gradient_checkpointing": "on"})}))
    assert again.checkpoints
    found = gradients(model, again.token_losses(EXAMPLES))
    assert all(torch.equal(found[name], gradient) for name, gradient in plain.items())


def test_a_switched_off_adapter_gives_the_base_and_needs_no_gradient() -> None:
    model = build("llama")
    path = fast(model)
    with model.disable_adapter():
        off = path.token_losses(EXAMPLES)
        wanted = own_losses(model, EXAMPLES).detach()
    assert not off.requires_grad
    torch.testing.assert_close(off, wanted, atol=1e-5, rtol=1e-5)
    base = model.unload()
    with torch.inference_mode():
        alone = fast(base).token_losses(EXAMPLES)
    torch.testing.assert_close(alone, wanted, atol=1e-5, rtol=1e-5)


def test_an_adapter_can_be_trained_after_the_base_was_scored() -> None:
    """Scoring runs in inference mode; the fused weights made there must not be of it."""
    model = build("llama")
    with torch.inference_mode():
        fast(model).token_losses(EXAMPLES)
    found = gradients(model, fast(model).token_losses(EXAMPLES))
    assert_same(found, gradients(model, own_losses(model, EXAMPLES)))


def test_the_base_is_held_once() -> None:
    model = build("llama")
    path = fast(model)
    layer = model.get_base_model().model.layers[0]
    matrix = path.layers[0].qkv.matrix
    for projection in (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj):
        assert projection.base_layer.weight.untyped_storage().data_ptr() == matrix.untyped_storage().data_ptr()


@torch.no_grad()
def test_one_rounding_follows_fp32_closer_than_two() -> None:
    """A small step of the adapter, which a second rounding swallows, moves the output as it should."""
    torch.manual_seed(0)
    layer = torch.nn.Linear(64, 48, bias=False)
    model = get_peft_model(torch.nn.Sequential(layer).to(torch.bfloat16), LoraConfig(r=4, lora_alpha=8, target_modules=["0"]))
    adapted = model.base_model.model[0]
    torch.nn.init.normal_(adapted.lora_B["default"].weight, std=1e-3)
    x = torch.randn(256, 64).bfloat16()
    low = x.float() @ adapted.lora_A["default"].weight.T @ adapted.lora_B["default"].weight.T * adapted.scaling["default"]
    exact = x.float() @ adapted.base_layer.weight.float().T + low
    two = adapted(x).float()
    product = Product([adapted])
    product.refresh()
    room = product.input(len(x), x)
    room[:, :64] = x
    one = product.forward(room, is_on=True).float()
    assert float((one - exact).square().mean()) < 0.75 * float((two - exact).square().mean())


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_bf16_stays_near_fp32(family: str) -> None:
    precise = build(family)
    wanted = own_losses(precise, EXAMPLES).detach()
    rounded = build(family, dtype=torch.bfloat16)
    path = fast(rounded)
    found = path.token_losses(EXAMPLES)
    assert found.dtype == torch.float32
    assert float((found.detach() - wanted).abs().mean()) < 0.02
    wanted_gradients = gradients(precise, own_losses(precise, EXAMPLES))
    together = torch.cat([gradient.flatten() for gradient in wanted_gradients.values()])
    difference = torch.cat([(gradient - wanted_gradients[name]).flatten() for name, gradient in gradients(rounded, found).items()])
    assert float(difference.norm() / together.norm()) < 0.05


def test_the_same_rows_give_the_same_bits() -> None:
    model = build("llama", dtype=torch.bfloat16)
    path = fast(model)
    first = gradients(model, path.token_losses(EXAMPLES))
    second = gradients(model, path.token_losses(EXAMPLES))
    assert all(torch.equal(second[name], gradient) for name, gradient in first.items())


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"family": "gpt_neox"}, "families"),
        ({"family": "mistral", "sliding_window": 64}, "64 tokens"),
        ({"family": "llama", "hidden_act": "relu"}, "relu"),
        ({"family": "llama", "attention_dropout": 0.1}, "dropout"),
    ],
    ids=["family", "window", "activation", "dropout"],
)
def test_what_the_fast_path_cannot_do_exactly_it_leaves_alone(change: dict[str, Any], word: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    assert fast_path_of(build(**change, targets="all-linear"), CONFIG) is None
    assert word in caplog.text


def test_a_dora_adapter_is_left_to_peft() -> None:
    base = build("llama").unload()
    assert fast_path_of(get_peft_model(base, LoraConfig(r=4, use_dora=True, target_modules="all-linear", task_type="CAUSAL_LM")), CONFIG) is None


def test_without_a_compiler_the_parts_run_as_they_are(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")

    def fails(*_: Any, **__: Any) -> Any:
        def part(*_: Any) -> None:
            raise RuntimeError("no C++ compiler")

        return part

    monkeypatch.setattr(torch, "compile", fails)
    model = build("llama")
    path = fast(model, CONFIG.model_copy(update={"training": CONFIG.training.model_copy(update={"compile": "on"})}))
    assert path.elements is path.plain
    assert caplog.text.count("no C++ compiler") == 1
    torch.testing.assert_close(path.token_losses(EXAMPLES), own_losses(model, EXAMPLES), atol=1e-5, rtol=1e-5)


@pytest.mark.model
def test_the_real_model_gives_what_transformers_and_peft_give(real_base: Path) -> None:
    base = transformers.AutoModelForCausalLM.from_pretrained(weights_folder(real_base), dtype=torch.float32, attn_implementation="eager")
    torch.manual_seed(5)
    model = get_peft_model(base, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    for name, param in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(param, std=0.01)
    wanted = own_losses(model, EXAMPLES[:2])
    wanted_gradients = gradients(model, wanted)
    found = fast(model).token_losses(EXAMPLES[:2])
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
    assert_same(gradients(model, found), wanted_gradients, bound=1e-4)


@pytest.mark.full
def test_compiled_parts_give_the_same() -> None:
    model = build("llama")
    plain = fast(model).token_losses(EXAMPLES)
    plain_gradients = gradients(model, plain)
    path = fast(model, CONFIG.model_copy(update={"training": CONFIG.training.model_copy(update={"compile": "on"})}))
    if not path.elements.is_compiled:
        pytest.skip("no compiler here")
    compiled = path.token_losses(EXAMPLES)
    torch.testing.assert_close(compiled, plain, atol=1e-5, rtol=1e-5)
    assert_same(gradients(model, compiled), plain_gradients)
    assert sum(len(one.ids) for one in EXAMPLES) != flat.COMPILED_TOKENS  # other sizes than those that were compiled for
