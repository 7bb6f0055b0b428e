"""What becomes a release, and what never does."""

import json
import shutil
import signal
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from core.errors import IntegrityError, LoradError
from core.exits import ChildExit
from core.tasks import ExitNote
from deploy.__main__ import main
from store import codec
from store.durable import replace_file
from store.seals import SEAL, check_seal, hash_files
from store.wire import check_release, read_manifest


def test_a_release_holds_all_that_serving_needs_and_verifies(workshop):
    release, folder = workshop.pack(parent="p" * 64, version=3)
    found, manifest = check_release(folder, workshop.home.keys)
    assert found == release
    assert set(manifest.files) == {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "chat_template.jinja", "probe.jsonl", "verdict.json"}
    assert {path.name for path in folder.iterdir()} == set(manifest.files) | {"manifest.json", "manifest.sig", SEAL}
    assert (manifest.adapter, manifest.version, manifest.parent, manifest.base_sha256) == ("default/main", 3, "p" * 64, "b" * 64)
    assert manifest.files["verdict.json"] == manifest.verdict_sha256
    assert manifest.files["tokenizer.json"] == manifest.tokenizer_sha256
    check_seal(folder)


def test_the_profile_of_the_training_travels_in_the_manifest(workshop):
    profile = {
        "name": "persona",
        "version": 1,
        "options": {"name": "Ada"},
        "rules": {"system": "You are Ada.", "stops": ["END"], "penalties": {"<think>": 3.0}},
    }
    workshop.write_checkpoint(files={"checkpoint.json": json.dumps({"step": 3, "dev_loss": 3.5, "profile": profile}).encode()})
    _, folder = workshop.pack()
    found = read_manifest(folder).profile
    assert (found.name, found.version, found.options) == ("persona", 1, {"name": "Ada"})
    assert (found.rules.system, found.rules.stops, found.rules.penalties) == ("You are Ada.", ("END",), {"<think>": 3.0})


def test_a_checkpoint_from_before_there_were_profiles_has_none_and_a_damaged_one_is_refused(workshop):
    assert read_manifest(workshop.pack()[1]).profile is None
    workshop.write_checkpoint(files={"checkpoint.json": b'{"step": 3, "profile": {"name": 7}}'})
    with pytest.raises(LoradError) as caught:
        workshop.pack()
    assert caught.value.code == "PROFILE_DAMAGED"


def test_the_config_names_the_base_and_no_path_of_this_box(workshop):
    _, folder = workshop.pack()
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["inference_mode"], config["r"]) == ("tiny-instruct", True, 4)
    everything = b"".join(path.read_bytes() for path in folder.iterdir())
    assert str(workshop.root).encode() not in everything


def test_the_same_checkpoint_packs_to_the_same_release(workshop):
    assert workshop.pack()[0] == workshop.pack()[0]


def test_one_flipped_bit_in_any_file_is_found(workshop):
    _, folder = workshop.pack()
    for path in sorted(folder.iterdir()):
        if path.name == SEAL:
            continue  # the arrival mark: its bytes say nothing, the manifest does
        raw = path.read_bytes()
        for place in {0, len(raw) // 2, len(raw) - 1}:
            path.write_bytes(raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :])
            with pytest.raises(IntegrityError):
                check_release(folder, workshop.home.keys)
        path.write_bytes(raw)
    check_release(folder, workshop.home.keys)


def test_a_file_more_or_less_is_found(workshop):
    _, folder = workshop.pack()
    (folder / "extra.txt").write_text("x")
    with pytest.raises(IntegrityError, match=r"extra\.txt"):
        check_release(folder, workshop.home.keys)
    (folder / "extra.txt").unlink()
    (folder / "probe.jsonl").unlink()
    with pytest.raises(IntegrityError, match=r"probe\.jsonl"):
        check_release(folder, workshop.home.keys)


def test_the_stub_packs_without_a_base(workshop):
    _, folder = workshop.pack(base="", base_sha256="stub", backend="stub")
    manifest = read_manifest(folder)
    assert (manifest.backend, manifest.base_sha256, manifest.tokenizer_sha256, manifest.template_sha256) == ("stub", "stub", "stub", "stub")
    assert not (folder / "tokenizer.json").exists()
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == "stub"


