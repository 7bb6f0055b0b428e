"""A training on several machines: Ray Train starts a worker on each and joins them, then each carries out the same spec.

This process, the trainer child, is the driver: it trains nothing. The workers go through the same `PeftBackend.train` as on
one machine, the first of them writes checkpoints and resume points into the run folder. Run folder, base and rows have to
lie at the same paths on every machine (a shared folder); that is checked first. Where a worker or its machine is lost, Ray
starts the group again and it goes on from the newest sealed resume point of the run folder. A stop reaches the workers as a
file in the run folder. What a worker says at its end is a note below `ranks/`, as in any other training of several processes.

Run with two CPU workers of a local cluster; several machines and GPUs were never run.
"""

import contextlib
import logging
import os
import shutil
import signal
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from core.config import Config
from core.errors import ChildError, LoradError
from core.exits import ChildExit
from core.tasks import ExitNote, TrainTask
from store import codec
from store.child import Stopped, clock, note_of
from store.runs import EXIT, SPEC
from trainer import checkpoints
from trainer.follower import PATIENCE, RANKS, LostProcessError, rank_folder
from trainer.run import RunFolder

log = logging.getLogger(__name__)

STOP = "stop"
STORAGE = "ray"
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_TRAIN_V2_ENABLED": "1", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}
WORKER = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "RAY_TRAIN_V2_ENABLED": "1"}
BEAT_S = 1.0


def train_in_cluster(task: TrainTask, config: Config, run: RunFolder) -> None:
    """Train on the cluster of distributed.ray_address. Raises ChildError with a worker's words, Stopped, LostProcessError."""
    for rank in range(config.distributed.workers):
        (run.root / RANKS / str(rank)).mkdir(parents=True, exist_ok=True)
        (run.root / RANKS / str(rank) / EXIT).unlink(missing_ok=True)
    (run.root / STOP).unlink(missing_ok=True)
    os.environ.update(QUIET)
    import ray

    with _connected(config.distributed.ray_address), _stop_by_file(run), _beating(run):
        _require_shared([run.root, Path(task.base), *(Path(rows.folder) for rows in task.rows)])
        trainer = _trainer(config, run.root, has_gpus=ray.cluster_resources().get("GPU", 0) >= config.distributed.workers)
        try:
            trainer.fit()
        except ray.exceptions.RayError as error:
            raise LostProcessError(f"the workers of the cluster failed more than {config.training.max_attempts} times: {error}") from error
        except RuntimeError as error:  # ray.train's own errors
            raise LostProcessError(f"the workers of the cluster failed: {error}") from error
    shutil.rmtree(run.root / STORAGE, ignore_errors=True)
    _take_over(run, config.distributed.workers)


def _trainer(config: Config, root: Path, *, has_gpus: bool) -> Any:
    from ray import train
    from ray.train.torch import TorchConfig, TorchTrainer

    return TorchTrainer(
        work,
        train_loop_config={"run": str(root)},
        scaling_config=train.ScalingConfig(
            num_workers=config.distributed.workers,
            use_gpu=has_gpus,
            resources_per_worker={"GPU": 1} if has_gpus else {"CPU": 1},
            placement_strategy="SPREAD",
        ),
        torch_config=TorchConfig(backend="nccl" if has_gpus else "gloo", timeout_s=int(PATIENCE.total_seconds())),
        run_config=train.RunConfig(
            name="workers", storage_path=str(root / STORAGE), failure_config=train.FailureConfig(max_failures=config.training.max_attempts)
        ),
    )


# ---------------------------------------------------------------- a worker


class WorkerFolder(RunFolder):
    """The run folder as a worker sees it: a file in it is the wish to stop."""

    def __init__(self, root: Path, stop: Path) -> None:
        super().__init__(root)
        self._stop = stop

    def beat(self) -> None:
        """Give a sign of life, and look whether to stop."""
        super().beat()
        self.stopping = self.stopping or self._stop.exists()
        if self.stopping and self.stops_at_once:
            raise Stopped


