"""`trainer export`: one adapter in another form, proven by loading it again.

What cannot be done is refused before anything is written: a form that this base has not, a package that is missing, too
little memory or disk. The form is made aside and renamed in, with `export.json`, which says what was made of what and how
its answers compare with those of base and adapter by PEFT.
"""

import importlib
import json
import math
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil

from core.errors import ChildError, UsageError
from core.exits import ChildExit
from core.forms import Form, form_of, size_of, unmergeable
from core.tasks import ExportTask
from store.bases import TEMPLATE, TOKENIZER, Base, read_base, weights_folder
from store.durable import made_aside, replace_file
from store.engines import let_threads_sleep
from store.seals import hash_file, hash_files
from trainer.run import RunFolder
from trainer.silence import hush
from trainer.space import MB, full_disk, require_free

NOTE = "export.json"
MAKING = ".making"
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
OF_TOKENIZER = (TOKENIZER, TEMPLATE, "tokenizer_config.json", "special_tokens_map.json")
MEMORY_FACTOR = 1.3  # over the weights in fp32: activations of ten short prompts, and the largest tensor once more
MODULES = {
    "merged": "merged",
    "gguf": "ggufadapter",
    "merged-gguf": "ggufmodel",
    "mlx": "mlxfolder",
    "onnx": "onnxgraph",
    "torch-export": "programs",
    "torchscript": "programs",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """What a module of `trainer.backends.exports` is given: `write(export, aside)` fills the folder and returns what it found out."""

    form: Form
    dtype: str
    base: Path
    sealed: Base
    described: Mapping[str, Any]  # the base's Hugging Face config
    adapter: Path
    tell: Callable[[str], None]  # one line of progress, and a sign of life


def export(task: ExportTask, run: RunFolder) -> None:
    """Write `task.out`, whole or not at all. Raises ChildError BAD_SPEC for what cannot be, LoradError DISK_FULL.

    Reads base and adapter; writes beside `task.out` and renames it in; an existing one is never touched.
    """
    made = _checked(task, run)
    out = Path(task.out)
    needs = size_of(made.form, made.dtype, num_weights=_num_weights(made), adapter_bytes=_adapter_bytes(made.adapter))
    made.tell(f"{made.form.name} in {made.dtype}: about {max(1, needs // MB)} MB in {out}")
    _require_memory(made)
    out.parent.mkdir(parents=True, exist_ok=True)
    require_free(out.parent, int(needs * made.form.copies), f"the form {made.form.name!r}")
    making = out.parent / MAKING
    _sweep(making, out.name)
    try:
        with full_disk(out.parent), made_aside(out, making) as aside:
            found = _copy_adapter(made, aside) if made.form.name == "peft" else _write(made, aside)
            _write_note(made, aside, found)
    finally:
        with suppress(OSError):  # another export may be in the making
            making.rmdir()
    made.tell(f"done: {out}")


def _checked(task: ExportTask, run: RunFolder) -> Export:
    try:
        form, dtype = form_of(task.form, str(task.settings.get("dtype") or ""))
    except UsageError as error:
        raise _refused(error.what, error.hint, error.code) from None
    out, adapter = Path(task.out), Path(task.adapter)
    if out.exists() or out.is_symlink():
        raise _refused(f"{str(out)!r} is there already", "name another folder, or move that one away", "OUT_TAKEN")
    for name in ADAPTER_FILES:
        if not (adapter / name).is_file():
            raise _refused(f"{str(adapter)!r} holds no {name}", "name a folder in PEFT's layout", "ADAPTER_MISSING")
    missing = [name for name in form.packages if find_spec(name) is None]
    if missing:
        extra = "mlx" if form.name == "mlx" else "export"
        raise _refused(f"the form {form.name!r} needs {', '.join(missing)}", f"pip install 'lorad[{extra}]'", "FORM_NOT_INSTALLED")
    sealed = read_base(Path(task.base))
    described = _described(weights_folder(Path(task.base)))
    if form.is_merged and (why := unmergeable(described, tuple(tensors_of(adapter / ADAPTER_FILES[1])))):
        raise _refused(f"{form.name} cannot be: {why}", "export the adapter by itself: --form peft", "FORM_UNFIT")
    return Export(
        form=form,
        dtype=dtype,
        base=Path(task.base),
        sealed=sealed,
        described=described,
        adapter=adapter,
        tell=lambda text: run.report("export", last=True, doing=text),
    )


def _write(made: Export, aside: Path) -> dict[str, Any]:
    if made.form.is_merged:  # the others need neither torch nor transformers, whose import takes longer than they do
        hush()
        let_threads_sleep()
    module = importlib.import_module(f"trainer.backends.exports.{MODULES[made.form.name]}")
    found: dict[str, Any] = module.write(made, aside)
    return found


def _sweep(making: Path, name: str) -> None:
    """Delete what an export of the same name left that was killed."""
    for left in making.glob(f"{name}.*"):
        number = left.name.removeprefix(f"{name}.")
        if number.isdigit() and not psutil.pid_exists(int(number)):
            shutil.rmtree(left, ignore_errors=True)


def _copy_adapter(made: Export, aside: Path) -> dict[str, Any]:
    for name in ADAPTER_FILES:
        shutil.copyfile(made.adapter / name, aside / name)
    put_tokenizer(made.base, aside)
    return {"check": {"kind": "the same bytes"}}


def put_tokenizer(base: Path, folder: Path) -> None:
    """Copy the tokenizer, the template and their settings from a base's folder, or from that of its weights, to `folder`."""
    for name in OF_TOKENIZER:
        for place in (base, weights_folder(base)):
            if (place / name).is_file():
                shutil.copyfile(place / name, folder / name)
                break


def _write_note(made: Export, aside: Path, found: Mapping[str, Any]) -> None:
    """export.json: what was made of what, and how it compares. Hashes and numbers, no text of rows."""
    files = hash_files(aside)
    for path in aside.rglob("*"):
        if path.is_file():
            path.chmod(0o644)  # safetensors writes for its owner alone
    note = {
        "format": 1,
        "form": made.form.name,
        "dtype": made.dtype,
        "base": {"name": made.sealed.name, "source_sha256": made.sealed.source_sha256, "licence": made.sealed.licence},
        "adapter": {name: hash_file(made.adapter / name) for name in ADAPTER_FILES},
        **found,
        "files": {name: {"sha256": digest, "size_bytes": (aside / name).stat().st_size} for name, digest in files.items()},
    }
    replace_file(aside / NOTE, json.dumps(note, indent=1, ensure_ascii=False) + "\n")


def _require_memory(made: Export) -> None:
    """Raises ChildError BAD_SPEC where base and adapter do not fit into memory in fp32, in which they are added up."""
    if made.form.name in ("peft", "gguf"):
        return
    needs, free = int(_num_weights(made) * 4 * MEMORY_FACTOR), psutil.virtual_memory().available
    if needs > free:
        raise _refused(
            f"{made.form.name} takes about {needs // MB} MB of memory, {free // MB} MB are free",
            "stop what else runs, use a larger machine, or export the adapter by itself: --form peft",
            "MEMORY_SHORT",
        )


def _num_weights(made: Export) -> int:
    """Weights of the base, by the heads of its files: nothing else is read."""
    return sum(math.prod(shape) for path in weights_folder(made.base).glob("*.safetensors") for shape in tensors_of(path).values())


def tensors_of(path: Path) -> dict[str, list[int]]:
    """Name -> shape of the tensors in a safetensors file; only its head is read. Raises ChildError BAD_SPEC for a damaged one."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118 - it is no mapping
    except SafetensorError as error:
        raise _refused(f"{str(path)!r} does not load: {error}", "its bytes are damaged: copy it again", "WEIGHTS_DAMAGED") from None


def _adapter_bytes(adapter: Path) -> int:
    return sum((adapter / name).stat().st_size for name in ADAPTER_FILES)


def _described(weights: Path) -> dict[str, Any]:
    found = json.loads((weights / "config.json").read_bytes())
    assert isinstance(found, dict)
    return found


def _refused(what: str, hint: str, code: str) -> ChildError:
    return ChildError(what, hint=hint, code=code, exit_code=ChildExit.BAD_SPEC)
