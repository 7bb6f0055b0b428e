"""Adapters of others: what is whole is staged as it is, whatever could harm or mislead is refused, and the original is never touched."""

import gzip
import io
import json
import os
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from core.errors import IntegrityError, RefusedError, UsageError
from deploy import unpacking
from deploy.foreign import Rules, Staged, stage
from deploy.importing import chore_import
from deploy.weights import read_header
from store.bases import read_base
from store.codec import to_plain
from store.encryption import ENCRYPTED, read_weights
from store.packages import Source, write_package
from store.seals import check_seal
from store.wire import check_release, read_manifest


def pair(features: int = 8, value: float = 0.5) -> bytes:
    """Weights of one LoRA pair of rank 4 on a module with so many features."""
    a, b = np.full((4, features), value, dtype=np.float32), np.ones((8, 4), dtype=np.float32)
    return save({"model.q_proj.lora_A.weight": a, "model.q_proj.lora_B.weight": b})


WEIGHTS = pair()
PICKLE = b"cos\nsystem\n(S'true'\ntR."


@pytest.fixture
def rules(workshop: Any) -> Rules:
    (workshop.base / "model.safetensors").write_bytes(save({"model.q_proj.weight": np.zeros((8, 8), dtype=np.float32)}))
    return Rules(base=workshop.base, base_sha256="b" * 64, max_rank=16)


@pytest.fixture
def theirs(workshop: Any, tmp_path: Path) -> Path:
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "adapter_config.json").write_text((workshop.checkpoint / "adapter_config.json").read_text())
    (folder / "adapter_model.safetensors").write_bytes(WEIGHTS)
    (folder / "README.md").write_text("made elsewhere")
    return folder


def refused(source: Path, tmp_path: Path, rules: Rules) -> str:
    """The code by which it is refused; the original is as it was."""
    before = {path: path.lstat().st_mtime_ns for path in [source, *source.rglob("*")]}
    with pytest.raises(RefusedError) as error:
        stage(source, tmp_path / "staged", rules)
    assert before == {path: path.lstat().st_mtime_ns for path in [source, *source.rglob("*")]}
    assert error.value.hint
    return error.value.code


def test_a_peft_folder_is_staged_with_its_own_bytes_and_says_what_it_leaves_out(theirs: Path, tmp_path: Path, rules: Rules) -> None:
    staged = stage(theirs, tmp_path / "staged", rules)
    assert (tmp_path / "staged" / "adapter" / "adapter_model.safetensors").read_bytes() == WEIGHTS
    assert staged.left_out == ("README.md",)
    assert check_seal(tmp_path / "staged" / "adapter") == staged.sha256


def zipped(theirs: Path, archive: Path) -> None:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as out:
        for path in theirs.iterdir():
            out.write(path, f"theirs/{path.name}")


def tarred(theirs: Path, archive: Path) -> None:
    with tarfile.open(archive, "w:gz") as out:
        out.add(theirs, "./theirs")


@pytest.mark.parametrize(("name", "make"), [("a.zip", zipped), ("a.tar.gz", tarred), ("a.tgz", tarred)])
def test_the_same_folder_in_an_archive(theirs: Path, tmp_path: Path, rules: Rules, name: str, make: Callable[[Path, Path], None]) -> None:
    make(theirs, tmp_path / name)
    staged: Staged = stage(tmp_path / name, tmp_path / "staged", rules)
    assert (tmp_path / "staged" / "adapter" / "adapter_model.safetensors").read_bytes() == WEIGHTS
    assert staged.left_out == ("README.md",)


def change_config(folder: Path, **values: object) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def change_weights(folder: Path, raw: bytes) -> None:
    (folder / "adapter_model.safetensors").write_bytes(raw)


SPOILT: dict[str, tuple[Callable[[Path], object], str]] = {
    "NaN weights": (
        lambda folder: change_weights(folder, pair(value=float("nan"))),
        "WEIGHTS_NOT_FINITE",
    ),
    "weights of another base's shape": (lambda folder: change_weights(folder, pair(features=12)), "SHAPE_MISMATCH"),
    "cut weights": (lambda folder: change_weights(folder, WEIGHTS[:-5]), "WEIGHTS_DAMAGED"),
    "a rank above the servers'": (lambda folder: change_config(folder, r=64), "RANK_TOO_LARGE"),
    "one module's rank above it": (lambda folder: change_config(folder, rank_pattern={"q_proj": 64}), "RANK_TOO_LARGE"),
    "a scale that is no number": (lambda folder: change_config(folder, lora_alpha=float("nan")), "ADAPTER_UNSERVABLE"),
    "DoRA": (lambda folder: change_config(folder, use_dora=True), "ADAPTER_UNSERVABLE"),
    "no config": (lambda folder: (folder / "adapter_config.json").unlink(), "ADAPTER_FILE_MISSING"),
    "a config that is no JSON": (lambda folder: (folder / "adapter_config.json").write_text("{"), "ADAPTER_CONFIG"),
    "a pickle beside the weights": (lambda folder: (folder / "training_args.bin").write_bytes(PICKLE), "IMPORT_PICKLE"),
    "a pickle in a folder below": (lambda folder: ((folder / "x").mkdir(), (folder / "x" / "o.PT").write_bytes(PICKLE)), "IMPORT_PICKLE"),
    "a link to a secret": (lambda folder: os.symlink("/etc/passwd", folder / "notes.json"), "IMPORT_LINK"),
    "a link to a folder": (lambda folder: os.symlink("/etc", folder / "more"), "IMPORT_LINK"),
    "a pipe": (lambda folder: os.mkfifo(folder / "pipe.json"), "IMPORT_LINK"),
    "another template by its manifest": (
        lambda folder: (folder / "manifest.json").write_text(json.dumps({"base_sha256": "b" * 64, "template_sha256": "c" * 64})),
        "BASE_MISMATCH",
    ),
    "another base by its manifest": (lambda folder: (folder / "manifest.json").write_text(json.dumps({"base_sha256": "c" * 64})), "BASE_MISMATCH"),
}