def work(order: dict[str, str]) -> None:
    """What each worker does: the spec of the run folder, from the newest resume point there. An end that is not a crash is a note below ranks/."""
    import torch
    from ray import train
    from ray.train.torch import get_device

    from trainer.backends.peft import PeftBackend

    root, rank = Path(order["run"]), train.get_context().get_world_rank()
    if torch.cuda.is_available():
        torch.cuda.set_device(get_device())
    folder = rank_folder(root, rank)
    folder.mkdir(parents=True, exist_ok=True)
    run = WorkerFolder(folder, root / STOP)
    try:
        PeftBackend().train(_own_task(codec.read(TrainTask, root / SPEC), root), run)
        note = ExitNote(code=ChildExit.DONE, ended_at=clock())
    except (LoradError, Stopped) as error:
        note = note_of(error, ChildExit.BAD_SPEC)
    except RuntimeError:
        if any((root / RANKS).glob(f"*/{EXIT}")):
            return  # another one has ended for good: this one only saw that it was gone
        raise  # to Ray, which starts all of them again
    codec.write(root / RANKS / str(rank) / EXIT, run.results(note))


def _own_task(task: TrainTask, root: Path) -> TrainTask:
    """The task as it is on a machine: from the newest resume point that this run has made, with tokens of its own."""
    newest = checkpoints.newest_resume(root)
    distributed = {**dict(task.settings["distributed"]), "ray_address": ""}  # type: ignore[call-overload]
    return replace(
        task,
        settings={**task.settings, "distributed": distributed},
        checkpoint=str(root / newest) if newest else task.checkpoint,
        tokens="",  # locks of a shared folder are not to be relied on
    )


# ---------------------------------------------------------------- the driver


@contextlib.contextmanager
def _connected(address: str) -> Iterator[None]:
    import ray

    try:
        ray.init(address=address, logging_level="WARNING", log_to_driver=True, runtime_env={"env_vars": WORKER})
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ChildError(
            f"no Ray cluster answers at {address!r} ({error})",
            hint="start one with `ray start --head`, and name the address that it prints in distributed.ray_address",
            code="CLUSTER_UNREACHABLE",
            exit_code=ChildExit.BAD_SPEC,
        ) from None
    try:
        yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _stop_by_file(run: RunFolder) -> Iterator[None]:
    """A TERM becomes the file that the workers look at; Ray's own handler would end this process at once."""

    def on_term(signum: int, frame: object) -> None:
        run.stopping = True
        (run.root / STOP).touch()

    before = signal.signal(signal.SIGTERM, on_term)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _beating(run: RunFolder) -> Iterator[None]:
    """Signs of life until the first worker gives its own: a cluster that is busy may let us wait."""
    is_over, began = threading.Event(), run.root / "steps.jsonl"

    def beat() -> None:
        while not is_over.wait(BEAT_S) and not began.exists():
            run.beat()

    thread = threading.Thread(target=beat, name="beat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def _missing(paths: Sequence[str]) -> list[str]:
    return [path for path in paths if not Path(path).exists()]


def _require_shared(paths: Sequence[Path]) -> None:
    """Raises ChildError BAD_SPEC where a machine of the cluster does not see a path."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    look = ray.remote(num_cpus=0)(_missing)
    nodes = [node for node in ray.nodes() if node["Alive"]]
    looks = [look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote([*map(str, paths)]) for node in nodes]
    for node, look_there in zip(nodes, looks, strict=True):
        hint = "put lorad's home and its models into a folder that every machine has at the same path"
        try:
            missing = ray.get(look_there)
        except ray.exceptions.RayError as error:
            missing, hint = [f"lorad itself ({str(error).strip().splitlines()[-1]})"], "install the same lorad with its extra 'cluster' on every machine"
        if missing:
            raise ChildError(
                f"machine {node['NodeManagerAddress']} of the cluster does not see {missing[0]}", hint=hint, code="NOT_SHARED", exit_code=ChildExit.BAD_SPEC
            )


def _take_over(run: RunFolder, workers: int) -> None:
    """What the first worker came to, as if it had been done here. Raises ChildError, Stopped, LostProcessError."""
    notes = [codec.read_if_whole(ExitNote, run.root / RANKS / str(rank) / EXIT) for rank in range(workers)]
    first = notes[0]
    if first is not None:
        run.steps, run.total_steps, run.rows, run.longest = first.steps, first.total_steps, first.rows, first.longest
        run.tokens, run.seconds, run.device, run.device_memory_mb = first.tokens, first.seconds, first.device, first.memory_mb
    for rank, note in enumerate(notes):
        if note is None or note.code == ChildExit.DONE:
            continue
        if note.code == ChildExit.STOPPED and not note.error:
            raise Stopped
        raise ChildError(f"worker {rank + 1}: {note.reason}", hint=note.hint, code=note.error, exit_code=ChildExit(note.code))
    if first is None:
        raise LostProcessError("the first worker of the cluster ended without a word; its log is Ray's own")
