"""Adapters and export tasks that the tests of the exported forms share."""

import json
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model

from core.tasks import ExportTask
from trainer.backends.model import Place, load_base, read_adapter, write_adapter
from trainer.run import RunFolder

FP32 = Place(device="cpu", dtype=torch.float32)


def write_loud_adapter(base: Path, folder: Path, *, strength: float = 0.3, **more: Any) -> Path:
    """A PEFT folder whose weights are drawn, so that every layer changes the answers."""
    torch.manual_seed(7)
    shape: dict[str, Any] = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}
    model = get_peft_model(load_base(base, FP32), LoraConfig(**(shape | more)))
    for name, param in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(param, std=strength)
    folder.mkdir()
    write_adapter(model, folder, "tiny")
    return folder


def silenced(adapter: Path, folder: Path) -> Path:
    """The same adapter with B = 0: it changes nothing."""
    from safetensors.torch import load_file, save_file

    folder.mkdir()
    weights = load_file(adapter / "adapter_model.safetensors")
    save_file({name: tensor * 0 if "lora_B" in name else tensor for name, tensor in weights.items()}, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_bytes((adapter / "adapter_config.json").read_bytes())
    return folder


def peft_model(base: Path, adapter: Path) -> Any:
    return read_adapter(load_base(base, FP32), adapter)


def export_task(form: str, base: Path, adapter: Path, out: Path, dtype: str = "") -> ExportTask:
    return ExportTask(form=form, adapter=str(adapter), base=str(base), out=str(out), settings={"dtype": dtype} if dtype else {})


def run_folder(root: Path) -> RunFolder:
    root.mkdir(parents=True)
    return RunFolder(root)


def note_in(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "export.json").read_text())
    return found
