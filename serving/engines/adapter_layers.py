"""Several adapters on one base, selected anew for every forward pass and for every row of it.

PEFT reads an adapter and places its weights; the forward of its layers is ours, because PEFT's own selection per
request (`adapter_names=[...]`) was measured and left: its hooks and row indexing cost 13 of 49 ms a token on a 135M
base, and it rounds at another place than a plain forward, by which the trainer scores and probes.

Where a whole text is read, the arithmetic is PEFT's plain forward, term by term: what is probed is bit for bit what
was ranked. In a step of several answers the adapters of all of them stand side by side in one matrix and each row
takes its own columns of it (`adapter_mix`): two products, however many adapters there are.

Axes: B batch, T tokens, I inputs, O outputs, R ranks of all adapters of a mix.
"""

import warnings
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora.layer import LoraLayer
from peft.utils.save_and_load import set_peft_model_state_dict

from serving.engines.adapter_mix import Mix, Weights, mix_of
from serving.engines.port import AdapterError, Blend

# An adapter of a base that also sees names its weights as the whole model does; here only the text tower is loaded.
ON_WHOLE, ON_TOWER = "base_model.model.model.language_model.", "base_model.model.model."


@dataclass(slots=True)
class Choice:
    """What the next forward uses: one blend for all rows, or a mix."""

    blend: Blend = ()
    mix: Mix | None = None
    merged: bool = False  # take the weights that already hold the blend, where there are some


class ServedLinear:
    """The forward of one LoRA layer that is a matrix product, and what it needs of each adapter."""

    def __init__(self, layer: Any, choice: Choice) -> None:
        self.base = layer.base_layer
        self.weights: dict[str, Weights] = {}
        self.merged_OI: torch.Tensor | None = None
        self._layer = layer
        self._choice = choice

    def look(self) -> None:
        """Learn the adapters of the layer anew."""
        layer = self._layer
        self.weights = {
            name: Weights(layer.lora_A[name].weight, layer.lora_B[name].weight, float(layer.scaling[name])) for name in layer.lora_A if name in layer.lora_B
        }

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The base's product plus those of the adapters; summed in fp32, rounded once."""
        choice = self._choice
        if choice.merged and self.merged_OI is not None:
            return F.linear(x, self.merged_OI, self.base.bias)
        result = self.base(x, *args, **kwargs)
        dtype = result.dtype
        if choice.mix is not None:
            return choice.mix.add(self, x, result).to(dtype)
        for part in choice.blend:
            if found := self.weights.get(part.release):
                result = result + F.linear(F.linear(x.to(found.a_RI.dtype), found.a_RI), found.b_OR) * (found.scaling * part.scale)
        return result.to(dtype)


class AdapterLayers:
    """The adapters of one model. Everything here, and every forward of the model, runs on one thread."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._modules = frozenset(name for name, _ in model.named_modules())
        self._peft: PeftModel | None = None  # wraps the model from the first load on
        self._choice = Choice()
        self._others: list[LoraLayer] = []  # embeddings: PEFT's own forward, one blend at a time
        self._mix: Mix | None = None
        self.linears: list[ServedLinear] = []
        self.names: set[str] = set()

    @contextmanager
    def using(self, blends: Sequence[Blend], *, merged: bool = False, mixed: bool = False) -> Iterator[None]:
        """Row i of the forward passes in this context is answered by `blends[i]`; where not `mixed`, one blend is for all rows."""
        assert all(part.release in self.names for blend in blends for part in blend), "every release is loaded"
        if mixed and any(blends):
            self._choice.mix = self._mix = mix_of(self._mix, tuple(blends))
        self._choice.blend, self._choice.merged = blends[0], merged
        self._tell_others(blends[0])
        try:
            yield
        finally:
            self._choice.blend, self._choice.mix, self._choice.merged = (), None, False

    def can_mix(self, blends: Sequence[Blend]) -> bool:
        """Whether one forward can answer these rows; adapters on embeddings are for all rows or for none."""
        return len(set(blends)) == 1 or not self.changes_embeddings({part.release for blend in blends for part in blend})

    def changes_embeddings(self, releases: Set[str]) -> bool:
        """Whether one of the releases has weights on an embedding."""
        return any(name in layer.scaling for layer in self._others for name in releases)

    def add(self, name: str, config: LoraConfig, tensors: dict[str, torch.Tensor]) -> None:
        """Put an adapter beside the others. Raises AdapterError or MemoryError, and nothing changed."""
        try:
            self._insert(name, config, tensors)
        except (RuntimeError, ValueError, TypeError, KeyError, AssertionError) as error:
            self.remove(name)
            if "allocate" in str(error):  # torch has no class of its own for a full memory on a CPU
                raise MemoryError(str(error)) from None
            raise AdapterError(
                f"adapter {name[:12]} does not fit the base: {error}", hint="it was made for another model or packed wrongly", code="ADAPTER_LOAD"
            ) from None
        self.names.add(name)

    def remove(self, name: str) -> None:
        """Take an adapter out. Repeating it is harmless."""
        self.names.discard(name)
        if self._mix is not None and name in self._mix.releases:
            self._mix = None
        if self._peft is not None and name in self._peft.peft_config:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # PEFT warns that another adapter became active: the next forward decides that
                self._peft.delete_adapter(name)
        self._look()

    def _insert(self, name: str, config: LoraConfig, tensors: dict[str, torch.Tensor]) -> None:
        if any(key.startswith(ON_WHOLE) for key in tensors) and "model.language_model" not in self._modules:
            tensors = {key.replace(ON_WHOLE, ON_TOWER, 1): tensor for key, tensor in tensors.items()}
            config.exclude_modules = None  # it keeps the adapter out of the towers that are not here
        # Not with low_cpu_mem_usage: PEFT 0.21 then rounds fp32 weights to the dtype of the base.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # advice for people who train
            if self._peft is None:
                self._peft = get_peft_model(self._model, config, adapter_name=name)
            else:
                self._peft.add_adapter(name, config)
            result = set_peft_model_state_dict(self._peft, tensors, adapter_name=name)
        left_out = [key for key in result.missing_keys if name in key]
        if left_out or result.unexpected_keys:
            raise ValueError(f"weights missing: {left_out[:3]}, weights without a layer: {list(result.unexpected_keys)[:3]}")
        self._peft.requires_grad_(False)
        self._peft.eval()
        self._look()

    def _look(self) -> None:
        """Learn the layers anew, and make the forward of each our own."""
        known = {id(linear._layer): linear for linear in self.linears}
        self.linears, self._others = [], []
        for layer in self._model.modules():
            if not isinstance(layer, LoraLayer):
                continue
            if hasattr(layer, "lora_embedding_A") and layer.lora_embedding_A:
                self._others.append(layer)
                continue
            linear = known.get(id(layer)) or ServedLinear(layer, self._choice)
            linear.look()
            layer.forward = linear.forward
            self.linears.append(linear)

    def _tell_others(self, blend: Blend) -> None:
        for layer in self._others:
            wanted = [part.release for part in blend]
            layer.set_adapter(wanted, inference_mode=True)
            for part in blend:
                if part.release in layer.scaling:
                    layer.set_scale(part.release, part.scale)
