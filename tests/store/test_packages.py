"""A package of editions: what it holds, and that nothing in it can be changed, left out or added unseen."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from core.errors import IntegrityError, UsageError
from store.bases import BASE, Base, read_base
from store.codec import write
from store.packages import EDITIONS, Source, open_edition, read_package, write_package
from store.seals import hash_file, seal


def base_in(folder: Path, name: str, **config: object) -> Path:
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"w" * (3 << 20))
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", **config}))
    found = Base(name=name, source="here", source_sha256=name * 4, tokenizer_sha256="t", template_sha256="c", weights=".", eos_token="<e>", bos_token="")
    write(folder / BASE, found)
    seal(folder)
    return folder


def source(root: Path, edition: str, base: Path) -> Source:
    folder = root / f"adapter-{edition}"
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(edition.encode() * 100)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4}))
    return Source(edition=edition, folder=folder, base=read_base(base), base_folder=base, adapter="support/tone@v3", release="ab" * 32)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    small = base_in(tmp_path / "small", "small")
    large = base_in(tmp_path / "large", "large", quantization_config={"quant_method": "bitsandbytes"})
    write_package(tmp_path / "out", "support/tone", "v1.3.0", [source(tmp_path, "lite", small), source(tmp_path, "my-own", large)])
    return tmp_path / "out"


def test_each_edition_says_its_base_its_needs_and_where_it_came_from(package: Path, tmp_path: Path) -> None:
    lite, own = open_edition(package, "lite"), open_edition(package, "my-own")
    assert (lite.label, lite.base_sha256, lite.config.quantisation) == ("v1.3.0", "small" * 4, "none")
    assert own.config.quantisation == "bitsandbytes"
    assert lite.config.hardware.memory_mb == 5  # 3 MB of base, half as much again
    assert lite.config.adapter == "support/tone@v3"
    assert hash_file(lite.folder / "ego-lora.safetensors") == hash_file(tmp_path / "adapter-lite" / "adapter_model.safetensors")
    assert json.loads((lite.folder / "adapter_config.json").read_text())["r"] == 4
    assert read_package(package).bases == ("small", "large")
    assert EDITIONS == ("lite", "normal", "plus", "super")
    assert not (tmp_path / ".making").exists()


def change(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"!")


def link(path: Path) -> None:
    path.unlink()
    os.symlink("/etc/hostname", path)


@pytest.mark.parametrize("name", ["lite/adapters/ego-lora.safetensors", "lite/adapters/adapter_config.json", "my-own/config.json"])
@pytest.mark.parametrize("harm", [change, Path.unlink, link])
def test_a_byte_changed_a_file_gone_or_a_link_is_refused(package: Path, name: str, harm: Callable[[Path], None]) -> None:
    harm(package / name)
    with pytest.raises(IntegrityError) as caught:
        open_edition(package, "lite")
    assert name in caught.value.what


def test_a_file_that_the_manifest_does_not_name_is_refused(package: Path) -> None:
    (package / "lite" / "adapters" / "run.py").write_text("print()")
    with pytest.raises(IntegrityError, match=r"run\.py.*no such file"):
        read_package(package)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 1, "editions": ["../x"]}', "[" * 100_000])
def test_a_manifest_of_another_kind_is_refused(package: Path, text: str) -> None:
    (package / "manifest.json").write_text(text)
    with pytest.raises(IntegrityError):
        open_edition(package, "lite")


def test_a_path_out_of_the_package_is_no_edition(package: Path) -> None:
    manifest = json.loads((package / "manifest.json").read_text())
    (package / "manifest.json").write_text(json.dumps(manifest | {"editions": ["../../etc"]}))
    with pytest.raises(IntegrityError, match="no name"):
        open_edition(package, "../../etc")


def test_a_newer_package_is_not_guessed_at(package: Path) -> None:
    manifest = json.loads((package / "manifest.json").read_text())
    (package / "manifest.json").write_text(json.dumps(manifest | {"format": 2}))
    with pytest.raises(IntegrityError, match="newer"):
        read_package(package)


def test_an_edition_is_named_unless_there_is_only_one(package: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        open_edition(package)
    assert "lite, my-own" in caught.value.hint
    write_package(tmp_path / "one", "a/b", "", [source(tmp_path, "plus", tmp_path / "small")])
    assert open_edition(tmp_path / "one").config.edition == "plus"


@pytest.mark.parametrize(("version", "editions"), [("1.0", ["lite"]), ("v1.0.0", ["Lite!"]), ("v1.0.0", ["lite", "lite"]), ("v1.0.0", [])])
def test_words_that_cannot_be_are_refused_before_anything_is_written(version: str, editions: list[str], tmp_path: Path) -> None:
    base = base_in(tmp_path / "small", "small")
    sources = [source(tmp_path / str(place), edition, base) for place, edition in enumerate(editions) if (tmp_path / str(place)).mkdir() is None]
    with pytest.raises(UsageError):
        write_package(tmp_path / "out", "a/b", version, sources)
    assert not (tmp_path / "out").exists()


def test_an_existing_folder_is_not_touched(package: Path, tmp_path: Path) -> None:
    with pytest.raises(FileExistsError):
        write_package(package, "a/b", "", [source(tmp_path, "plus", tmp_path / "small")])
    assert read_package(package).version == "v1.3.0"
