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

from core.abilities import ABILITIES
from core.config import Config
from core.errors import ChildError
from core.exits import ChildExit
from core.tasks import ExitNote, TrainTask
from store import codec
from store.child import CRASHED, HOLD, TETHER, clock, is_out_of_memory
from store.runs import EXIT, LOG, SPEC, TOKENS
from trainer.isolation import INHERITED, Network
from trainer.run import RunFolder

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
    os.environ.setdefault(INHERITED, Network.GUARDED)  # in a namespace of its own it would meet nobody
    return folder


def is_torchrun() -> bool:
    """Whether torchrun, or whoever sets the same variables, has started this process beside others."""
    return all(name in os.environ for name in TORCHRUN)


def num_processes(config: Config, backend: str) -> int:
    """Processes of a training: as config says, else one for each GPU that this process may use; one where the backend knows no more."""
    if not ABILITIES[backend].many_processes:
        return 1
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

    place = _place_here(config, task.backend)
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


def _place_here(config: Config, backend: str) -> Place:
    if told := os.environ.get(PLACE):
        rank, size, port = (int(part) for part in told.split("/"))
        return Place(rank=rank, size=size, port=port)
    if is_torchrun():
        if os.environ["WORLD_SIZE"] != os.environ["LOCAL_WORLD_SIZE"] and not config.training.network:
            raise ChildError(
                f"torchrun has started {os.environ['WORLD_SIZE']} processes on several machines, and training.network is false",
                hint="set training.network to true: the processes have to reach one another",
                code="NETWORK_CLOSED",
                exit_code=ChildExit.BAD_SPEC,
            )
        return Place(rank=int(os.environ["RANK"]), size=int(os.environ["WORLD_SIZE"]), torchrun=True)
    return Place(rank=0, size=num_processes(config, backend))


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
        how["store"] = store = dist.TCPStore(  # type: ignore[attr-defined]
            "127.0.0.1", place.port, place.size, is_master=not place.rank, wait_for_workers=False
        )
        if place.rank:
            store.set(f"here/{place.rank}", "")
        else:
            followers += [_start(replace(place, rank=rank, port=store.port), task, run) for rank in range(1, place.size)]
            _await(followers, store, run)
    dist.init_process_group("nccl" if gpus else "gloo", **how)
    log.info("process %d of %d (%s)", place.rank + 1, place.size, dist.get_backend())


def _start(place: Place, task: TrainTask, run: RunFolder) -> Follower:
    folder = rank_folder(run.root, place.rank)
    folder.mkdir(parents=True, exist_ok=True)
    codec.write(folder / SPEC, replace(task, tokens=task.tokens or str(run.root / TOKENS)))
    reading, writing = os.pipe()
    told = {PLACE: f"{place.rank}/{place.size}/{place.port}", TETHER: str(reading), INHERITED: run.network}
    environment = {name: value for name, value in os.environ.items() if name != HOLD} | told  # they rest while the first one does
    try:
        with open(folder / LOG, "ab") as logfile:
            child = subprocess.Popen(
                [sys.executable, "-m", "trainer", str(folder)],
                stdin=subprocess.DEVNULL,
                stdout=logfile,
                stderr=logfile,
                env=environment,
                pass_fds=(reading,),
                start_new_session=True,  # the end of the pipe kills a whole session
            )
    finally:
        os.close(reading)
    return Follower(place, folder, child, writing)


def _await(followers: Sequence[Follower], store: Any, run: RunFolder) -> None:
    """Until all of them are about to join. Raises LostProcessError where one ends before."""
    for follower in followers:
        while not store.check([f"here/{follower.place.rank}"]):
            if follower.child.poll() is not None:
                raise LostProcessError(_end_of(follower))
            run.beat()
            time.sleep(0.05)


def _watch(followers: Sequence[Follower], run: RunFolder, is_over: threading.Event) -> None:
    """End this process where another one is gone and this one does not notice: on a GPU it would wait for it for ever."""
    while not is_over.wait(LOOK_S):
        if lost := [follower for follower in followers if follower.child.poll() not in (None, 0)]:
            if is_over.wait(GRACE_S):
                return
            reason = _end_of(lost[0])
            log.error("%s", reason)
            codec.write(run.exit, run.results(ExitNote(code=CRASHED, ended_at=clock(), reason=reason, error="PROCESS_LOST")))
            os._exit(CRASHED)


def _why_lost(error: BaseException, followers: Sequence[Follower]) -> Exception | None:
    """Where `error` of this process comes from the end of another one: what that one has to say. Waits a little for their ends."""
    if not followers or isinstance(error, LostProcessError | ChildError) or not isinstance(error, RuntimeError) or is_out_of_memory(error):
        return None
    deadline = time.monotonic() + END_S / 3
    for follower in followers:
        with contextlib.suppress(subprocess.TimeoutExpired):
            follower.child.wait(max(0.0, deadline - time.monotonic()))
    ended = [follower for follower in followers if follower.child.poll() not in (None, 0)]
    # Who was lost without a word comes first, then who knows why; the others have only seen that somebody was gone.
    for follower in sorted(ended, key=lambda follower: {None: 0, CRASHED: 2}.get(_code(follower), 1)):
        note = _note(follower)
        if note is not None and note.code in list(ChildExit):
            return ChildError(f"process {follower.place.rank + 1}: {note.reason}", hint=note.hint, code=note.error, exit_code=ChildExit(note.code))
        return LostProcessError(_end_of(follower))
    return None


def _code(follower: Follower) -> int | None:
    note = _note(follower)
    return note.code if note else None


def _note(follower: Follower) -> ExitNote | None:
    return codec.read_if_whole(ExitNote, follower.folder / EXIT)


def _end_of(follower: Follower) -> str:
    note, status = _note(follower), follower.child.returncode
    why = note.reason if note else f"killed by signal {-status}" if status < 0 else f"exit status {status}"
    return f"process {follower.place.rank + 1} of {follower.place.size} ended before its time ({why}); its log is {RANKS}/{follower.place.rank}/{LOG}"


def _end(followers: Sequence[Follower]) -> None:
    for follower in followers:
        try:
            follower.child.wait(END_S)
        except subprocess.TimeoutExpired:
            follower.child.kill()
            follower.child.wait()
        os.close(follower.pipe)
