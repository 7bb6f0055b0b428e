"""Several adapters on one base, selected anew for every forward pass.

PEFT's own selection per request (`adapter_names=[...]`) was measured and left: its hooks and row indexing cost 13 of
49 ms a token on a 135M base; it rounds at another place than a plain forward, by which the trainer scores and probes,
as far as half the probe's allowance; and PEFT's wrapper drops it without a word once no adapter is "active". Here each
forward pass, all of them on one thread, first makes its own adapter the active one of every layer, so that what is
served is bit for bit what was ranked.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora.layer import LoraLayer
from peft.utils.save_and_load import set_peft_model_state_dict

from serving.engines.port import AdapterError

# An adapter of a base that also sees names its weights as the whole model does; here only the text tower is loaded.
ON_WHOLE, ON_TOWER = "base_model.model.model.language_model.", "base_model.model.model."


class AdapterLayers:
    """The adapters of one model. Everything here, and every forward of the model, runs on one thread."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._modules = frozenset(name for name, _ in model.named_modules())
        self._peft: PeftModel | None = None  # wraps the model from the first load on
        self._layers: list[LoraLayer] = []
        self._active: list[str] | None = None  # what the layers were last told; None: unknown
        self.names: set[str] = set()

    @contextmanager
    def selected(self, name: str | None) -> Iterator[None]:
        """Forward passes in this context use adapter `name`, or the base alone. There is no other way to run one."""
        assert name is None or name in self.names, f"{name} is not loaded"
        wanted = [] if name is None else [name]
        if self._active != wanted:
            self._active = None
            for layer in self._layers:
                layer.set_adapter(wanted, inference_mode=True)
            self._active = wanted
        yield

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
        """Learn the layers anew; the next forward tells them its adapter."""
        self._active = None
        self._layers = [module for module in self._model.modules() if isinstance(module, LoraLayer)]
