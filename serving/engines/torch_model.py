"""The base's weights and its forward passes. Everything here runs on the engine's thread.

Axes: B batch, T tokens, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.cache_utils import DynamicCache

from core.errors import LoradError
from serving.engines.adapter_layers import AdapterLayers
from serving.engines.port import Blend
from serving.engines.prefixes import PIECE_TOKENS
from serving.engines.slots import Slots, StepCache
from store.bases import weights_folder
from store.engines import cpu_has_bf16

ATTENTIONS = ("full_attention", "sliding_attention")
ALIKE = 0.05  # mean difference of log-probabilities (nats) that rounding alone stays below by far


def cpu_dtype() -> torch.dtype:
    """bf16 where the CPU computes in it, else fp32: the rule that the trainer follows too."""
    return torch.bfloat16 if cpu_has_bf16() else torch.float32


@dataclass(frozen=True, slots=True, kw_only=True)
class Placing:
    """How the weights are held: threads of a CPU (0: as torch likes), precision and place on CUDA."""

    threads: int = 0
    quantization: str = "none"  # none, nf4 or int8; the last two on CUDA
    device_map: str = ""  # of transformers; empty: one device


class TorchModel:
    """A sealed base in memory, with the adapters beside it. Raises LoradError BASE_UNUSABLE."""

    def __init__(self, folder: Path, placing: Placing = Placing()) -> None:
        transformers.utils.logging.disable_progress_bar()
        if placing.threads:
            torch.set_num_threads(placing.threads)
        try:
            model = transformers.AutoModelForCausalLM.from_pretrained(
                str(weights_folder(folder)), local_files_only=True, use_safetensors=True, trust_remote_code=False, **_precision(placing)
            )
        except (OSError, ValueError, RuntimeError, KeyError, ImportError) as error:
            raise LoradError(f"base in {folder}: {error}", hint="pull it again: `lorad models pull`", code="BASE_UNUSABLE") from None
        model.requires_grad_(False)
        model.eval()
        self._model: Any = model
        self.adapters = AdapterLayers(model)
        self.quantized = placing.quantization != "none"
        shape = model.config.get_text_config()  # of a base that also sees: of its text tower
        self.context_tokens: int = shape.max_position_embeddings
        self.vocabulary: int = shape.vocab_size
        self.eos_ids = frozenset({*_eos_of(model.generation_config), *_eos_of(model.config)})
        self._kinds: list[str] = list(getattr(shape, "layer_types", None) or ())
        window = getattr(shape, "sliding_window", None)
        self.window: int | None = window if "sliding_attention" in (self._kinds or ("sliding_attention",)) else None

    def new_cache(self) -> DynamicCache:
        """An empty cache of one answer."""
        return transformers.DynamicCache(config=self._model.config)

    def read(self, blend: Blend, ids: Sequence[int], cache: DynamicCache, *, merged: bool = False) -> torch.Tensor:
        """Tokens of one answer into its cache; the last one's fp32 logits_V, on the CPU."""
        ids_BT = torch.tensor([list(ids)], device=self._model.device)
        with torch.inference_mode(), self.adapters.using([blend], merged=merged):
            logits_BTV = self._model(input_ids=ids_BT, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
            return logits_BTV[0, -1].float().cpu()

    def step(self, blends: Sequence[Blend], tokens: Sequence[int], cache: StepCache, *, merged: bool = False) -> torch.Tensor:
        """One more token of several answers; fp32 logits_BV, on the CPU."""
        wanted, times = len(tokens), cache.num_rows // len(tokens)
        blends, tokens = list(blends) * times, list(tokens) * times
        ids_BT = torch.tensor(tokens, device=self._model.device)[:, None]
        with torch.inference_mode(), self.adapters.using(blends, merged=merged, mixed=not merged):
            logits_BTV = self._model(
                input_ids=ids_BT, attention_mask=self._mask(cache), position_ids=cache.position_B[:, None], past_key_values=cache, use_cache=True
            ).logits
            return logits_BTV[:wanted, -1].float().cpu()

    def teach(self, blend: Blend, prompt_ids: Sequence[int], ids: Sequence[int], *, merged: bool = False) -> list[float]:
        """Log-probability of each of `ids` in one forward of the whole sequence, without a cache."""
        ids_BT = torch.tensor([[*prompt_ids, *ids]], device=self._model.device)
        with torch.inference_mode(), self.adapters.using([blend], merged=merged):
            logits_TV = self._model(input_ids=ids_BT, use_cache=False, logits_to_keep=len(ids) + 1).logits[0, :-1].float().cpu()
        logprobs_TV = torch.log_softmax(logits_TV, dim=-1)
        return [float(logprobs_TV[place, token]) for place, token in enumerate(ids)]

    def can_batch(self) -> bool:
        """Whether answers of different lengths computed together are those computed alone, as tried here: some architectures
        keep a state that has no places, or make masks of their own."""
        if self._kinds and not set(self._kinds) <= set(ATTENTIONS):
            return False
        prompts = [[3, 1, 4, 1, 5, 9, 2], [6, 5, 3]]
        slots, alone = Slots(), []
        try:
            for ids in prompts:
                cache = self.new_cache()
                self.read((), ids, cache)
                slots.put(cache, len(ids), len(ids) + 1)
                alone.append(self.read((), [7], cache))
            together_BV = self.step([(), ()], [7, 7], slots.step([0, 1]))
        except (RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError, NotImplementedError):
            return False
        away = (together_BV.log_softmax(-1) - torch.stack(alone).log_softmax(-1)).abs().mean(-1)
        return bool((away < ALIKE).all())

    @property
    def can_cut(self) -> bool:
        """Whether a piece of a prompt can be taken out of a cache: a window shorter than it has lost its beginning."""
        return self.window is None or self.window > PIECE_TOKENS

    def _mask(self, cache: StepCache) -> Any:
        if len(set(self._kinds)) > 1:
            return {kind: cache.mask(self.window if kind == "sliding_attention" else None) for kind in set(self._kinds)}
        return cache.mask(self.window)


def _precision(placing: Placing) -> dict[str, Any]:
    """How transformers loads the weights. Quantised bases and device maps need CUDA. Raises LoradError NO_CUDA."""
    if not torch.cuda.is_available():
        if placing.quantization != "none" or placing.device_map:
            wish = f"serving.quantization {placing.quantization!r}" if placing.quantization != "none" else f"serving.device_map {placing.device_map!r}"
            raise LoradError(f"{wish} needs CUDA, and torch finds none here", hint="take the setting out, or serve on a box with a GPU", code="NO_CUDA")
        return {"dtype": cpu_dtype()}
    options: dict[str, Any] = {"dtype": torch.bfloat16, "device_map": placing.device_map or "cuda:0"}
    if placing.quantization == "nf4":  # double quantisation as in QLoRA, arXiv 2305.14314, and as lorad trains on 4 bits
        options["quantization_config"] = transformers.BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.bfloat16
        )
    if placing.quantization == "int8":
        options["quantization_config"] = transformers.BitsAndBytesConfig(load_in_8bit=True)
    return options


def _eos_of(config: Any) -> list[int]:
    eos = getattr(config, "eos_token_id", None)
    return [] if eos is None else [eos] if isinstance(eos, int) else list(eos)