UNSERVABLE = {
    "another method": {"peft_type": "IA3"},
    "an unknown method": {"peft_type": None},
    "another task": {"task_type": "SEQ_CLS"},
    "DoRA": {"use_dora": True},
    "whole modules": {"modules_to_save": ["lm_head"]},
    "biases": {"bias": "all"},
    "a bias of the adapter": {"lora_bias": True},
    "a rank too high": {"r": 513},
    "no rank": {"r": None},
    "a rank as a boolean": {"r": True},
    "a rank too high for one layer": {"rank_pattern": {"q_proj": 1024}},
    "code by name": {"auto_mapping": {"base_model_class": "X", "parent_library": "evil"}},
    "copied layers": {"layer_replication": [[0, 2]]},
    "an altered base": {"init_lora_weights": "pissa"},
}


@pytest.mark.parametrize("story", UNSERVABLE)
def test_an_adapter_that_servers_ignore_or_refuse_is_not_packed(workshop, story):
    workshop.write_checkpoint(**UNSERVABLE[story])
    refused(workshop, "ADAPTER_UNSERVABLE")


@pytest.mark.parametrize("name", ["adapter_model.bin", "optimizer.pt", "more.safetensors", "run.py", "weights.pkl"])
def test_weights_in_another_form_are_not_packed(workshop, name):
    workshop.write_checkpoint(files={name: b"\x80\x04."})
    refused(workshop, "ADAPTER_FILE_FOREIGN")


def test_a_checkpoint_without_weights_is_not_packed(workshop):
    workshop.write_checkpoint()
    (workshop.checkpoint / "adapter_model.safetensors").unlink()
    reseal(workshop)
    refused(workshop, "ADAPTER_FILE_MISSING")


@pytest.mark.parametrize("raw", [b"{", b"[]", b"[" * 100_000])
def test_a_config_that_is_no_object_is_not_packed(workshop, raw):
    workshop.write_checkpoint(files={"adapter_config.json": raw})
    refused(workshop, "ADAPTER_CONFIG")


def header(entries: object, data: bytes = b"\0" * 16) -> bytes:
    raw = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return struct.pack("<Q", len(raw)) + raw + data


def entry(dtype: object = "F32", shape: object = (4,), offsets: object = (0, 16)) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


DAMAGED = {
    "empty": b"",
    "shorter than its length": b"\x10\0\0\0",
    "a length beyond the file": struct.pack("<Q", 1 << 60) + b"{}",
    "a length that overflows": b"\xff" * 8 + b"{}",
    "not JSON": header(b"{]"),
    "a deep JSON": header(b"[" * 100_000),
    "a list": header([]),
    "a pickle": b"\x80\x04\x95" + b"\0" * 40,
    "no tensors": header({"__metadata__": {"format": "pt"}}, b""),
    "an unknown dtype": header({"a": entry("I8", (16,))}),
    "a dtype of a list": header({"a": entry(["F32"])}),
    "a shape that does not fit": header({"a": entry(shape=(5,))}),
    "a negative shape": header({"a": entry(shape=(-4,))}),
    "a shape that overflows": header({"a": entry(shape=(1 << 40, 1 << 40))}),
    "offsets beyond the file": header({"a": entry(shape=(8,), offsets=(0, 32))}),
    "offsets backwards": header({"a": entry(offsets=(16, 0))}),
    "one offset": header({"a": entry(offsets=(0,))}),
    "a hole": header({"a": entry(shape=(2,), offsets=(8, 16))}),
    "an overlap": header({"a": entry(), "b": entry(shape=(2,), offsets=(8, 16))}),
    "bytes at the end": header({"a": entry()}, b"\0" * 20),
    "a tensor twice": header(b'{"a": %s, "a": %s}' % ((json.dumps(entry()).encode(),) * 2)),
}


@pytest.mark.parametrize("story", DAMAGED)
def test_weights_whose_header_does_not_hold_are_not_packed(workshop, story):
    workshop.write_checkpoint(DAMAGED[story])
    refused(workshop, "WEIGHTS_DAMAGED")


