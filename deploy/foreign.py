"""An adapter that others trained, as a staged and sealed folder that packing takes like a checkpoint of our own.

Taken: a folder in PEFT's layout (also a release folder of lorad), a bare safetensors file, a package with editions, each of
them also in an archive. Everything is checked on a copy; the original is only read.
"""

import json
import math
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import IntegrityError, LoradError
from deploy.checkpoint import CONFIG, WEIGHTS, check_config, read_config
from deploy.unpacking import PICKLES, is_archive, refuse, take_in
from deploy.weights import LENGTH_BYTES, Tensor, check_finite, read_header
from store.bases import STUB_BASE, read_base, weights_folder
from store.encryption import ENCRYPTED, is_encrypted, read_weights
from store.seals import seal
from store.wire import MANIFEST

ADAPTER = "adapter"  # the staged folder, below the one that the caller names
PREFIX = "base_model.model."
PAIR = re.compile(rf"(?:{re.escape(PREFIX)})?(?P<module>.+?)\.lora_(?P<side>[AB])(?:\.default)?\.weight")
NEW = "unpacked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What an import is held to, and what a person says where the files do not."""

    base: Path | None  # folder of the sealed base; None for the stub's
    base_sha256: str
    max_rank: int
    alpha: float | None = None  # lora_alpha of a bare file
    edition: str = ""  # of a package; empty: its only one
    key_file: str = ""  # deploy.encryption_key, for a release folder of ours that is encrypted


@dataclass(frozen=True, slots=True, kw_only=True)
class Staged:
    """What lies ready: the hash of its seal, its config, the files of the original that no adapter needs, and its label in a package."""

    sha256: str
    config: Mapping[str, Any]
    left_out: tuple[str, ...]
    label: str = ""


def stage(source: Path, into: Path, rules: Rules) -> Staged:
    """Check `source` and lay its adapter into `into/adapter`, sealed. The caller deletes `into`, whatever comes of it.

    Raises RefusedError (exit 2) with what is wrong: a link, a pickle, an archive that grows too large, another base, weights
    that are no numbers or of other shapes, a rank above the servers'. Reads all of it; writes below `into` only.
    """
    adapter = into / ADAPTER
    try:
        if source.is_dir() or is_archive(source):
            take_in(source, into / NEW)
            staged = _from_folder(_top(into / NEW), adapter, rules)
        else:
            staged = _from_file(source, adapter, rules)
        _check(adapter, staged.config, rules)
    except IntegrityError as error:
        refuse(error.what.replace(str(into / NEW), str(source)).replace(str(adapter), str(source)), "fetch it anew, or ask whoever made it", error.code)
    return Staged(sha256=seal(adapter), config=staged.config, left_out=staged.left_out, label=staged.label)


def _top(folder: Path) -> Path:
    """The folder, or the single one in it: archives often hold one folder with everything."""
    inside = list(folder.iterdir())
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else folder


