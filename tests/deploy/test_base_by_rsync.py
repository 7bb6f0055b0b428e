"""`lorad deploy push --base`: the base arrives whole, signed, and only then stands in the box's models_dir."""

import json
from pathlib import Path

import pytest

from core.config import Config
from core.deployment import TargetConfig
from core.errors import LoradError
from deploy import bases
from deploy.bases import push_base
from serving.bases import take_in_bases
from store import codec
from store.bases import Base, gguf_place, read_base, weights_folder
from store.config import ConfigLoader
from store.keys import ensure_keys
from store.paths import Box, Home
from store.seals import SEAL, check_seal, hash_file, seal


class Two:
    """A training box with a base whose weights lie elsewhere, a target beside it, and an empty models_dir there."""

    def __init__(self, root: Path) -> None:
        self.box, self.models = Box(root / "box"), root / "there"
        self.box.prepare()
        values = {
            "home": str(root / "home"),
            "models_dir": str(root / "models"),
            "model_name": "tiny-base",
            "deploy": {"targets": [{"name": "near", "path": "box"}]},
        }
        (root / "config.json").write_text(json.dumps(values))
        self.config: Config = ConfigLoader(root / "config.json").load().config
        self.target: TargetConfig = self.config.deploy.targets[0]
        self.home = Home(Path(self.config.home))
        self.home.prepare()
        ensure_keys(self.home.keys)
        weights = root / "weights"
        weights.mkdir()
        (weights / "model.safetensors").write_bytes(b"w" * 300_000)
        (weights / "config.json").write_text("{}")
        (weights / "training_args.bin").write_bytes(b"a pickle")
        self.gguf = root / "models" / "gguf"
        self.gguf.mkdir(parents=True)
        (self.gguf / "made").write_bytes(b"GGUF" * 1000)
        digest = hash_file(self.gguf / "made")
        (self.gguf / "made").rename(self.gguf / f"{digest}.gguf")
        folder = root / "models" / "tiny-base"
        folder.mkdir()
        for name in ("tokenizer.json", "chat_template.jinja"):
            (folder / name).write_text(name)
        base = Base(name="tiny-base", source="a test", source_sha256=digest, tokenizer_sha256="t", template_sha256="c", weights=str(weights), eos_token="</s>")
        codec.write(folder / "base.json", base)
        seal(folder)

    def push(self) -> None:
        push_base(self.config, self.target, lambda text: None)

    def take_in(self) -> None:
        take_in_bases(self.box, self.models, self.home.keys)

    @property
    def arrival(self) -> Path:
        return next(path for path in self.box.bases.iterdir() if path.is_dir())


@pytest.fixture
def two(tmp_path: Path) -> Two:
    return Two(tmp_path)


def test_a_base_arrives_with_its_weights_and_its_gguf_and_nothing_is_left_on_the_way(two):
    two.push()
    two.take_in()
    place = two.models / "tiny-base"
    check_seal(place)
    assert weights_folder(place) == place
    assert (place / "model.safetensors").read_bytes() == b"w" * 300_000
    assert not (place / "training_args.bin").exists()
    assert hash_file(gguf_place(place)) == read_base(place).source_sha256
    assert list(two.box.bases.iterdir()) == []
    two.push()
    two.take_in()  # once more changes nothing
    assert sorted(path.name for path in two.models.iterdir()) == ["gguf", "tiny-base"]


def flip(two: Two) -> None:
    path = two.arrival / "model.safetensors"
    path.write_bytes(b"x" + path.read_bytes()[1:])


def sign_with_another_key(two: Two) -> None:
    other = two.home.root / "other"
    ensure_keys(other)
    from store.keys import sign

    two.arrival.with_name(f"{two.arrival.name}.sig").write_text(sign(other, (two.arrival / SEAL).read_bytes()))


def link_out(two: Two) -> None:
    (two.arrival / "model.safetensors").unlink()
    (two.arrival / "model.safetensors").symlink_to(two.home.root / "keys" / "release.key")


@pytest.mark.parametrize("harm", [flip, sign_with_another_key, link_out])
def test_a_base_that_is_not_what_was_sealed_is_refused(two, harm):
    two.push()
    harm(two)
    two.take_in()
    assert not (two.models / "tiny-base").exists()
    assert [path for path in two.box.bases.iterdir() if path.is_dir()] == []


def test_a_push_that_was_broken_off_goes_on_from_what_is_there_and_is_not_taken_in_before(two, monkeypatch):
    real, words = bases.send_folder, []

    def broken(road, folder, place, options=()) -> None:
        words.append([*options])
        real(road, folder, place, options)
        if len(words) == 1:
            (two.arrival / SEAL).unlink()
            raise LoradError("cut", hint="again", code="TARGET_SILENT")

    monkeypatch.setattr(bases, "send_folder", broken)
    with pytest.raises(LoradError):
        two.push()
    two.take_in()
    assert not two.models.exists()
    two.push()
    assert any("--copy-dest" in word and word.endswith("tiny-base.1") for word in words[1])
    two.take_in()
    check_seal(two.models / "tiny-base")


def test_a_box_without_room_is_told_before_anything_is_sent(two):
    from core.wire import Capacity
    from store.child import clock
    from store.targets import mirror

    mirror(two.home, "near").mkdir(parents=True)
    said = Capacity(box="b", at=clock(), free_bytes=1, free_inodes=1, base_sha256="", engine="", pid=1)
    codec.write(mirror(two.home, "near") / "capacity.json", said)
    with pytest.raises(LoradError) as caught:
        two.push()
    assert caught.value.code == "TARGET_DISK_FULL"
    assert list(two.box.bases.iterdir()) == []