@pytest.mark.parametrize("dtype", ["F64", "F32", "F16", "BF16"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_not_packed(workshop, weights, dtype, value):
    numbers = np.ones(64, dtype=np.float32)
    numbers[40] = value
    kinds = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}
    raw = (numbers.view("<u4") >> 16).astype("<u2").tobytes() if dtype == "BF16" else numbers.astype(kinds[dtype]).tobytes()
    good = np.ones(2, dtype="<f4").tobytes()
    workshop.write_checkpoint(weights({"a": ("F32", [2], good), "b": (dtype, [64], raw)}))
    refused(workshop, "WEIGHTS_NOT_FINITE")


def test_large_but_finite_bf16_weights_are_packed(workshop, weights):
    workshop.write_checkpoint(weights({"a": ("BF16", [2], np.array([0x7F7F, 0xFF7F], dtype="<u2").tobytes())}))
    workshop.pack()


def test_another_checkpoint_than_the_ranked_one_is_not_packed(workshop):
    refused(workshop, "CHECKPOINT_OTHER", checkpoint_sha256="0" * 64)


def test_a_checkpoint_changed_after_its_seal_is_not_packed(workshop):
    task = workshop.task()
    (workshop.checkpoint / "checkpoint.json").write_text("{}")
    refused(workshop, "SEAL_BROKEN", checkpoint_sha256=task.checkpoint_sha256)


@pytest.mark.parametrize(
    ("change", "code"), [({"base_sha256": "c" * 64}, "BASE_OTHER"), ({"base": "/nowhere"}, "BASE_MISSING"), ({"probe": None}, "PROBE_MISSING")]
)
def test_a_release_without_its_ground_is_not_packed(workshop, change, code):
    refused(workshop, code, **change)


def test_a_tokenizer_of_another_base_is_not_packed(workshop):
    replace_file(workshop.base / "tokenizer.json", '{"other": 1}')
    refused(workshop, "BASE_DAMAGED")


@pytest.mark.parametrize("raw", [b"", b"{]\n"])
def test_a_probe_that_cannot_be_compared_is_not_packed(workshop, raw):
    workshop.probe.write_bytes(raw)
    refused(workshop, "PROBE_DAMAGED")


@pytest.mark.parametrize("name", ["probe", "verdict"])
def test_evidence_that_is_gone_is_not_packed(workshop, name):
    getattr(workshop, name).unlink()
    refused(workshop, "PACK_INPUT_MISSING")


def test_without_a_key_nothing_is_packed(workshop):
    shutil.rmtree(workshop.home.keys)
    refused(workshop, "KEY_MISSING")


def reseal(workshop) -> None:
    (workshop.checkpoint / SEAL).unlink()
    lines = "".join(f"{digest}  {name}\n" for name, digest in hash_files(workshop.checkpoint).items())
    (workshop.checkpoint / SEAL).write_text(lines)


def refused(workshop, code: str, **changes: object) -> None:
    """Both doors refuse: the function with the code, the child with exit 30 and a note that says what to do."""
    with pytest.raises(LoradError) as caught:
        workshop.pack(**changes)
    assert caught.value.code == code
    assert caught.value.hint
    run = workshop.root / "child"
    run.mkdir()
    codec.write(run / "spec.json", workshop.task(**changes))
    note = child(run)
    assert (note.code, note.error, note.release) == (ChildExit.BAD_DATA, code, None)
    assert {path.name for path in run.iterdir()} == {"spec.json", "exit.json"}


def child(run: Path) -> ExitNote:
    before = signal.getsignal(signal.SIGTERM)
    try:
        status = main(["deploy", "pack", str(run)])
    finally:
        signal.signal(signal.SIGTERM, before)
    note = codec.read(ExitNote, run / "exit.json")
    assert status == note.code
    return note


def test_as_a_process_it_packs_without_torch(workshop):
    run = workshop.root / "09-pack"
    run.mkdir()
    codec.write(run / "spec.json", workshop.task())
    code = "import sys; from deploy.__main__ import main; status = main(sys.argv); assert 'torch' not in sys.modules; sys.exit(status)"
    done = subprocess.run([sys.executable, "-c", code, "pack", str(run)], timeout=60, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    note = codec.read(ExitNote, run / "exit.json")
    assert check_release(run / "release", workshop.home.keys)[0] == note.release
    assert {path.name for path in run.iterdir()} == {"spec.json", "exit.json", "release"}


def test_a_spec_that_is_not_whole_is_not_tried_again(tmp_path):
    (tmp_path / "spec.json").write_text('{"kind": "pa')
    assert child(tmp_path).code == ChildExit.BAD_SPEC


def test_a_run_that_has_its_release_is_not_packed_over(workshop):
    run = workshop.root / "again"
    run.mkdir()
    codec.write(run / "spec.json", workshop.task())
    first = child(run)
    before = hash_files(run / "release")
    assert child(run).error == "CHILD_CRASHED"
    assert hash_files(run / "release") == before
    assert first.code == 0


def test_wrong_words_are_a_wrong_spec():
    assert main(["deploy"]) == main(["deploy", "pack"]) == main(["deploy", "ship", "x"]) == ChildExit.BAD_SPEC
