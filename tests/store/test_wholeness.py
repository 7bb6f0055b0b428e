"""A checkpoint or resume point that was torn after it was sealed does not exist: the one before it is taken (F19)."""

import json
import os
import struct
from pathlib import Path

import pytest
from homes import add_job, new_home

from core.records import JobState
from store.paths import Home
from store.runs import candidates_of, resume_point
from store.seals import seal
from store.wholeness import is_whole

BIG = 1_500_000  # above what is compared by hash


def safetensors(num_bytes: int) -> bytes:
    header = json.dumps({"w": {"dtype": "U8", "shape": [num_bytes], "data_offsets": [0, num_bytes]}}).encode()
    return struct.pack("<Q", len(header)) + header + os.urandom(num_bytes)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "step_000007"
    made.mkdir()
    (made / "adapter_model.safetensors").write_bytes(safetensors(BIG))
    (made / "optimizer.safetensors").write_bytes(safetensors(50_000))
    (made / "state.json").write_text('{"step": 7}')
    seal(made)
    return made


def test_every_cut_at_a_page_is_seen(folder: Path) -> None:
    assert is_whole(folder)
    seen = 0
    for path in folder.iterdir():
        whole = path.read_bytes()
        for length in range((len(whole) - 1) // 4096 * 4096, -1, -4096):
            os.truncate(path, length)
            assert not is_whole(folder), f"{path.name} cut at {length}"
            seen += 1
        path.write_bytes(whole + b"x")
        assert not is_whole(folder), f"{path.name} grown"
        path.unlink()
        assert not is_whole(folder), f"{path.name} gone"
        path.write_bytes(whole)
    assert seen > 350
    assert is_whole(folder)


def test_a_flipped_bit_in_a_small_file_is_seen(folder: Path) -> None:
    raw = bytearray((folder / "optimizer.safetensors").read_bytes())
    raw[-5] ^= 1
    (folder / "optimizer.safetensors").write_bytes(raw)
    assert not is_whole(folder)


def test_a_torn_one_is_not_listed_and_the_one_before_is_taken(tmp_path: Path) -> None:
    home: Home = new_home(tmp_path / "home")
    job = add_job(home, 1, state=JobState.HELD)
    second = home.runs(job) / "03-train" / "resume" / "step_000009"
    second.mkdir(parents=True)
    (second / "optimizer.safetensors").write_bytes(b"r" * 9000)
    seal(second)
    assert resume_point(home, job) == "03-train/resume/step_000009"
    (second / "optimizer.safetensors").write_bytes(b"r" * 4096)
    assert resume_point(home, job) == "01-train/resume/step_000003"
    torn = home.runs(job) / "01-train" / "checkpoints" / "step_000003" / "adapter_model.safetensors"
    torn.write_bytes(torn.read_bytes()[:-1])
    assert [candidate.step for candidate in candidates_of(home, job)] == [1, 2]
