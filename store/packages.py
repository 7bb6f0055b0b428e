"""Packages: several editions of one adapter in one folder, each for another base, with every file's hash.

    manifest.json                      format, name, version, bases, editions, and the SHA-256 of every other file
    <edition>/config.json              base model, quantisation, hardware needs, where the adapter came from
    <edition>/adapters/ego-lora.safetensors      the adapter's weights, with the names that PEFT gives them
    <edition>/adapters/adapter_config.json       PEFT's own config: rank, alpha, layers

The usual editions are lite, normal, plus and super; other names are allowed. A package is not signed: its hashes show that
it is whole, not who made it. It holds no row and no verdict.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from core.errors import IntegrityError, UsageError
from core.marks import LABEL
from core.names import is_part
from store.bases import Base, weights_folder
from store.codec import dump, parse
from store.durable import made_aside, replace_file
from store.seals import hash_files
from store.wire import MANIFEST

FORMAT = 1
EDITIONS = ("lite", "normal", "plus", "super")
CONFIG = "config.json"
ADAPTERS = "adapters"
WEIGHTS = "ego-lora.safetensors"
PEFT_WEIGHTS, PEFT_CONFIG = "adapter_model.safetensors", "adapter_config.json"
MAKING = ".making"
MEMORY_FACTOR = 1.5  # over the bytes of base and adapter: cache and activations of one request
MB = 1 << 20
HINT = "fetch the package again from whoever made it"


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseOf:
    """The base that an edition answers with."""

    name: str
    source_sha256: str
    tokenizer_sha256: str
    template_sha256: str
    licence: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What a machine must have to serve an edition with its base as it lies on disk."""

    memory_mb: int
    disk_mb: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EditionConfig:
    """`<edition>/config.json`."""

    edition: str
    base: BaseOf
    quantisation: str  # of the base: none, or the method its own config names
    hardware: Needs
    adapter: str = ""  # persona/domain where it was made
    release: str = ""  # its release id there


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageManifest:
    """`manifest.json` of a package."""

    format: int
    name: str
    version: str  # a semantic version, v1.3.0; empty: it has none
    bases: tuple[str, ...]
    editions: tuple[str, ...]
    files: Mapping[str, str] = field(default_factory=dict)  # relative path -> SHA-256


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One edition to pack: a PEFT folder with its weights in plain, and the base it was trained on."""

    edition: str
    folder: Path
    base: Base
    base_folder: Path
    adapter: str = ""
    release: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Edition:
    """One edition of a package whose every hash was right. `folder` holds adapter_config.json and ego-lora.safetensors."""

    folder: Path
    label: str  # the package's version
    base_sha256: str
    config: EditionConfig


def size_of_package(sources: Sequence[Source]) -> int:
    """Bytes that the package will have, from above."""
    return sum((source.folder / name).stat().st_size for source in sources for name in (PEFT_WEIGHTS, PEFT_CONFIG)) + MB


def write_package(out: Path, name: str, version: str, sources: Sequence[Source]) -> PackageManifest:
    """Make the package folder `out`, whole or not at all. Raises UsageError for names that cannot be, FileExistsError, OSError."""
    _check_words(version, [source.edition for source in sources])
    making = out.parent / MAKING
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        with made_aside(out, making) as aside:
            for source in sources:
                _put(source, aside / source.edition)
            manifest = PackageManifest(
                format=FORMAT,
                name=name,
                version=version,
                bases=tuple(dict.fromkeys(source.base.name for source in sources)),
                editions=tuple(source.edition for source in sources),
                files=hash_files(aside),
            )
            replace_file(aside / MANIFEST, dump(manifest, indent=1) + "\n")
    finally:
        if making.is_dir() and not any(making.iterdir()):
            making.rmdir()
    return manifest


def read_package(folder: Path) -> PackageManifest:
    """The manifest of a package, once every file has its hash and no other file lies there.

    Raises IntegrityError naming the first difference. Follows no link. Reads every file.
    """
    try:
        manifest = parse(PackageManifest, (folder / MANIFEST).read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise IntegrityError(f"{folder / MANIFEST} is no manifest of a package: {error}", hint=HINT, code="PACKAGE_DAMAGED") from None
    if manifest.format > FORMAT:
        raise IntegrityError(f"package format {manifest.format} is newer than {FORMAT}", hint="upgrade lorad on this box", code="PACKAGE_NEWER")
    if not manifest.editions or not all(is_part(edition) for edition in manifest.editions):
        raise IntegrityError(f"{folder / MANIFEST} names no edition, or one that is no name", hint=HINT, code="PACKAGE_DAMAGED")
    found = _hashes(folder)
    for name in sorted(found.keys() | manifest.files.keys()):
        if found.get(name) != manifest.files.get(name):
            raise IntegrityError(
                f"{folder / name}: SHA-256 {found.get(name, 'missing')}, the manifest says {manifest.files.get(name, 'no such file')}",
                hint=HINT,
                code="PACKAGE_BYTES",
            )
    return manifest


def open_edition(folder: Path, edition: str = "") -> Edition:
    """One edition of a package, checked; without a name its only one. Raises IntegrityError, UsageError EDITION_UNKNOWN."""
    manifest = read_package(folder)
    if not edition and len(manifest.editions) == 1:
        edition = manifest.editions[0]
    if edition not in manifest.editions:
        known = ", ".join(manifest.editions)
        what = f"the package has no edition {edition!r}" if edition else f"the package has {len(manifest.editions)} editions"
        raise UsageError(what, hint=f"name one by --edition: {known}", code="EDITION_UNKNOWN")
    place = folder / edition
    try:
        config = parse(EditionConfig, (place / CONFIG).read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise IntegrityError(f"{place / CONFIG} is no config of an edition: {error}", hint=HINT, code="PACKAGE_DAMAGED") from None
    for name in (WEIGHTS, PEFT_CONFIG):
        if f"{edition}/{ADAPTERS}/{name}" not in manifest.files:
            raise IntegrityError(f"{place / ADAPTERS / name} is missing", hint=HINT, code="PACKAGE_BYTES")
    return Edition(folder=place / ADAPTERS, label=manifest.version, base_sha256=config.base.source_sha256, config=config)


def _check_words(version: str, editions: Sequence[str]) -> None:
    if version and not LABEL.fullmatch(version):
        raise UsageError(f"{version!r} is no semantic version", hint="three numbers behind a v, for example v1.3.0", code="LABEL_FORM")
    for edition in editions:
        if not is_part(edition):
            raise UsageError(f"{edition!r} is no name of an edition", hint=f"{', '.join(EDITIONS)}, or a name of a-z, 0-9, '.', '_', '-'", code="EDITION_NAME")
    if len(set(editions)) != len(editions) or not editions:
        raise UsageError(f"editions {', '.join(editions) or 'none'}: each is named once", hint="--edition NAME=ADAPTER", code="EDITION_TWICE")


def _put(source: Source, place: Path) -> None:
    (place / ADAPTERS).mkdir(parents=True)
    shutil.copyfile(source.folder / PEFT_WEIGHTS, place / ADAPTERS / WEIGHTS)
    shutil.copyfile(source.folder / PEFT_CONFIG, place / ADAPTERS / PEFT_CONFIG)
    weights = weights_folder(source.base_folder)
    size = sum(path.stat().st_size for path in weights.glob("*.safetensors")) + (place / ADAPTERS / WEIGHTS).stat().st_size
    described = json.loads((weights / "config.json").read_bytes())
    quantised = described.get("quantization_config") or {}
    base = source.base
    config = EditionConfig(
        edition=source.edition,
        base=BaseOf(
            name=base.name,
            source_sha256=base.source_sha256,
            tokenizer_sha256=base.tokenizer_sha256,
            template_sha256=base.template_sha256,
            licence=base.licence,
        ),
        quantisation=str(quantised.get("quant_method") or "none"),
        hardware=Needs(memory_mb=int(size * MEMORY_FACTOR) // MB + 1, disk_mb=size // MB + 1),
        adapter=source.adapter,
        release=source.release,
    )
    replace_file(place / CONFIG, dump(config, indent=1) + "\n")


def _hashes(folder: Path) -> dict[str, str]:
    """Relative path -> SHA-256 of every file but the manifest; a link counts as one whose bytes nobody has named."""
    found = {}
    for path in folder.rglob("*"):
        name = PurePosixPath(path.relative_to(folder)).as_posix()
        if path.is_symlink():
            found[name] = "a symbolic link"
        elif path.is_file() and name != MANIFEST:
            with open(path, "rb") as file:
                found[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found
