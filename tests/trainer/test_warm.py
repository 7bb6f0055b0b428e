"""`python -m trainer.warm` with real torch: sound forks, and trainings equal to those of a cold trainer."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from trainer_cases import SHAPE, note_of, progress_of, questions, wait_until, write_tokenizer

from core.config import Config
from core.exits import ChildExit
from core.tasks import RowsOf, ScoreModel, ScoreTask, TrainTask
from store import orders
from store.orders import Gone, Order, Ready, Release, Started
from trainer import warm
from trainer.convert import pull
from trainer.run import RunFolder

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="trainers start cold elsewhere")
THREADS = 2
BUSY_S = 0.03


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A sealed base wide enough that its products are shared among threads, and settings to train it."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    root = tmp_path_factory.mktemp("wide")
    torch.manual_seed(1)
    shape = SHAPE | {"hidden_size": 256, "intermediate_size": 768, "head_dim": 64}
    LlamaForCausalLM(LlamaConfig(**shape)).save_pretrained(root / "hf")
    write_tokenizer(root / "hf")
    made = {"model_path": str(root / "hf"), "models_dir": str(root / "models"), "batch_size": 8, "learning_rate": 5e-3, "max_length": 128}
    config = Config.model_validate({**made, "training": {"epochs": 2.0, "checkpoints": 1, "boards": [], "warmup_steps": 1}})
    return pull(config, lambda line: None), config.model_dump(mode="json")


class Zygote:
    """The daemon's side, in short."""

    def __init__(self, base: Path, log: Path) -> None:
        self.channel, theirs = orders.pair()
        self.channel.settimeout(60)
        environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        words = [sys.executable, "-m", "trainer.warm", str(theirs.fileno()), "peft", str(base)]
        with open(log, "wb") as file:
            self.process = subprocess.Popen(words, pass_fds=(theirs.fileno(),), env=environment, stderr=file, start_new_session=True)
        theirs.close()
        self.ready = self.hear()

    def hear(self) -> orders.Message | None:
        return orders.receive(self.channel)[0]

    def start(self, run: RunFolder, threads: int) -> psutil.Process:
        with open(run.root / "log.txt", "ab") as log:
            orders.send(self.channel, Order(run=str(run.root), threads=threads), (log.fileno(),))
        said = self.hear()
        assert isinstance(said, Started)
        return psutil.Process(said.pid)

    def end_of(self, child: psutil.Process) -> int:
        said = self.hear()
        assert isinstance(said, Gone)
        assert said.pid == child.pid
        orders.send(self.channel, Release(pid=child.pid))
        return said.status


@pytest.fixture(scope="module")
def zygote(wide: tuple[Path, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    made = Zygote(wide[0], tmp_path_factory.mktemp("zygote") / "warm.log")
    yield made
    made.channel.close()
    assert made.process.wait(60) == 0, "it ends with the daemon's end of the socket"


@pytest.fixture
def task(wide: tuple[Path, dict[str, Any]], drop: Callable[..., RowsOf]) -> TrainTask:
    return TrainTask(job="job-1", backend="peft", base=str(wide[0]), rows=(drop(questions(24)),), settings=wide[1])


def busy_threads(process: psutil.Process) -> int:
    """Threads that have computed; those that only load or wait are left out."""
    try:
        return sum(thread.user_time + thread.system_time >= BUSY_S for thread in process.threads())
    except psutil.Error:
        return 0


def test_a_child_trains_with_more_threads_than_its_parent_and_as_a_cold_one_does(zygote: Zygote, task: TrainTask, run_in: Callable[..., RunFolder]) -> None:
    assert isinstance(zygote.ready, Ready)
    assert zygote.ready.memory_mb > 100, "torch is loaded"
    parent = psutil.Process(zygote.process.pid)
    assert parent.num_threads() == 1
    ours, cold = (run_in(f"0{number}-train", task) for number in (1, 2))
    child, most = zygote.start(ours, THREADS), 0
    while child.status() != psutil.STATUS_ZOMBIE:
        most = max(most, busy_threads(child))
        time.sleep(0.01)
    assert zygote.end_of(child) == ChildExit.DONE, (ours.root / "log.txt").read_text()
    wait_until(lambda: not child.is_running(), "the child is gone, and with it all of a GPU's memory that it held")
    assert most == THREADS
    assert parent.num_threads() == 1, "the parent stays fit for the next fork"
    environment = os.environ | {"OMP_NUM_THREADS": str(THREADS)}
    subprocess.run([sys.executable, "-m", "trainer", str(cold.root)], env=environment, check=True, capture_output=True)
    adapters = [(run.root / note_of(run).candidates[-1].path / "adapter_model.safetensors").read_bytes() for run in (ours, cold)]
    assert adapters[0] == adapters[1], "to the bit, at as many threads"
    assert {line["network"] for line in progress_of(ours)} == {line["network"] for line in progress_of(cold)}


def test_a_training_that_cannot_be_done_says_so_as_a_cold_one(zygote: Zygote, task: TrainTask, run_in: Callable[..., RunFolder], tmp_path: Path) -> None:
    from dataclasses import replace

    run = run_in("01-train", replace(task, base=str(tmp_path / "nothing")))
    assert zygote.end_of(zygote.start(run, 1)) == ChildExit.BAD_SPEC
    assert (note_of(run).error, note_of(run).hint) == ("BASE_MISSING", "run `lorad models pull`")


def test_a_scoring_with_answers_is_forked_as_a_training_is(
    zygote: Zygote, wide: tuple[Path, dict[str, Any]], drop: Callable[..., RowsOf], run_in: Callable[..., RunFolder]
) -> None:
    rows = (drop(questions(6), ["gate"] * 6, name="drop-2"),)
    settings = wide[1] | {"ranking": {"max_new_tokens": 3}}
    models = (ScoreModel(id="base", adapter=None),)
    scoring = ScoreTask(job="job-1", backend="peft", base=str(wide[0]), rows=rows, split="gate", models=models, settings=settings, answers=2)
    run = run_in("01-score", scoring)
    assert zygote.end_of(zygote.start(run, THREADS)) == ChildExit.DONE, (run.root / "log.txt").read_text()
    assert set(note_of(run).scores) == {"gate/base", "answers/gate/base"}


def test_a_process_with_threads_is_not_fit_to_fork() -> None:
    done = threading.Event()
    other = threading.Thread(target=done.wait)
    other.start()
    try:
        with pytest.raises(RuntimeError, match="a fork could hang"):
            warm.require_unspoilt()
    finally:
        done.set()
        other.join()


def test_threads_that_are_none_of_pythons_are_seen_too() -> None:
    code = "import _thread, time; _thread.start_new_thread(time.sleep, (60,))\n"
    code += "from trainer import warm\ntry:\n    warm.require_unspoilt()\nexcept RuntimeError as error:\n    print(error)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "1 of them Python's: a fork could hang" in said


def test_a_process_that_has_begun_cuda_is_not_fit_to_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "active_count", lambda: 1)
    monkeypatch.setattr(os, "listdir", lambda path: ["7"])
    monkeypatch.setattr(os, "readlink", lambda path: "/dev/nvidia-uvm")
    with pytest.raises(RuntimeError, match="CUDA"):
        warm.require_unspoilt()


def test_a_base_is_read_ahead_unless_memory_is_too_small_for_it(wide: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert warm.read_once(wide[0]) > 1 << 20
    assert warm.read_once(tmp_path / "nothing") == 0
    monkeypatch.setattr(warm, "MOST_OF_FREE", 0.0)
    assert warm.read_once(wide[0]) == 0
