"""Several adapters on one base, selected anew for every forward pass.

PEFT selects by `adapter_names=[...]`, which it hands to each LoRA layer through hooks that it sets and removes around
every forward (6 of 43 ms a token, measured on a 135M base), and which its wrapper drops without a word once no adapter
is "active". So the hooks are set once a load here, and read the selection of the forward pass that is running.
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

BASE_ADAPTER = "__base__"  # PEFT's name for "no adapter" in adapter_names


class AdapterLayers:
    """The adapters of one model. Everything here, and every forward of the model, runs on one thread."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._peft: PeftModel | None = None  # wraps the model from the first load on
        self._hooks: list[Any] = []
        self._selected = [BASE_ADAPTER]
        self.names: set[str] = set()

    @contextmanager
    def selected(self, name: str | None) -> Iterator[None]:
        """Forward passes in this context use adapter `name`, or the base alone. One row a batch."""
        assert name is None or name in self.names, f"{name} is not loaded"
        self._selected = [name or BASE_ADAPTER]
        try:
            yield
        finally:
            self._selected = [BASE_ADAPTER]

    def add(self, name: str, config: LoraConfig, tensors: dict[str, torch.Tensor]) -> None:
        """Put an adapter beside the others. Raises AdapterError, and nothing changed."""
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
        self._hook()

    def remove(self, name: str) -> None:
        """Take an adapter out. Repeating it is harmless."""
        self.names.discard(name)
        if self._peft is not None and name in self._peft.peft_config:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # PEFT warns that another adapter became active: nothing here uses that
                self._peft.delete_adapter(name)

    def _insert(self, name: str, config: LoraConfig, tensors: dict[str, torch.Tensor]) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # advice for people who train
            if self._peft is None:
                self._peft = get_peft_model(self._model, config, adapter_name=name, low_cpu_mem_usage=True)
            else:
                self._peft.add_adapter(name, config, low_cpu_mem_usage=True)
            result = set_peft_model_state_dict(self._peft, tensors, adapter_name=name, low_cpu_mem_usage=True)
        left_out = [key for key in result.missing_keys if name in key]
        if left_out or result.unexpected_keys:
            raise ValueError(f"weights missing: {left_out[:3]}, weights without a layer: {list(result.unexpected_keys)[:3]}")
        self._peft.requires_grad_(False)
        self._peft.eval()

    def _hook(self) -> None:
        for hook in self._hooks:
            hook.remove()
        layers = [module for module in self._model.modules() if isinstance(module, LoraLayer)]
        self._hooks = [layer.register_forward_pre_hook(self._name_adapter, with_kwargs=True) for layer in layers]

    def _name_adapter(self, layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return args, {**kwargs, "adapter_names": self._selected}
