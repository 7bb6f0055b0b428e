"""A machine of its own: real systemd as PID 1 of a container without a network, set up by scripts/install alone.

What is slow to fetch is kept in the user's cache (lorad/tests): a Debian root made by debootstrap, and the packages that
lorad needs. LORAD_TEST_ROOTFS names another root. Needs root, systemd-container and debootstrap.
"""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

PROJECT = Path(__file__).parents[2]
SUITE = "bookworm"
PACKAGES = "systemd,systemd-sysv,dbus,python3,python3-venv,procps,rsync,openssh-server,libgomp1"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lorad" / "tests"
QUIET = ("apt-daily.timer", "apt-daily-upgrade.timer", "e2scrub_all.timer", "dpkg-db-backup.timer")
NEEDS = ("debootstrap", "systemd-nspawn", "nsenter", "setsid")
EXTRAS = "gate,alerts"  # the stub backend needs no torch
ENGINE = "llamacpp"  # of a machine that serves without torch
BOOT_S = 60.0


def missing() -> str:
    """What this machine lacks to run a container; empty: nothing."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "root on Linux is needed"
    if sys.version_info[:2] != (3, 11):
        return "the container has Python 3.11, so the packages are fetched by a Python 3.11"
    absent = [name for name in NEEDS if shutil.which(name) is None]
    return f"not installed: {', '.join(absent)} (apt-get install systemd-container debootstrap)" if absent else ""


def rootfs() -> Path:
    """The cached Debian root. Made in about a minute the first time."""
    named = os.environ.get("LORAD_TEST_ROOTFS")
    root = Path(named) if named else CACHE / f"root-{hashlib.sha256(PACKAGES.encode()).hexdigest()[:8]}"
    if not (root / "etc" / "debian_version").exists() or (root / "debootstrap").exists():
        shutil.rmtree(root, ignore_errors=True)
        root.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["debootstrap", "--variant=minbase", f"--include={PACKAGES}", SUITE, str(root)], check=True, capture_output=True)
    return root


def wheels() -> Path:
    """The cached packages that lorad needs, for an installation without a network. Fetched with pip the first time."""
    extras = f"{EXTRAS},{ENGINE}"
    key = hashlib.sha256((PROJECT / "pyproject.toml").read_bytes() + (PROJECT / "constraints.txt").read_bytes() + extras.encode()).hexdigest()[:8]
    folder = CACHE / f"wheels-{key}"
    if not folder.exists():
        aside = folder.with_suffix(".making")
        words = [
            "download",
            "--quiet",
            "--dest",
            str(aside),
            "--constraint",
            str(PROJECT / "constraints.txt"),
            f"{PROJECT}[{extras}]",
            "setuptools>=77",
            "wheel",
        ]
        subprocess.run([sys.executable, "-m", "pip", *words], check=True, capture_output=True)
        aside.rename(folder)
    return folder


class Box:
    """One container. `network` names a network namespace that it takes for its own. `end` powers it off and removes it."""

    def __init__(self, root: Path, network: str = "") -> None:
        self.root = root
        self._network = f"--network-namespace-path=/run/netns/{network}" if network else "--private-network"
        subprocess.run(["cp", "--archive", "--reflink=auto", str(rootfs()), str(root)], check=True)
        for unit in QUIET:
            (root / "etc/systemd/system" / unit).symlink_to("/dev/null")
        self.put_project()
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._leader = 0

    def put_project(self) -> None:
        """Copy the project in, as a person would who unpacked it."""
        place = self.root / "root" / "lorad"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(PROJECT, place, ignore=shutil.ignore_patterns(".[a-z]*", "__pycache__", "*.egg-info", "var", "tests"))

    def boot(self) -> float:
        """Power on. Returns the seconds until systemd says that it runs."""
        began = time.monotonic()
        command = ["systemd-nspawn", "--quiet", "-D", str(self.root), "--hostname=lorad-box", "--register=no", "--keep-unit", self._network]
        with open(self.root.with_name("boot.log"), "ab") as log:
            self._nspawn = subprocess.Popen(
                [*command, f"--bind-ro={wheels()}:/mnt/wheels", "--boot"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self.wait(self._is_up, "systemd runs", BOOT_S)
        return time.monotonic() - began

    def _is_up(self) -> bool:
        assert self._nspawn is not None
        children = psutil.Process(self._nspawn.pid).children()
        self._leader = children[0].pid if children else 0
        return bool(children) and self.run("systemctl", "is-system-running", check=False).stdout.strip() in ("running", "degraded")

    def power_off(self) -> None:
        """As the power button does it: every unit is stopped."""
        assert self._nspawn is not None
        os.kill(self._leader, signal.SIGRTMIN + 4)
        self._nspawn.wait(BOOT_S)

    def end(self) -> None:
        if self._nspawn is not None and self._nspawn.poll() is None:
            os.kill(self._leader, signal.SIGKILL)
            self._nspawn.wait(BOOT_S)
        shutil.rmtree(self.root, ignore_errors=True)

    def inside(self, *words: str) -> list[str]:
        """The command that runs these words inside."""
        return ["nsenter", "-t", str(self._leader), "-a", "--", *words]

    def run(self, *words: str, check: bool = True, text: str | None = None) -> subprocess.CompletedProcess[str]:
        """A command inside, to its end."""
        done = subprocess.run(self.inside(*words), input=text, stdin=None if text else subprocess.DEVNULL, capture_output=True, text=True, check=False)
        assert done.returncode == 0 or not check, f"{words} ended with {done.returncode}: {done.stdout}{done.stderr}"
        return done

    def lorad(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.run("/usr/local/bin/lorad", *words, check=check)

    def install(self, *words: str, extras: str = EXTRAS) -> str:
        """scripts/install, from the packages that were brought along. Returns what it said."""
        return self.run("bash", "/root/lorad/scripts/install", "--wheels", "/mnt/wheels", "--extras", extras, *words).stdout

    def show(self, unit: str, key: str) -> str:
        """A property of a unit."""
        return self.run("systemctl", "show", unit, "-p", key, "--value").stdout.strip()

    def pid(self, unit: str) -> int:
        """The main pid of a unit that runs, as it is called inside."""
        return int(self.wait(lambda: int(self.show(unit, "MainPID")) if self.show(unit, "ActiveState") == "active" else 0, f"{unit} runs"))

    def journal(self, unit: str) -> str:
        return self.run("journalctl", "-u", unit, "--no-pager", "-o", "cat").stdout

    def read(self, path: str) -> str:
        return (self.root / path.lstrip("/")).read_text()

    def json(self, path: str) -> Any:
        return json.loads(self.read(path))

    def write(self, path: str, text: str) -> None:
        place = self.root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)

    def wait(self, condition: Callable[[], Any], what: str, timeout_s: float = 60.0) -> Any:
        """The first true value of `condition`."""
        end = time.monotonic() + timeout_s
        while not (value := condition()):
            assert time.monotonic() < end, f"not within {timeout_s:.0f} s: {what}\n{self._describe()}"
            time.sleep(0.05)
        return value

    def _describe(self) -> str:
        if not self._leader:
            return self.root.with_name("boot.log").read_text(errors="replace")
        return "\n".join(self.run("journalctl", "-u", unit, "-n", "30", "--no-pager", check=False).stdout for unit in ("lorad", "lorad-serve"))
