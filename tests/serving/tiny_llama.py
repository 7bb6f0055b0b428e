"""The tiny base and its adapters as llama.cpp reads them: GGUF files made by lorad's own exports."""

import json
import shutil
from pathlib import Path
from typing import Any

import gguf
from safetensors.torch import load_file, save_file
from tiny_torch import make_adapter, make_base

from core.tasks import ExportTask
from serving.engines.llamacpp import LlamaCppEngine, LlamaOptions
from store import codec
from store.bases import BASE, GGUF_FOLDER, Base, read_base
from store.seals import SEAL, hash_file, seal
from trainer.export import export
from trainer.run import RunFolder


def make_gguf_base(root: Path, *, q4_1: bool = False) -> Path:
    """A sealed base below `root` that was made of a GGUF file, which lies where `lorad models pull` puts it; `q4_1` is its type where rows allow."""
    base = make_base(root / "tiny")
    quiet = make_adapter(base, root / "quiet", seed=9)
    weights = load_file(quiet / "adapter_model.safetensors")
    save_file({name: tensor * 0 if "lora_B" in name else tensor for name, tensor in weights.items()}, quiet / "adapter_model.safetensors")
    exported(base, quiet, root / "whole", "merged-gguf", "f32")
    if q4_1:
        _as_q4_1(root / "whole" / "model.gguf")
    digest = hash_file(root / "whole" / "model.gguf")
    (root / GGUF_FOLDER).mkdir()
    shutil.move(root / "whole" / "model.gguf", root / GGUF_FOLDER / f"{digest}.gguf")
    named = codec.read(Base, base / BASE)
    (base / SEAL).unlink()
    codec.write(base / BASE, Base(**{**{name: getattr(named, name) for name in named.__dataclass_fields__}, "source_sha256": digest}))
    seal(base)
    assert read_base(base).source_sha256 == digest
    return base


def _as_q4_1(model: Path) -> None:
    kept = model.rename(model.with_name("plain.gguf"))
    kind = gguf.GGMLQuantizationType.Q4_1
    writer = gguf.GGUFWriter(model, "llama")
    reader = gguf.GGUFReader(kept)
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name != "general.architecture":
            writer.add_key_value(name, field.contents(), field.types[0], sub_type=field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None)
    for tensor in reader.tensors:
        if len(tensor.shape) == 2 and tensor.shape[0] % 32 == 0:
            writer.add_tensor(tensor.name, gguf.quants.quantize(tensor.data, kind), raw_dtype=kind)
        else:
            writer.add_tensor(tensor.name, tensor.data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def make_gguf_adapter(base: Path, folder: Path, seed: int, **changes: Any) -> Path:
    """A random adapter in both of its forms."""
    make_adapter(base, folder, seed, **changes)
    made = folder.parent / f"{folder.name}-gguf"
    exported(base, folder, made, "gguf", "f32")
    shutil.move(made / "adapter.gguf", folder / "adapter.gguf")
    return folder


def exported(base: Path, adapter: Path, out: Path, form: str, dtype: str) -> None:
    run = out.parent / f"{out.name}-run"
    run.mkdir()
    export(ExportTask(form=form, adapter=str(adapter), base=str(base), out=str(out), settings={"dtype": dtype}), RunFolder(run))
    assert json.loads((out / "export.json").read_text())["form"] == form


def open_llama(base: Path, **options: Any) -> LlamaCppEngine:
    engine = LlamaCppEngine(base, LlamaOptions(**{"threads": 1, "streams": 3, "max_new_tokens": 24} | options))
    engine.open()
    return engine
