"""Unsloth's kernels on an NVIDIA GPU: it loads the base and attaches the adapter; rows, masks, loss and loop stay lorad's.

Never run by its makers: no machine with the hardware was at hand. What is tested is that its documented interface
(FastLanguageModel.from_pretrained, get_peft_model, for_training) is called as documented, against a fake of it.
"""

import importlib
import os
from pathlib import Path
from typing import Any

import torch

from core.config import Config
from core.errors import ChildError
from core.exits import ChildExit
from store.bases import weights_folder
from trainer.backends.peft import PeftBackend

WITH_LOGITS = "UNSLOTH_RETURN_LOGITS"
"""Without it Unsloth's forward gives a loss of its own and no logits; it is read as Unsloth is imported."""


class UnslothBackend(PeftBackend):
    """Trains on one NVIDIA GPU. Scores as PEFT does, so that scores of both can be compared."""

    packs = False  # its kernels know padded batches

    def new_model(self, base: Path, config: Config) -> Any:
        """The base with a fresh adapter, as a PEFT model. Raises ChildError BAD_SPEC where Unsloth cannot load it."""
        os.environ[WITH_LOGITS] = "1"
        try:
            fast = importlib.import_module("unsloth").FastLanguageModel
        except (ImportError, NotImplementedError) as error:
            raise ChildError(
                f"Unsloth does not start here: {error}",
                hint='it needs an NVIDIA GPU and `pip install unsloth`; or set "backend": "peft"',
                code="BACKEND_NOT_INSTALLED",
                exit_code=ChildExit.BAD_SPEC,
            ) from error
        lora, checkpointing = config.lora, config.training.gradient_checkpointing
        try:
            model, _ = fast.from_pretrained(
                model_name=str(weights_folder(base)), max_seq_length=config.max_length, dtype=torch.bfloat16, load_in_4bit=config.method == "qlora"
            )
            model = fast.get_peft_model(
                model,
                r=lora.r,
                target_modules=lora.targets if lora.targets == "all-linear" else [name.strip() for name in lora.targets.split(",")],
                lora_alpha=lora.alpha,
                lora_dropout=lora.dropout,
                bias="none",
                use_gradient_checkpointing=False if checkpointing == "off" else "unsloth",
                random_state=config.training.seed,
                use_rslora=lora.use_rslora,
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise ChildError(
                f"Unsloth does not load the base in {str(base)!r}: {error}",
                hint='set "backend": "peft", which loads every causal model of transformers',
                code="BASE_UNREADABLE",
                exit_code=ChildExit.BAD_SPEC,
            ) from error
        return fast.for_training(model) or model