def _from_folder(folder: Path, adapter: Path, rules: Rules) -> Staged:
    label = ""
    if _is_package(folder):
        from store.packages import open_edition

        edition = open_edition(folder, rules.edition)
        label, folder, known = edition.label, edition.folder, edition.config.base
        _require_base({"base": known.source_sha256, "tokenizer": known.tokenizer_sha256, "chat template": known.template_sha256}, rules)
    elif (folder / MANIFEST).is_file():
        told = _json(folder / MANIFEST)
        _require_base({"base": told.get("base_sha256"), "tokenizer": told.get("tokenizer_sha256"), "chat template": told.get("template_sha256")}, rules)
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    weights = next((name for name in (WEIGHTS, "ego-lora.safetensors", "adapters.safetensors", ENCRYPTED) if name in names), "")
    if CONFIG not in names or not weights:
        lacks = CONFIG if CONFIG not in names else WEIGHTS
        refuse(f"there is no {lacks}", "name a folder in PEFT's layout, a safetensors file with --alpha, or a package", "ADAPTER_FILE_MISSING")
    adapter.mkdir(parents=True)
    if is_encrypted(folder):
        (adapter / WEIGHTS).write_bytes(read_weights(folder, rules.key_file))
    else:
        shutil.copyfile(folder / weights, adapter / WEIGHTS)
    config = read_config(folder / CONFIG)
    (adapter / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return Staged(sha256="", config=config, left_out=tuple(name for name in names if name not in (CONFIG, weights)), label=label)


def _is_package(folder: Path) -> bool:
    return (folder / MANIFEST).is_file() and "editions" in _json(folder / MANIFEST)


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        refuse(f"{path} is not JSON", "fetch it anew", "IMPORT_DAMAGED")
    return found if isinstance(found, dict) else {}


def _from_file(source: Path, adapter: Path, rules: Rules) -> Staged:
    """A bare safetensors file: rank and modules stand in its tensors, the scale must be said."""
    if source.is_symlink():
        refuse(f"{str(source)!r} is a symbolic link", "name the file itself", "IMPORT_LINK")
    if source.suffix.lower() in PICKLES:
        refuse(f"{str(source)!r} may be a pickle, which runs code where it is loaded", "convert it to safetensors first", "IMPORT_PICKLE")
    tensors = read_header(source)
    config = _config_of(source, tensors, rules)
    adapter.mkdir(parents=True)
    _copy_renamed(source, adapter / WEIGHTS, tensors)
    (adapter / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return Staged(sha256="", config=config, left_out=())


def _config_of(source: Path, tensors: Sequence[Tensor], rules: Rules) -> dict[str, Any]:
    """The config that the tensors speak of. Raises RefusedError for tensors that are no LoRA pairs, and without a scale."""
    ranks: dict[str, dict[str, int]] = {}
    for tensor in tensors:
        pair = PAIR.fullmatch(tensor.name)
        if pair is None or len(tensor.shape) != 2:
            refuse(f"tensor {tensor.name!r} in {str(source)!r} is no half of a LoRA pair", "names end in lora_A.weight or lora_B.weight", "ADAPTER_TENSORS")
        ranks.setdefault(pair["module"], {})[pair["side"]] = tensor.shape[0 if pair["side"] == "A" else 1]
    for module, sides in ranks.items():
        if len(set(sides.values())) != 1 or sides.keys() != {"A", "B"}:
            refuse(f"{module!r} in {str(source)!r} has the ranks {sides}", "both halves of a pair must be there, with one rank", "ADAPTER_TENSORS")
    if rules.alpha is None:
        hint = "say --alpha N: the adapter is scaled by alpha / rank, and whoever trained it knows alpha"
        refuse(f"{str(source)!r} does not say its lora_alpha", hint, "ALPHA_UNKNOWN")
    of_module = {module: sides["A"] for module, sides in ranks.items()}
    most = max(set(of_module.values()), key=list(of_module.values()).count)
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": most,
        "lora_alpha": rules.alpha,
        "bias": "none",
        "target_modules": sorted(of_module),
        "rank_pattern": {module: rank for module, rank in sorted(of_module.items()) if rank != most},
    }


def _copy_renamed(source: Path, destination: Path, tensors: Sequence[Tensor]) -> None:
    """Copy the file with the names that PEFT writes; the numbers stay as they are."""
    start = min(tensor.begin for tensor in tensors)
    entries = {
        _peft_name(tensor.name): {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [tensor.begin - start, tensor.end - start]}
        for tensor in tensors
    }
    head = json.dumps({"__metadata__": {"format": "pt"}} | entries).encode()
    head += b" " * (-len(head) % 8)  # the tensors are aligned
    with open(source, "rb") as file, open(destination, "wb") as out:
        file.seek(start)
        out.write(len(head).to_bytes(LENGTH_BYTES, "little") + head)
        shutil.copyfileobj(file, out)


def _peft_name(name: str) -> str:
    pair = PAIR.fullmatch(name)
    assert pair is not None
    return f"{PREFIX}{pair['module']}.lora_{pair['side']}.weight"


# ---------------------------------------------------------------- what it must be


def _require_base(told: Mapping[str, object], rules: Rules) -> None:
    """Raises RefusedError where one of the hashes that the files name is another than here: the answers would be others."""
    own = read_base(rules.base) if rules.base is not None else None
    here = {
        "base": rules.base_sha256,
        "tokenizer": own.tokenizer_sha256 if own is not None else STUB_BASE,
        "chat template": own.template_sha256 if own is not None else STUB_BASE,
    }
    for what, theirs in told.items():
        if theirs and theirs != here[what]:
            words = f"it was trained with the {what} {str(theirs)[:12]}, here it is {here[what][:12]}"
            refuse(words, "import it where its base is served, or train on the rows again", "BASE_MISMATCH")


def _check(adapter: Path, config: Mapping[str, Any], rules: Rules) -> None:
    """Raises RefusedError, IntegrityError."""
    check_config(adapter / CONFIG, dict(config))
    scale = config.get("lora_alpha")
    if not isinstance(scale, int | float) or not math.isfinite(scale) or scale == 0:
        refuse(f"lora_alpha is {scale!r:.40}, and no number to scale by", "it is alpha of whoever trained it", "ADAPTER_UNSERVABLE")
    ranks = (config["r"], *(config.get("rank_pattern") or {}).values())
    if max(ranks) > rules.max_rank:
        refuse(
            f"its rank is {max(ranks)}, the servers load up to {rules.max_rank}",
            "raise serving.max_rank, if the servers can; else make it smaller",
            "RANK_TOO_LARGE",
        )
    tensors = read_header(adapter / WEIGHTS)
    check_finite(adapter / WEIGHTS, tensors)
    if rules.base is not None and rules.base_sha256 != STUB_BASE:
        _check_shapes(tensors, _shapes_of(rules.base), is_turned=bool(config.get("fan_in_fan_out")))


def _shapes_of(base: Path) -> dict[str, tuple[int, ...]]:
    """Name -> shape of the base's weights; empty where they are in a form that is not read here (the trainer's load then decides)."""
    try:
        return {tensor.name: tensor.shape for path in sorted(weights_folder(base).glob("*.safetensors")) for tensor in read_header(path)}
    except LoradError:
        return {}


def _check_shapes(tensors: Sequence[Tensor], base: Mapping[str, tuple[int, ...]], *, is_turned: bool) -> None:
    """Raises RefusedError naming the first tensor that does not fit the base's weight of its module. A module that the base's
    files name otherwise is left to the trainer, which loads the adapter before it is packed."""
    for tensor in tensors:
        pair = PAIR.fullmatch(tensor.name)
        shape = base.get(f"{pair['module']}.weight") if pair is not None else None
        if pair is None or shape is None or len(shape) != 2 or len(tensor.shape) != 2:
            continue
        rows, columns = reversed(shape) if is_turned else shape
        has, needs = (tensor.shape[1], columns) if pair["side"] == "A" else (tensor.shape[0], rows)
        if has != needs:
            what = f"tensor {tensor.name!r} is made for {has} features, the base has {needs} there"
            refuse(what, "it was trained on another base: import it where that one is served", "SHAPE_MISMATCH")
