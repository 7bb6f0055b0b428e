"""The other processes of a training that takes several: who starts them, how they find one another, how they end.

Process 0 is the trainer child itself. It starts the others as trainer children of a folder each, below `ranks/`, where their
logs and notes lie; they carry out the same spec and seal nothing. They end with it (a pipe that it alone holds), and it ends
with an error that names the one that ended before its time: the daemon then goes on from the newest resume point. Under
torchrun every process is there already, and in a cluster they have joined before (`trainer.backends.cluster`).
"""

import contextlib
import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from core.config import Config
from core.errors import ChildError
from core.exits import ChildExit
from core.tasks import ExitNote, TrainTask
from store import codec
from store.child import CRASHED, HOLD, TETHER, clock, is_out_of_memory
from store.runs import EXIT, LOG, SPEC
from trainer.isolation import INHERITED
from trainer.run import RunFolder
from trainer.tokenfiles import TOKENS

log = logging.getLogger(__name__)

RANKS = "ranks"
PLACE = "LORAD_RANK"
"""rank/size/port, for a process that another one started."""
TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
END_S = 30.0
LOOK_S = 0.5
GRACE_S = 20.0  # for the first process to notice by itself that another one is gone; waiting on a GPU it does not
PATIENCE = timedelta(days=1)  # of a process that waits for the others: one of them may rest for hours while its machine cools


class LostProcessError(RuntimeError):
    """A process of this training ended without a word. To the daemon it is a crash: it starts again from the newest resume point."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Which of how many processes this is. `port` on this machine is where they meet; 0: as torchrun says, or not known yet."""

    rank: int
    size: int
    port: int = 0
    torchrun: bool = False


@dataclass(frozen=True, slots=True)
class Follower:
    """One process that this one has started."""

    place: Place
    folder: Path
    child: "subprocess.Popen[bytes]"
    pipe: int  # the end that nobody writes into: it closes as this process ends, and the other ends with it


def rank_folder(run: Path, rank: int) -> Path:
    """Where process `rank` of the training in the run folder `run` writes."""
    return run / RANKS / str(rank) if rank else run


def own_folder(run: Path) -> Path:
    """The run folder of this process, where `run` was given to every process of torchrun. Makes it, with the spec, for all but the first."""
    if not is_torchrun():
        return run
    folder = rank_folder(run, int(os.environ["RANK"]))
    if folder != run:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(run / SPEC, folder / SPEC)
    return folder


def is_torchrun() -> bool:
    """Whether torchrun, or whoever sets the same variables, has started this process beside others."""
    return all(name in os.environ for name in TORCHRUN)


def spans_machines() -> bool:
    """Whether torchrun has started processes on more than this machine."""
    return is_torchrun() and os.environ["WORLD_SIZE"] != os.environ["LOCAL_WORLD_SIZE"]


def num_processes(config: Config) -> int:
    """Processes of a training: as config says, else one for each GPU that this process may use."""
    if config.distributed.processes:
        return config.distributed.processes
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return max(1, len([part for part in visible.split(",") if part.strip()]))


@contextlib.contextmanager
def joined(config: Config, task: TrainTask, run: RunFolder) -> Iterator[None]:
    """This process among those of its training, for as long as the block runs. Starts the others where it is the first.

    Does nothing where one process is enough, and where torch has joined a group already (in a cluster). Raises ChildError
    with the words of another process that failed, LostProcessError for one that ended without a word.
    """
    import torch.distributed as dist

    place = _place_here(config)
    if place.size == 1 or dist.is_initialized():
        yield
        return
    followers: list[Follower] = []
    is_over = threading.Event()
    try:
        _join(place, config, task, run, followers)
        threading.Thread(target=_watch, args=(followers, run, is_over), name="followers", daemon=True).start()
        yield
    except BaseException as error:
        is_over.set()
        if (lost := _why_lost(error, followers)) is not None:
            raise lost from error
        for follower in followers:
            follower.child.kill()
        raise
    finally:
        is_over.set()
        if dist.is_initialized():
            dist.destroy_process_group()
        _end(followers)


def _place_here(config: Config) -> Place:
    if told := os.environ.get(PLACE):
        rank, size, port = (int(part) for part in told.split("/"))
        return Place(rank=rank, size=size, port=port)
    if is_torchrun():
        return Place(rank=int(os.environ["RANK"]), size=int(os.environ["WORLD_SIZE"]), torchrun=True)
    return Place(rank=0, size=num_processes(config))


def _join(place: Place, config: Config, task: TrainTask, run: RunFolder, followers: list[Follower]) -> None:
    """Meet the other processes; those that this one starts are put into `followers`."""
    import torch
    import torch.distributed as dist

    local = int(os.environ.get("LOCAL_RANK", place.rank)) if place.torchrun else place.rank
    gpus = torch.cuda.device_count()
    if gpus:
        if local >= gpus or (not place.torchrun and place.size > gpus):
            raise ChildError(
                f"{place.size} processes are asked for and {gpus} GPUs are there",
                hint="set distributed.processes to the number of GPUs, or to 0",
                code="TOO_FEW_GPUS",
                exit_code=ChildExit.BAD_SPEC,
            )
        torch.cuda.set_device(local)
    elif not config.training.threads:
        torch.set_num_threads(max(1, torch.get_num_threads() // place.size))
    how: dict[str, Any] = {"rank": place.rank, "world_size": place.size, "timeout": PATIENCE}
    if not place.torchrun:
        loopback = "lo0" if sys.platform == "darwin" else "lo"
        for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
            os.environ.setdefault(name, loopback)
        store = dist.TCPStore("127.0.0.1", place.port, place.size, is_master=not place.rank, wait_for_workers=False)
        if not place.rank:
            followers += [_start(replace(place, rank=rank, port=store.port), task, run) for rank in range(1, place.size)]
        how["store"] = store
    run.beat()
    _wait_for_start(followers, how)
    dist.init_process_group("nccl" if gpus else "gloo", **how)
    log.info("process %d of %d (%s)", place.rank + 1, place.size, dist.get_backend())
