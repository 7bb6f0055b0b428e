"""Trainings of several processes, forked from one that has imported everything. Imported by the children too."""

import multiprocessing
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

DEADLINE_S = 60.0


@dataclass(frozen=True)
class Trouble:
    """What the second process meets in step 2, once: out of memory, or a loss that is no number."""

    kind: str = ""
    slow_s: float = 0.0
    """Of every step of the first process."""
    exact: bool = True
    """Whether all of them compute in fp32, whatever the machine can do."""


def live(root: str, environment: Mapping[str, str], trouble: Trouble) -> None:
    """Carry out the spec in `root`."""
    os.environ.update(environment)
    import torch

    from trainer import __main__ as child
    from trainer.backends import training
    from trainer.backends.model import Place

    Training: Any = training.Training
    if trouble.exact:
        training.choose_place = lambda: Place(device="cpu", dtype=torch.float32)

    real, met = Training._gradients, []

    def gradients(self: Any, step: int, examples: Any, batches: Any) -> Any:
        time.sleep(trouble.slow_s)
        if trouble.kind and self.world.rank == 1 and step == 2 and not met:
            met.append(step)
            if trouble.kind == "memory":
                raise MemoryError
            raise self._not_finite("the loss", batches[0])
        return real(self, step, examples, batches)

    Training._gradients = gradients  # type: ignore[method-assign]
    os._exit(child.main([root]))


def forked(root: Path, environment: Mapping[str, str], trouble: Trouble = Trouble()) -> BaseProcess:
    """A trainer child on that folder."""
    context: Any = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["trainer.__main__", "trainer.backends.peft", "trainer.backends.training", "kill_cases", "process_cases"])
    process: BaseProcess = context.Process(target=live, args=(str(root), dict(environment), trouble))
    process.start()
    return process


def ended(process: BaseProcess) -> int | None:
    """Its exit status."""
    process.join(DEADLINE_S)
    if process.is_alive():
        process.kill()
        process.join()
        raise AssertionError(f"process {process.pid} did not end in {DEADLINE_S} s")
    return process.exitcode


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def as_torchrun(size: int) -> list[dict[str, str]]:
    """The environment of each process, as torchrun sets it."""
    shared = {"WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "GLOO_SOCKET_IFNAME": "lo"}
    return [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(size)]


def run_both(root: Path, trouble: Trouble = Trouble()) -> list[int | None]:
    """The exit statuses of two processes that carry out the spec in `root` together."""
    processes = [forked(root, environment, trouble) for environment in as_torchrun(2)]
    return [ended(process) for process in processes]
