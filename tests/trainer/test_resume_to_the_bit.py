"""A training that is killed and goes on ends with the bytes of one that was not: adapter, optimizer, random states."""

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kill_cases import MOMENTS, Fate, run_child
from trainer_cases import questions, results_of

from core.config import Config
from core.tasks import RowsOf, TrainTask
from trainer.backends.optimizer import optimizer_for
from trainer.backends.resume import Progress, RandomStates, read_progress, write_progress
from trainer.identity import Identity
from trainer.memory import STEPS
from trainer.run import RunFolder

STEPS_IN_ALL = 12
RunIn = Callable[..., RunFolder]


@pytest.fixture
def task(tiny_config: Config, tiny_base: Path, drop: Callable[..., RowsOf]) -> TrainTask:
    """24 rows with dropout, 12 steps with a checkpoint after every fourth."""
    settings = tiny_config.model_dump(mode="json")
    settings["lora"]["dropout"] = 0.1
    settings["training"] |= {"checkpoints": 3, "patience": 3}
    rows = drop(questions(28), ["train"] * 24 + ["dev"] * 4)
    return TrainTask(job="job-1", backend="peft", base=str(tiny_base), rows=(rows,), settings=settings)


def end_of(run: RunFolder, step: int = STEPS_IN_ALL) -> dict[str, bytes]:
    """Bytes of the last resume point and of the last checkpoint."""
    files = [*(run.root / f"resume/step_{step:06d}").iterdir(), *(run.root / f"checkpoints/step_{step:06d}").iterdir()]
    return {f"{path.parent.parent.name}/{path.name}": path.read_bytes() for path in files}


def cuts_of(run: RunFolder) -> list[tuple[int, int, int]]:
    """Step, rows and tokens of every change."""
    changes = [json.loads(line) for line in (run.root / STEPS).read_text().splitlines()]
    return [(change["step"], change["rows"], change["tokens"]) for change in changes]


def go_on(task: TrainTask, run_in: RunIn, killed: RunFolder, name: str) -> RunFolder:
    """A second run from the newest resume point of the killed one, as the daemon starts it."""
    checkpoint = results_of(killed).checkpoint
    resumed = run_in(name, replace(task, checkpoint=str(killed.root / checkpoint) if checkpoint else None))
    assert run_child(resumed.root) == 0, (resumed.root / "exit.json").read_text()
    return resumed


@pytest.mark.parametrize("kills", [2, pytest.param(5, marks=pytest.mark.full)])
def test_killed_at_random_steps_it_ends_with_the_same_bytes(task: TrainTask, run_in: RunIn, kills: int) -> None:
    whole = run_in("whole", task)
    assert run_child(whole.root) == 0, (whole.root / "exit.json").read_text()
    drawn = random.SystemRandom()
    for number, moment in enumerate(drawn.sample(MOMENTS, kills)):
        fate = Fate(step=drawn.randint(1, STEPS_IN_ALL - 1), moment=moment)
        killed = run_in(f"{number}1-train", task)
        assert run_child(killed.root, fate) == -9, fate
        assert not killed.exit.exists()
        resumed = go_on(task, run_in, killed, f"{number}2-train")
        assert end_of(resumed) == end_of(whole), f"{fate}, from {results_of(killed).checkpoint}"


def test_the_cuts_of_the_killed_run_are_replayed(task: TrainTask, run_in: RunIn) -> None:
    """Memory was short at step 6 of both; the resumed run has plenty, and yet makes the steps that were made. On the fast path: without dropout."""
    task = replace(task, settings={**task.settings, "lora": {**Config().lora.model_dump(mode="json"), "dropout": 0.0}})
    whole, killed, plain = (run_in(name, task) for name in ("whole", "01-train", "plain"))
    assert run_child(whole.root, Fate(short_at=(6,))) == 0
    assert run_child(plain.root) == 0
    assert run_child(killed.root, Fate(step=7, moment="after the update", short_at=(6,))) == -9
    assert [change[:2] for change in cuts_of(killed)] == [(1, 4), (6, 2), (6, 1)]
    resumed = go_on(task, run_in, killed, "02-train")
    assert cuts_of(resumed) == cuts_of(whole)
    assert end_of(resumed) == end_of(whole)
    assert end_of(resumed)["resume/optimizer.safetensors"] != end_of(plain)["resume/optimizer.safetensors"], "the cut matters to the last bits"


def test_an_8_bit_optimizer_goes_on_with_its_own_bits(tmp_path: Path) -> None:
    torch.manual_seed(0)
    params = {"a": torch.nn.Parameter(torch.randn(64, 128)), "b": torch.nn.Parameter(torch.randn(7))}
    config = Config.model_validate({"training": {"optimizer": "adamw_8bit"}})
    identity = Identity(base="b", start=None, drops={}, rows="r", num_rows=1, settings={})
    gradients = [{name: torch.randn_like(param) for name, param in params.items()} for _ in range(4)]

    def steps(own: dict[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer, made: list[dict[str, torch.Tensor]]) -> None:
        optimizer.param_groups[0]["lr"] = 1e-2
        for gradient in made:
            for name, param in own.items():
                param.grad = gradient[name].clone()
            optimizer.step()

    optimizer = optimizer_for(config, params.values())
    steps(params, optimizer, gradients[:2])
    write_progress(tmp_path, Progress(step=2, identity=identity, random=RandomStates.now(), threads=1), optimizer, params)
    other = {name: torch.nn.Parameter(param.detach().clone()) for name, param in params.items()}
    fresh = optimizer_for(config, other.values())
    assert read_progress(tmp_path, fresh, other, identity).step == 2
    steps(params, optimizer, gradients[2:])
    steps(other, fresh, gradients[2:])
    assert all(torch.equal(params[name], other[name]) for name in params)


def test_every_generator_goes_on_where_it_stood() -> None:
    RandomStates.seed(3)
    random.gauss(0, 1)  # leaves a second one in store
    states = RandomStates.now()
    drawn = [(torch.rand(2).tolist(), random.gauss(0, 1), np.random.normal()) for _ in range(2)]
    states.restore()
    assert [(torch.rand(2).tolist(), random.gauss(0, 1), np.random.normal()) for _ in range(2)] == drawn


@pytest.mark.model
def test_the_real_base_killed_at_a_random_step_ends_with_the_same_bytes(real_base: Path, drop: Callable[..., RowsOf], run_in: RunIn) -> None:
    rows = drop(questions(16), ["train"] * 12 + ["dev"] * 4)
    settings: dict[str, Any] = Config.model_validate(
        {"batch_size": 4, "learning_rate": 2e-4, "max_length": 128, "lora": {"dropout": 0.05}, "training": {"epochs": 2.0, "checkpoints": 3, "threads": 1}}
    ).model_dump(mode="json")
    task = TrainTask(job="job-1", backend="peft", base=str(real_base), rows=(rows,), settings=settings)
    whole, killed = run_in("whole", task), run_in("01-train", task)
    assert run_child(whole.root) == 0, (whole.root / "exit.json").read_text()
    fate = Fate(step=random.SystemRandom().randint(2, 5), moment="any time")
    assert run_child(killed.root, fate) == -9
    resumed = go_on(task, run_in, killed, "02-train")
    assert end_of(resumed, 6) == end_of(whole, 6), f"{fate}, from {results_of(killed).checkpoint}"
