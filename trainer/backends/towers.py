"""The text tower of a base that also sees or hears: how it is loaded alone, and what its weights are called on the whole model.

Rows are text, so the vision tower is never loaded. But the adapter is used on the whole model too: by people who load it
with PEFT, and by serving engines that know the checkpoint's own class. An adapter that carries the tower's own names
loads there without an error and does nothing (vLLM issue 48019), so adapters are written with the names of the whole
model, and read with either.

On the text tower a layer is called `model.layers.0...`; on the whole model, as far as transformers 5 has them,
`model.language_model.layers.0...`. The output embedding is called `lm_head` on both.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

PEFT_PREFIX = "base_model.model."
KEY_MAPPING = {  # names in checkpoints of the whole model, of today and of earlier transformers, to those of the text tower alone
    r"^(?:model\.language_model|language_model\.model)\.": "model.",
    r"^language_model\.lm_head\.": "lm_head.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tower:
    """The text tower of a model: `kind` is its class, `config` its own config, `whole` its decoder's name on the whole model."""

    kind: Any
    config: Any
    whole: str
    inner: str = "model"

    def named_as_whole(self, weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Adapter weights of the tower under the names that PEFT gives them on the whole model."""
        return {name.replace(f"{PEFT_PREFIX}{self.inner}.", f"{PEFT_PREFIX}{self.whole}.", 1): tensor for name, tensor in weights.items()}

    def named_as_tower(self, weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Adapter weights as PEFT names them on the tower alone, from either form."""
        return {name.replace(f"{PEFT_PREFIX}{self.whole}.", f"{PEFT_PREFIX}{self.inner}.", 1): tensor for name, tensor in weights.items()}

    @property
    def exclude(self) -> str:
        """A pattern for PEFT's `exclude_modules` that keeps an adapter of the whole model out of every other tower."""
        return rf"(?!{re.escape(self.whole)}\.|lm_head).*"


def tower_of(config: Any) -> Tower | None:
    """The text tower that a base has; None where the base is nothing but a language model.

    Raises ValueError where transformers has no class that loads the text tower alone.
    """
    text = config.get_text_config()
    if text is config:
        return None
    if type(text) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ValueError(f"transformers cannot load the text part ({text.model_type}) of a {config.model_type} by itself")
    text.tie_word_embeddings = bool(getattr(config, "tie_word_embeddings", False) or text.tie_word_embeddings)
    return Tower(kind=MODEL_FOR_CAUSAL_LM_MAPPING[type(text)], config=text, whole=_decoder_name(config))


def _decoder_name(config: Any) -> str:
    """What the whole model calls its text decoder. Builds it without weights."""
    kind = getattr(transformers, (config.architectures or [""])[0], None)
    if kind is None:
        return "model.language_model"
    with torch.device("meta"):
        whole = kind(config)
    decoder = whole.get_decoder()
    return next((name for name, module in whole.named_modules() if module is decoder), "model.language_model")
