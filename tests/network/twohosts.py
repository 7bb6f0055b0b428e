"""Two hosts in one machine: network namespaces joined by a cable that can be cut, slowed, made to lose or to swallow.

Nothing here touches the machine's own network: the addresses exist inside the two namespaces only. A kernel without netem is
enough: loss comes from nftables, a black hole from a neighbour entry that leads nowhere, a slow cable from tbf.
"""

import ctypes
import itertools
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import psutil

NEAR_ADDRESS, FAR_ADDRESS = "10.77.0.1", "10.77.0.2"
NOWHERE = "02:00:00:00:00:99"  # no card has it
NEW_NET = 0x40000000  # CLONE_NEWNET
PROGRAMS = ("ip", "tc", "nsenter", "ssh", "ssh-keygen", "rsync", "rrsync")
SSHD = "/usr/sbin/sshd"

Result = TypeVar("Result")
_numbers = itertools.count()


def lacking() -> str:
    """Why this machine cannot play two hosts; empty where it can."""
    if os.geteuid() != 0:
        return "needs root: network namespaces"
    missing = [name for name in PROGRAMS if shutil.which(name) is None] + ([] if os.access(SSHD, os.X_OK) else [SSHD])
    if missing:
        return f"needs {', '.join(missing)}"
    name = f"lorad-{os.getpid()}-try"
    tried = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
    return f"no network namespaces: {tried.stderr.strip()}" if tried.returncode else ""


class Host:
    """One of the two: a namespace, and a thread of this process that lives in it."""

    def __init__(self, name: str) -> None:
        self.name = name
        _run("ip", "netns", "add", name)
        _run("ip", "-n", name, "link", "set", "lo", "up")
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name, initializer=self._move_in)

    @property
    def prefix(self) -> tuple[str, ...]:
        """Words before a command that is to run there. nsenter becomes the command: its pid is the command's."""
        return ("nsenter", f"--net=/run/netns/{self.name}")

    def within(self, do: Callable[[], Result], timeout_s: float = 120.0) -> Result:
        """`do` on a thread there: what it connects to, and what it starts, is on that host."""
        return self.start(do).result(timeout_s)

    def start(self, do: Callable[[], Result]) -> "Future[Result]":
        """The same without waiting. One thing at a time is done there."""
        return self._thread.submit(do)

    def pids(self, program: str) -> list[int]:
        """Processes of this program there."""
        told = subprocess.run(["ip", "netns", "pids", self.name], capture_output=True, text=True, check=True).stdout
        return [pid for pid in map(int, told.split()) if _program(pid) == program]

    def remove(self) -> None:
        """End every process there that this process started (by its own id nothing else can live there), and the namespace."""
        self._thread.shutdown(cancel_futures=True)
        told = subprocess.run(["ip", "netns", "pids", self.name], capture_output=True, text=True, check=False).stdout
        for pid in map(int, told.split()):
            if pid != os.getpid():
                psutil.Process(pid).kill()
        subprocess.run(["ip", "netns", "del", self.name], capture_output=True, check=False)

    def _move_in(self) -> None:
        with open(f"/run/netns/{self.name}") as place:
            if ctypes.CDLL(None, use_errno=True).setns(place.fileno(), NEW_NET):
                raise OSError(ctypes.get_errno(), f"setns into {self.name}")


class TwoHosts:
    """`near` and `far`, and the cable between them."""

    def __init__(self) -> None:
        number = next(_numbers)
        self.near, self.far = (Host(f"lorad-{os.getpid()}-{number}-{side}") for side in ("near", "far"))
        _run("ip", "link", "add", "cable", "netns", self.near.name, "type", "veth", "peer", "name", "cable", "netns", self.far.name)
        for host, address in ((self.near, NEAR_ADDRESS), (self.far, FAR_ADDRESS)):
            _run("ip", "-n", host.name, "address", "add", f"{address}/30", "dev", "cable")
            _run("ip", "-n", host.name, "link", "set", "cable", "up")

    def cut(self) -> None:
        """The cable is pulled: both sides know."""
        _run("ip", "-n", self.near.name, "link", "set", "cable", "down")

    def mend(self) -> None:
        """It is plugged in again."""
        _run("ip", "-n", self.near.name, "link", "set", "cable", "up")

    def swallow(self) -> None:
        """A black hole: the cable is up, and nothing arrives on either side."""
        for host, other in ((self.near, FAR_ADDRESS), (self.far, NEAR_ADDRESS)):
            _run("ip", "-n", host.name, "neigh", "replace", other, "lladdr", NOWHERE, "dev", "cable", "nud", "permanent")

    def let_through(self) -> None:
        """The black hole is gone."""
        for host, other in ((self.near, FAR_ADDRESS), (self.far, NEAR_ADDRESS)):
            _run("ip", "-n", host.name, "neigh", "del", other, "dev", "cable")

    def slow(self, rate: str) -> None:
        """What the near side sends goes at this rate, for example 1mbit."""
        _run("tc", "-n", self.near.name, "qdisc", "replace", "dev", "cable", "root", "tbf", "rate", rate, "burst", "32kb", "latency", "100ms")

    def hurry(self) -> None:
        """As fast as it can again."""
        _run("tc", "-n", self.near.name, "qdisc", "del", "dev", "cable", "root")

    def lose(self, percent: int) -> None:
        """So many of a hundred packets that arrive on the far side are lost. Needs nft."""
        drop = f"add rule inet loss in numgen random mod 100 < {percent} drop"
        rules = f"add table inet loss; add chain inet loss in {{ type filter hook input priority 0; }}; {drop}"
        _run(*self.far.prefix, "nft", rules)

    def lose_none(self) -> None:
        """No packet is lost any more."""
        _run(*self.far.prefix, "nft", "delete table inet loss")

    def arrived_bytes(self) -> int:
        """Bytes that the far side has received over the cable so far."""
        told = subprocess.run(["ip", "-n", self.far.name, "-j", "-s", "link", "show", "cable"], capture_output=True, check=True).stdout
        return int(json.loads(told)[0]["stats64"]["rx"]["bytes"])

    def remove(self) -> None:
        """Leave nothing behind."""
        self.near.remove()
        self.far.remove()


def _run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr.strip()}"


def _program(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""