@pytest.mark.parametrize("what", SPOILT)
def test_what_is_spoilt_is_refused_by_its_own_code(theirs: Path, tmp_path: Path, rules: Rules, what: str) -> None:
    spoil, code = SPOILT[what]
    spoil(theirs)
    assert refused(theirs, tmp_path, rules) == code


def entry(archive: tarfile.TarFile, name: str, kind: bytes = tarfile.REGTYPE, target: str = "", raw: bytes = b"{}") -> None:
    told = tarfile.TarInfo(name)
    told.type, told.linkname, told.size = kind, target, len(raw) if kind == tarfile.REGTYPE else 0
    archive.addfile(told, io.BytesIO(raw))


@pytest.mark.parametrize(
    ("name", "kind", "target", "code"),
    [
        ("../../outside.json", tarfile.REGTYPE, "", "IMPORT_PATH"),
        ("/tmp/outside.json", tarfile.REGTYPE, "", "IMPORT_PATH"),
        ("link.json", tarfile.SYMTYPE, "/etc/passwd", "IMPORT_LINK"),
        ("hard.json", tarfile.LNKTYPE, "../../x", "IMPORT_LINK"),
        ("device.json", tarfile.CHRTYPE, "", "IMPORT_LINK"),
        ("adapter_model.pkl", tarfile.REGTYPE, "", "IMPORT_PICKLE"),
    ],
)
def test_a_tar_cannot_lead_out(tmp_path: Path, rules: Rules, name: str, kind: bytes, target: str, code: str) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        entry(archive, name, kind, target)
    assert refused(tmp_path / "a.tar", tmp_path, rules) == code
    assert not (tmp_path.parent / "outside.json").exists()


def test_a_zip_cannot_lead_out_or_hold_a_link(tmp_path: Path, rules: Rules) -> None:
    for name, mode, code in (("../x.json", 0o100644, "IMPORT_PATH"), ("a\\..\\x.json", 0o100644, "IMPORT_PATH"), ("l.json", 0o120777, "IMPORT_LINK")):
        told = zipfile.ZipInfo(name)
        told.external_attr = mode << 16
        with zipfile.ZipFile(tmp_path / f"{code}{mode}.zip", "w") as archive:
            archive.writestr(told, "/etc/passwd")
        with pytest.raises(RefusedError) as error:
            stage(tmp_path / f"{code}{mode}.zip", tmp_path / f"staged{code}{name[0]}", rules)
        assert error.value.code == code


def bomb_zip(path: Path, size: int) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros.json", b"\0" * size)


def bomb_tar(path: Path, size: int) -> None:
    with tarfile.open(path, "w:gz") as archive:
        entry(archive, "zeros.json", raw=b"\0" * size)


def bomb_header(path: Path, size: int) -> None:
    """An entry whose extended header claims to be large: reading it whole would fill the memory."""
    told = tarfile.TarInfo("h")
    told.type, told.size = tarfile.XHDTYPE, size
    with gzip.open(path, "wb") as out:
        out.write(told.tobuf() + b"\0" * size)


@pytest.mark.parametrize(("name", "make"), [("b.zip", bomb_zip), ("b.tar.gz", bomb_tar), ("c.tar.gz", bomb_header)])
def test_an_archive_that_grows_out_of_all_proportion_is_stopped(
    tmp_path: Path, rules: Rules, monkeypatch: pytest.MonkeyPatch, name: str, make: Callable[[Path, int], None]
) -> None:
    monkeypatch.setattr(unpacking, "ALWAYS_BYTES", 1 << 20)
    monkeypatch.setattr(unpacking, "MOST_AT_ONCE", 1 << 20)
    make(tmp_path / name, 6 << 20)
    assert refused(tmp_path / name, tmp_path, rules) == "IMPORT_TOO_LARGE"
    written = sum(path.stat().st_size for path in (tmp_path / "staged").rglob("*") if path.is_file())
    assert written <= 2 << 20


