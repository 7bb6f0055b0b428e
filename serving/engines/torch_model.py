"""The base's weights and its forward passes. Everything here runs on the engine's thread.

Axes: B batch (always 1), T tokens, V vocabulary.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from core.errors import LoradError
from rendering.tokens import Renderer
from serving.engines.adapter_layers import AdapterLayers
from serving.engines.decoding import Forward
from store.bases import weights_folder
from store.engines import cpu_has_bf16


def cpu_dtype() -> torch.dtype:
    """bf16 where the CPU computes in it, else fp32: the rule that the trainer follows too."""
    return torch.bfloat16 if cpu_has_bf16() else torch.float32


class TorchModel:
    """A sealed base in memory, with the adapters beside it. Raises LoradError BASE_UNUSABLE."""

    def __init__(self, folder: Path, num_threads: int) -> None:
        transformers.utils.logging.disable_progress_bar()
        if num_threads:
            torch.set_num_threads(num_threads)
        try:
            model = transformers.AutoModelForCausalLM.from_pretrained(
                str(weights_folder(folder)), dtype=cpu_dtype(), local_files_only=True, use_safetensors=True, trust_remote_code=False
            )
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise LoradError(f"base in {folder}: {error}", hint="pull it again: `lorad models pull`", code="BASE_UNUSABLE") from None
        model.requires_grad_(False)
        model.eval()
        self._model: Any = model
        self.adapters = AdapterLayers(model)
        shape = model.config.get_text_config()  # of a base that also sees: of its text tower
        self.context_tokens: int = shape.max_position_embeddings
        self.vocabulary: int = shape.vocab_size
        self._eos_ids = frozenset({*_eos_of(model.generation_config), *_eos_of(model.config)})

    def forward(self, release: str | None, renderer: Renderer) -> Forward:
        """What a decode loop of this release needs."""
        return Forward(
            logits=lambda ids_BT, cache: self._last_logits(release, ids_BT, cache),
            decode=renderer.decode,
            new_cache=lambda: transformers.DynamicCache(config=self._model.config),
            eos_ids=self._eos_ids | {renderer.eos_id},
        )

    def teach(self, release: str | None, prompt_ids: Sequence[int], ids: Sequence[int]) -> list[float]:
        """Log-probability of each of `ids` in one forward of the whole sequence, without a cache."""
        ids_BT = torch.tensor([[*prompt_ids, *ids]])
        with torch.inference_mode(), self.adapters.selected(release):
            logits_TV = self._model(input_ids=ids_BT, use_cache=False, logits_to_keep=len(ids) + 1).logits[0, :-1].float()
        logprobs_TV = torch.log_softmax(logits_TV, dim=-1)
        return [float(logprobs_TV[place, token]) for place, token in enumerate(ids)]

    def _last_logits(self, release: str | None, ids_BT: torch.Tensor, cache: Any) -> torch.Tensor:
        with torch.inference_mode(), self.adapters.selected(release):
            logits_BTV = self._model(input_ids=ids_BT, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
            return logits_BTV[0, -1].float()


def _eos_of(config: Any) -> list[int]:
    eos = getattr(config, "eos_token_id", None)
    return [] if eos is None else [eos] if isinstance(eos, int) else list(eos)
