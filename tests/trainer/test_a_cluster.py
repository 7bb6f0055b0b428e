"""A training on a cluster that loses a worker ends with the bytes of one that did not; a stop reaches every worker."""

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cluster_cases
import pytest
from process_cases import Trouble, run_both
from trainer_cases import note_of, questions, results_of

from core.config import Config, resolve
from core.errors import ConfigError
from core.exits import ChildExit
from core.tasks import RowsOf, TrainTask
from trainer.run import RunFolder

RunIn = Callable[..., RunFolder]


@pytest.fixture
def task(tiny_config: Config, tiny_base: Path, drop: Callable[..., RowsOf]) -> TrainTask:
    """200 steps with a checkpoint after every tenth."""
    settings = tiny_config.model_dump(mode="json")
    settings["training"] |= {"checkpoints": 20, "epochs": 1e3, "max_steps": 200, "network": True, "compile": "off"}
    return TrainTask(job="job-1", backend="peft", base=str(tiny_base), rows=(drop(questions(28), ["train"] * 24 + ["dev"] * 4),), settings=settings)


def in_cluster(task: TrainTask, **training: Any) -> TrainTask:
    settings: dict[str, Any] = dict(task.settings)
    distributed = {"ray_address": "THE-CLUSTER", "workers": 2}
    return replace(task, settings={**settings, "distributed": distributed, "training": {**settings["training"], **training}})


@pytest.mark.full
def test_a_lost_worker_costs_no_bit_and_a_stop_reaches_all(task: TrainTask, run_in: RunIn) -> None:
    whole, lost = run_in("whole", task), run_in("lost", in_cluster(task))
    stopped = run_in("stopped", in_cluster(task, max_steps=100_000))
    assert run_both(whole.root, Trouble(exact=False)) == [0, 0]
    command = [sys.executable, cluster_cases.__file__, str(lost.root), str(stopped.root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=580)
    if "no namespace" in done.stdout:
        pytest.skip("no network namespace may be made here, and Ray is started in none but its own")
    assert "lost 0" in done.stdout, done.stdout + done.stderr[-4000:]
    assert "workers 2" in done.stdout
    assert note_of(lost).steps == 200
    assert len(note_of(lost).candidates) == 20
    ours, theirs = (run.root / str(results_of(run).checkpoint) for run in (lost, whole))
    assert {path.name: path.read_bytes() for path in ours.iterdir()} == {path.name: path.read_bytes() for path in theirs.iterdir()}
    assert f"stopped {ChildExit.STOPPED}" in done.stdout, done.stdout + done.stderr[-4000:]
    assert note_of(stopped).checkpoint == f"resume/step_{note_of(stopped).steps:06d}"


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"distributed": {"ray_address": "auto"}}, "distributed.ray_address = 'auto' needs training.network = true"),
        ({"distributed": {"ray_address": "auto"}, "training": {"network": True}, "slots": 2}, "set slots to 1"),
        ({"distributed": {"processes": 4}, "slots": 2}, "slots = 2 and distributed.processes = 4"),
    ],
)
def test_machines_that_do_not_fit_are_refused_with_the_config(keys: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(told)):
        resolve({"config.json": keys})