def test_many_files_are_no_adapter(theirs: Path, tmp_path: Path, rules: Rules, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacking, "MOST_FILES", 2)
    assert refused(theirs, tmp_path, rules) == "IMPORT_TOO_LARGE"


def test_a_broken_archive_is_refused(tmp_path: Path, rules: Rules) -> None:
    for name in ("a.zip", "a.tar", "b.tar.gz"):
        (tmp_path / name).write_bytes(b"no archive at all" * 100)
        assert refused(tmp_path / name, tmp_path, rules) == "IMPORT_DAMAGED"
        unpacked = tmp_path / "staged" / "unpacked"
        unpacked.rmdir()


def test_a_bare_file_needs_its_scale_and_gets_peft_names(tmp_path: Path, rules: Rules) -> None:
    bare = tmp_path / "bare.safetensors"
    bare.write_bytes(WEIGHTS)
    assert refused(bare, tmp_path, rules) == "ALPHA_UNKNOWN"
    staged = stage(bare, tmp_path / "again", Rules(base=rules.base, base_sha256=rules.base_sha256, max_rank=16, alpha=8))
    assert (staged.config["r"], staged.config["lora_alpha"], staged.config["target_modules"]) == (4, 8, ["model.q_proj"])
    made = tmp_path / "again" / "adapter" / "adapter_model.safetensors"
    assert [tensor.name for tensor in read_header(made)] == ["base_model.model.model.q_proj.lora_A.weight", "base_model.model.model.q_proj.lora_B.weight"]
    assert made.read_bytes().endswith(WEIGHTS[-256:]), "the numbers are the same"


def test_bare_files_that_are_none(tmp_path: Path, rules: Rules) -> None:
    half, other, pickle = tmp_path / "half.safetensors", tmp_path / "other.safetensors", tmp_path / "adapter.bin"
    half.write_bytes(save({"model.q_proj.lora_A.weight": np.zeros((4, 8), dtype=np.float32)}))
    other.write_bytes(save({"model.q_proj.weight": np.zeros((4, 8), dtype=np.float32)}))
    pickle.write_bytes(PICKLE)
    link = tmp_path / "link.safetensors"
    link.symlink_to(half)
    codes = [refused(path, tmp_path, rules) for path in (half, other, pickle, link)]
    assert codes == ["ADAPTER_TENSORS", "ADAPTER_TENSORS", "IMPORT_PICKLE", "IMPORT_LINK"]


def packed(workshop: Any, theirs: Path, out: Path) -> Path:
    (workshop.base / "config.json").write_text("{}")
    base = read_base(workshop.base)
    sources = [Source(edition=edition, folder=theirs, base=base, base_folder=workshop.base) for edition in ("lite", "plus")]
    write_package(out, "tone", "v2.1.0", sources)
    return out


def test_a_package_brings_its_label_and_one_edition(workshop: Any, theirs: Path, tmp_path: Path, rules: Rules) -> None:
    package = packed(workshop, theirs, tmp_path / "package")
    with pytest.raises(UsageError, match="2 editions"):
        stage(package, tmp_path / "first", rules)
    staged = stage(package, tmp_path / "second", replace(rules, edition="plus"))
    assert staged.label == "v2.1.0"
    assert (tmp_path / "second" / "adapter" / "adapter_model.safetensors").read_bytes() == WEIGHTS


def test_one_changed_byte_of_a_package_is_refused(workshop: Any, theirs: Path, tmp_path: Path, rules: Rules) -> None:
    package = packed(workshop, theirs, tmp_path / "package")
    (package / "lite" / "adapters" / "ego-lora.safetensors").write_bytes(pair(value=0.25))
    assert refused(package, tmp_path, replace(rules, edition="plus")) == "PACKAGE_BYTES"


def test_the_chore_signs_it_without_a_verdict_and_encrypts_it_where_asked(workshop: Any, theirs: Path, tmp_path: Path, rules: Rules) -> None:
    staged = stage(theirs, tmp_path / "staged", rules)
    key = tmp_path / "vault.key"
    key.write_text("cd" * 32)
    key.chmod(0o600)
    task = workshop.task(
        checkpoint=str(tmp_path / "staged" / "adapter"),
        checkpoint_sha256=staged.sha256,
        job="",
        verdict="",
        drops=(),
        origin="imported",
        encryption_key=str(key),
    )
    told = chore_import(workshop.home, {"task": to_plain(task), "folder": str(tmp_path / "packed")})
    folder = tmp_path / "packed" / "release"
    assert check_release(folder, workshop.home.keys)[0] == told["release"]
    manifest = read_manifest(folder)
    assert (manifest.origin, manifest.verdict_sha256, ENCRYPTED in manifest.files) == ("imported", "", True)
    assert not (folder / "verdict.json").exists()
    assert read_weights(folder, str(key)) == WEIGHTS
    raw = bytearray((folder / ENCRYPTED).read_bytes())
    raw[-1] ^= 1
    (folder / ENCRYPTED).write_bytes(bytes(raw))
    with pytest.raises(IntegrityError):
        check_release(folder, workshop.home.keys)
