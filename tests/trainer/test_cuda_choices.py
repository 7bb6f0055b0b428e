"""What is chosen for a GPU, as far as a machine without one can prove it."""

import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from family_cases import gradients, packing, rows, small_base, with_adapter

from core.config import Config
from core.errors import ChildError
from trainer.backends import cuda, model
from trainer.backends.families import forward_for
from trainer.backends.optimizer import optimizer_for

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:transformers.*")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def training(**values: Any) -> Config:
    return Config.model_validate({"max_length": 128, "training": values})


@pytest.mark.parametrize("family", ["llama", "mixtral", "qwen3_5_text", "gemma2", "gpt2"])  # fast, flat, flat, padded, padded
@pytest.mark.filterwarnings("ignore:.*fan_in_fan_out.*:UserWarning")
def test_activations_that_are_computed_twice_give_the_same_gradients(family: str) -> None:
    found = {}
    for asked in ("off", "on"):
        trained = with_adapter(small_base(family, **({"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0} if family == "gpt2" else {})))
        forward = forward_for(trained, training(gradient_checkpointing=asked))
        saved = 0

        def count(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal saved
            saved += tensor.numel()
            return tensor

        trained.train()
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            losses = forward.token_losses(rows())
        found[asked] = (losses.detach(), gradients(trained, losses), saved)
    assert torch.equal(found["on"][0], found["off"][0])
    for name, gradient in found["off"][1].items():
        torch.testing.assert_close(found["on"][1][name], gradient, atol=1e-6, rtol=1e-5, msg=name)
    if family != "llama":  # the hot loop keeps its own lists instead of autograd's
        assert found["on"][2] < found["off"][2] / 2


def test_auto_computes_twice_only_where_the_longest_row_does_not_fit() -> None:
    base = small_base("llama")
    assert not cuda.wants_checkpoints(training(), base)  # on a CPU never
    assert not cuda.wants_checkpoints(training(), base, free_bytes=1 << 30)
    assert cuda.wants_checkpoints(training(), base, free_bytes=100_000)
    assert not cuda.wants_checkpoints(training(gradient_checkpointing="off"), base, free_bytes=100_000)
    assert cuda.wants_checkpoints(training(gradient_checkpointing="on"), base)


def stepped(config: Config, steps: int) -> tuple[torch.nn.Parameter, torch.optim.Optimizer]:
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(64, 128))
    optimizer = optimizer_for(config, [weight])
    optimizer.param_groups[0]["lr"] = 1e-2
    for _ in range(steps):
        weight.grad = torch.sign(weight.detach()) + 0.1 * torch.randn(64, 128)
        optimizer.step()
    return weight, optimizer


def test_8_bit_moments_step_almost_as_those_of_32_bits_in_a_quarter_of_the_memory() -> None:
    plain, whole = stepped(training(optimizer="adamw"), 5)
    small, eight = stepped(training(optimizer="adamw_8bit"), 5)
    start, _ = stepped(training(), 0)
    assert (small - plain).norm() < 0.05 * (plain - start).norm()

    def size(optimizer: torch.optim.Optimizer, weight: torch.nn.Parameter) -> int:
        return sum(value.nbytes for value in optimizer.state[weight].values() if isinstance(value, torch.Tensor) and value.numel() > 256)

    assert size(eight, small) < size(whole, plain) / 3.5


def test_8_bit_moments_are_asked_for_by_name_on_a_cpu_and_taken_by_themselves_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = torch.device("cuda")
    assert not cuda.wants_8bit(training(), torch.device("cpu"))
    assert cuda.wants_8bit(training(), gpu)
    assert not cuda.wants_8bit(training(optimizer="adamw"), gpu)
    monkeypatch.setattr(cuda, "find_spec", lambda name: None)
    assert not cuda.wants_8bit(training(), gpu)
    with pytest.raises(ChildError, match="bitsandbytes") as caught:
        cuda.wants_8bit(training(optimizer="adamw_8bit"), gpu)
    assert caught.value.code == "OPTIMIZER_NOT_INSTALLED"


@pytest.mark.parametrize(("has_gpu", "native", "cpu", "place"), [
    (True, True, True, ("cuda", torch.bfloat16)),
    (True, False, True, ("cuda", torch.float32)),  # before Ampere bf16 is emulated
    (False, False, True, ("cpu", torch.bfloat16)),
    (False, False, False, ("cpu", torch.float32)),
])  # fmt: skip
def test_the_number_format_of_each_device(monkeypatch: pytest.MonkeyPatch, has_gpu: bool, native: bool, cpu: bool, place: tuple[str, torch.dtype]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: native or including_emulation)
    monkeypatch.setattr(model, "cpu_has_bf16", lambda: cpu)
    found = model.choose_place()
    assert (found.device, found.dtype) == place


def test_liger_is_asked_as_it_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a fake of its interface: Liger itself does not import without a GPU."""
    asked: list[dict[str, Any]] = []
    fake: Any = ModuleType("liger_kernel.transformers.monkey_patch")
    fake.MODEL_TYPE_TO_APPLY_LIGER_FN = {"gemma2": object()}
    fake._apply_liger_kernel_to_instance = lambda **how: asked.append(how)
    for name in ("liger_kernel", "liger_kernel.transformers"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, fake.__name__, fake)
    monkeypatch.setattr(cuda, "find_spec", lambda name: SimpleNamespace())
    on_gpu = SimpleNamespace(device=torch.device("cuda"), config=SimpleNamespace(model_type="gemma2"))
    assert cuda.use_liger(on_gpu)
    assert asked == [{"model": on_gpu, "rope": False, "cross_entropy": False, "fused_linear_cross_entropy": False}]
    assert not cuda.use_liger(SimpleNamespace(device=torch.device("cuda"), config=SimpleNamespace(model_type="no_such_family")))
    assert not cuda.use_liger(small_base("gemma2"))  # on a CPU
    assert len(asked) == 1


def test_the_padding_of_a_padded_batch_is_counted() -> None:
    forward = forward_for(with_adapter(small_base("llama")), packing(False))
    assert forward.cost(3, 100, 60) == 180
    assert forward_for(with_adapter(small_base("llama")), packing(True)).cost(3, 100, 60) == 100
