"""The other processes of a training that takes several.

Process 0 is the trainer child itself. It starts the others as trainer children of a folder each, below `ranks/`, where their
logs and notes lie; they carry out the same spec and seal no checkpoint. They end with it (a pipe that it alone holds), and
it ends with an error where one of them ends before its time: the daemon then goes on from the newest resume point.
"""

import contextlib
import json
import logging
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from core.config import Config
from core.tasks import TrainTask
from store.child import TETHER
from store.runs import SPEC
from trainer.run import RunFolder

log = logging.getLogger(__name__)

RANKS = "ranks"
PLACE = "LORAD_RANK"
"""rank/size/port, for a process that is one of several."""
END_S = 30.0


def num_processes(config: Config) -> int:
    """Processes of a training: as config says, else one for each GPU that this process may use."""
    if config.distributed.processes:
        return config.distributed.processes
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return max(1, len([part for part in visible.split(",") if part.strip()]))


@contextlib.contextmanager
def joined(config: Config, task: TrainTask, run: RunFolder) -> Iterator[None]:
    """This process among those of its training, for as long as the block runs. Starts them where this is the first.

    Does nothing where one process is enough, and where torch has joined a group already (under torchrun, or in a cluster).
    """
    import torch.distributed as dist

    if dist.is_initialized():
        yield
        return
    place = os.environ.get(PLACE)
    size = num_processes(config)
    if place is None and size == 1:
        yield
        return
    rank, size, port = (int(part) for part in place.split("/")) if place else (0, size, _free_port())
    followers = [] if place else [_start(run.root, number, size, port) for number in range(1, size)]
    try:
        _join(rank, size, port)
        yield
    except BaseException:
        if reason := _first_failure(run.root):
            log.error("%s", reason)
        for child in followers:
            child.kill()
        raise
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
        _end(followers)


def _join(rank: int, size: int, port: int) -> None:
    import torch
    import torch.distributed as dist

    gpu = torch.cuda.is_available()
    if gpu:
        torch.cuda.set_device(rank % torch.cuda.device_count())
    dist.init_process_group("nccl" if gpu else "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=size)
    log.info("process %d of %d (%s)", rank + 1, size, dist.get_backend())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _start(root: Path, rank: int, size: int, port: int) -> "subprocess.Popen[bytes]":
    folder = root / RANKS / str(rank)
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(root / SPEC, folder / SPEC)
    reading, writing = os.pipe()  # the other end closes with this process
    os.set_inheritable(reading, True)
    environment = os.environ | {PLACE: f"{rank}/{size}/{port}", TETHER: str(reading)}
    with open(folder / "log.txt", "ab") as told:
        child = subprocess.Popen(
            [sys.executable, "-m", "trainer", str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=told,
            stderr=told,
            env=environment,
            pass_fds=(reading,),
            start_new_session=True,
        )
    os.close(reading)
    _held.append(writing)
    return child


_held: list[int] = []
"""Ends of pipes that nobody writes into: they close as this process ends, and the others end with them."""


def _end(followers: list["subprocess.Popen[bytes]"]) -> None:
    for child in followers:
        try:
            child.wait(END_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    for pipe in _held:
        os.close(pipe)
    _held.clear()


def _first_failure(root: Path) -> str:
    """What the others say about their end: the first reason that is no success; empty where there is none."""
    for path in sorted((root / RANKS).glob("*/exit.json")):
        with contextlib.suppress(OSError, ValueError):
            note = json.loads(path.read_bytes())
            if note.get("code"):
                return f"process {path.parent.name}: {note.get('reason', '')}"
    return ""
