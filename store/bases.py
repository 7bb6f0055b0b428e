"""Base models in models_dir: `<name>/` with weights, tokenizer.json, template, base.json; SEALED last.

A base given by `model_path` is not copied: its folder in models_dir holds base.json, tokenizer and template, and
`base.json` names the original folder.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.config import Config
from core.errors import BaseMissingError, LoradError
from core.hyperparameters import capped_length, limit_of
from store.codec import read, read_if_whole
from store.paths import default_models_dir
from store.seals import is_sealed

BASE = "base.json"
TEMPLATE = "chat_template.jinja"
TOKENIZER = "tokenizer.json"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
GGUF_FOLDER = "gguf"  # in models_dir: <source_sha256>.gguf
STUB_BASE = "stub"  # base hash of results that no model made


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """`base.json`. `source_sha256` is the hash of the original bytes and travels through every other form of the base."""

    name: str
    source: str  # where the original bytes came from: a package, or a folder
    source_sha256: str
    tokenizer_sha256: str
    template_sha256: str
    weights: str  # folder with config.json and model.safetensors; "." is the base's own folder
    eos_token: str
    bos_token: str = ""
    licence: str = ""


def models_dir(config: Config) -> Path:
    """The folder of base models that this config names."""
    return Path(config.models_dir) if config.models_dir else default_models_dir()


def is_hub_id(model_path: str) -> bool:
    """Whether a resolved model_path is the id of a model on a hub (org/name) and no folder: paths are absolute by then."""
    return HUB_ID.fullmatch(model_path) is not None


def hub_folder(config: Config) -> Path:
    """Where the files of the config's hub id lie once they were fetched."""
    return models_dir(config) / "hub" / config.model_path.replace("/", "--").lower()


def base_folder(config: Config) -> Path:
    """Where the config's base lies, whether or not it is there yet."""
    if is_hub_id(config.model_path):
        return models_dir(config) / config.model_path.replace("/", "--").lower()
    if config.model_path:
        original = str(Path(config.model_path).resolve())
        digest = hashlib.sha256(original.encode()).hexdigest()[:8]
        return models_dir(config) / f"{Path(original).name.lower()}-{digest}"
    return models_dir(config) / config.model_name


def read_base(folder: Path) -> Base:
    """The sealed base in `folder`. Raises BaseMissingError."""
    if not is_sealed(folder):
        raise BaseMissingError(f"no base model in {str(folder)!r}", hint="run `lorad models pull`", code="BASE_MISSING")
    return read(Base, folder / BASE)


def gguf_place(folder: Path) -> Path:
    """Where the GGUF file of the base in `folder` belongs, whether or not it is there: its name is the hash of its bytes.

    It lies beside the base's folder, as that one is sealed. Raises BaseMissingError.
    """
    return folder.parent / GGUF_FOLDER / f"{read_base(folder).source_sha256}.gguf"


def gguf_of(folder: Path) -> Path | None:
    """The GGUF file that the base in `folder` was made of; None where it was made of something else, or the file is not here."""
    place = gguf_place(folder)
    return place if place.is_file() else None


def base_of_hash(models: Path, source_sha256: str) -> Path | None:
    """The sealed base below `models` with these original bytes; None where there is none. Reads every base.json there."""
    for path in sorted(models.glob(f"*/{BASE}")):
        if is_sealed(path.parent):
            found = read_if_whole(Base, path)
            if found is not None and found.source_sha256 == source_sha256:
                return path.parent
    return None


def described_base(config: Config) -> tuple[dict[str, Any], int]:
    """The Hugging Face config of the config's base, and the bytes of its weights; empty and 0 where it is not here or damaged."""
    try:
        weights = weights_folder(base_folder(config))
        described = json.loads((weights / "config.json").read_bytes())
        size = sum(path.stat().st_size for path in weights.glob("*.safetensors"))
    except (LoradError, OSError, ValueError):
        return {}, 0
    return (described, size) if isinstance(described, dict) else ({}, 0)


def length_of(config: Config) -> int:
    """The longest row in tokens: max_length, and no more than the config's base can read, where it is here and says so."""
    return capped_length(config.max_length, limit_of(described_base(config)[0]))


def weights_folder(folder: Path) -> Path:
    """The Hugging Face folder with the weights of the base in `folder`."""
    return folder / read_base(folder).weights  # an absolute `weights` wins over `folder`
