"""A training of two processes is the training of one, up to rounding; it resumes to the bit, and knows who is gone."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from process_cases import Trouble, as_torchrun, ended, forked, free_port, run_both
from safetensors.torch import load_file
from trainer_cases import note_of, progress_of, questions, results_of, wait_until

from core.config import Config
from core.errors import ChildError
from core.exits import ChildExit
from core.tasks import RowsOf, TrainTask
from trainer.follower import joined
from trainer.run import RunFolder

RunIn = Callable[..., RunFolder]
LOSS_BOUND, WEIGHT_BOUND = 2e-5, 1e-5
"""How far two processes may be from one: nats, and the length of the difference of all weights over their own (in fp32)."""


@pytest.fixture
def task(tiny_config: Config, tiny_base: Path, drop: Callable[..., RowsOf]) -> TrainTask:
    """21 rows in steps of 4: the last step has one row, less than processes."""
    settings = tiny_config.model_dump(mode="json")
    settings["training"] |= {"checkpoints": 3, "epochs": 1.0}
    rows = drop(questions(26), ["train"] * 21 + ["dev"] * 5)
    return TrainTask(job="job-1", backend="peft", base=str(tiny_base), rows=(rows,), settings=settings)


@pytest.fixture
def started() -> Iterator[Callable[..., BaseProcess]]:
    """Starts process 0 of a training, which starts the others; what still lives at the end is killed."""
    made: list[BaseProcess] = []

    def start(run: RunFolder) -> BaseProcess:
        made.append(forked(run.root, {}, Trouble(slow_s=0.1)))
        return made[-1]

    yield start
    for process in made:
        if process.is_alive():
            process.kill()
        process.join()


def spread(task: TrainTask, **training: Any) -> TrainTask:
    """The task for two processes that this machine starts itself."""
    settings = dict(task.settings)
    return replace(task, settings={**settings, "distributed": {**settings["distributed"], "processes": 2}, "training": {**settings["training"], **training}})  # type: ignore[dict-item]


def adapter_of(run: RunFolder) -> torch.Tensor:
    weights = load_file(run.root / results_of(run).candidates[-1].path / "adapter_model.safetensors")
    return torch.cat([weights[name].flatten() for name in sorted(weights)])


def bytes_of(run: RunFolder) -> dict[str, bytes]:
    """The newest resume point."""
    folder = run.root / str(results_of(run).checkpoint)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def is_training(run: RunFolder) -> bool:
    return bool(progress_of(run)) or run.exit.exists()


def test_two_processes_make_the_training_of_one(task: TrainTask, run_in: RunIn) -> None:
    alone, both = run_in("alone", task), run_in("both", task)
    assert ended(forked(alone.root, {})) == 0
    assert run_both(both.root) == [0, 0], (both.root / "exit.json").read_text()
    ours, theirs = adapter_of(both), adapter_of(alone)
    assert float((ours - theirs).norm() / theirs.norm()) < WEIGHT_BOUND
    for one, other in zip(results_of(both).candidates, results_of(alone).candidates, strict=True):
        assert one.step == other.step
        assert one.dev_loss == pytest.approx(other.dev_loss, abs=LOSS_BOUND)
    assert progress_of(both)[-1]["loss"] == pytest.approx(progress_of(alone)[-1]["loss"], abs=LOSS_BOUND)
    assert note_of(both).steps == note_of(alone).steps == 6
    assert not (both.root / "ranks/1/checkpoints").exists(), "the first alone writes what was learnt"


def test_resumed_they_end_with_the_same_bytes_and_a_want_of_memory_in_one_halts_nobody(task: TrainTask, run_in: RunIn) -> None:
    settings: dict[str, Any] = dict(task.settings)
    task = replace(task, settings={**settings, "lora": {**settings["lora"], "dropout": 0.1}})
    whole = run_in("01-train", task)
    assert run_both(whole.root, Trouble("memory")) == [0, 0], (whole.root / "exit.json").read_text()
    cuts = [json.loads(line)["rows"] for line in (whole.root / "ranks/1/steps.jsonl").read_text().splitlines()]
    assert cuts == [4, 1], "the second process halved its cut, the first went on as it was"
    assert len((whole.root / "steps.jsonl").read_text().splitlines()) == 1
    resumed = run_in("02-train", replace(task, checkpoint=str(whole.root / "resume/step_000004")))
    assert run_both(resumed.root) == [0, 0], (resumed.root / "exit.json").read_text()
    assert note_of(resumed).checkpoint == "resume/step_000006"
    assert bytes_of(resumed) == bytes_of(whole)


def test_rows_that_make_no_number_in_one_process_are_named_by_all(task: TrainTask, run_in: RunIn) -> None:
    run = run_in("run", task)
    assert run_both(run.root, Trouble("number")) == [ChildExit.BAD_DATA] * 2
    assert "of drop 'drop-1'" in note_of(run).reason
    assert note_of(run).error == "LOSS_NOT_FINITE"


def test_a_stop_of_the_first_seals_a_resume_point_and_ends_the_others(task: TrainTask, run_in: RunIn, started: Callable[..., BaseProcess]) -> None:
    run = run_in("run", spread(task, epochs=100.0))
    first = started(run)
    wait_until(lambda: is_training(run), "a step")
    others = psutil.Process(first.pid).children()
    first.terminate()
    assert ended(first) == ChildExit.STOPPED, (run.root / "exit.json").read_text()
    assert note_of(run).checkpoint == f"resume/step_{note_of(run).steps:06d}"
    assert len(others) == 1
    assert not any(other.is_running() for other in others)


def test_a_process_that_is_killed_ends_the_training_and_is_named(task: TrainTask, run_in: RunIn, started: Callable[..., BaseProcess]) -> None:
    run = run_in("run", spread(task, epochs=100.0))
    first = started(run)
    wait_until(lambda: is_training(run), "a step")
    psutil.Process(first.pid).children()[0].kill()
    assert ended(first) == 1, "a crash: the daemon goes on from the newest resume point"
    assert "process 2 of 2 ended before its time (killed by signal 9)" in note_of(run).reason


def test_a_base_that_is_split_over_both_is_trained_as_a_whole_one(task: TrainTask, run_in: RunIn) -> None:
    settings: dict[str, Any] = dict(task.settings)
    whole, halves = run_in("whole", task), run_in("halves", replace(task, settings={**settings, "distributed": {"shard_base": "on"}}))
    assert ended(forked(whole.root, {})) == 0
    assert run_both(halves.root) == [0, 0], (halves.root / "exit.json").read_text()
    ours, theirs = adapter_of(halves), adapter_of(whole)
    assert float((ours - theirs).norm() / theirs.norm()) < WEIGHT_BOUND


@pytest.mark.full
def test_torchrun_starts_them_as_well(task: TrainTask, run_in: RunIn) -> None:
    """Each has a folder of its own below the first one's; they stay in one network, and Python keeps them from any other."""
    run = run_in("run", task)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-addr", "127.0.0.1", "--master-port", str(free_port())]
    done = subprocess.run([*command, "-m", "trainer", str(run.root)], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "process 2 of 2 (gloo)" in done.stderr
    assert note_of(run).steps == 6
    assert json.loads((run.root / "ranks/1/progress.jsonl").read_text().splitlines()[-1])["network"] == "guarded"


def test_torchrun_over_several_machines_needs_an_open_network(task: TrainTask, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**as_torchrun(4)[0], "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ChildError, match=r"training\.network is false"), joined(Config.model_validate(dict(task.settings)), task, RunFolder(Path("unused"))):
        pass
