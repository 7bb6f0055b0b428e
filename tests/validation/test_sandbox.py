"""What a file may cost: the bounds hold, a broken one is an answer, and what this system does not know is told."""

import ctypes
import errno
import os
import resource
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from validation import sandbox
from validation.sandbox import Bounds

NETWORK = """
import errno, os, resource, socket, sys
from validation.sandbox import enter
enter()
print(resource.getrlimit(resource.RLIMIT_CORE)[0], resource.getrlimit(resource.RLIMIT_NOFILE)[0])
print([name for _, name in socket.if_nameindex()], os.geteuid(), bool(open(os.__file__).read()))
try:
    socket.create_connection(("127.0.0.1", int(sys.argv[1])), 1)
except OSError as error:
    print(errno.errorcode[error.errno])
"""
MEMORY = """
from validation.sandbox import Bounds, bounded
try:
    with bounded(Bounds(memory_mb=512)):
        bytearray(1 << 30)
except MemoryError:
    print("refused")
with bounded(Bounds(memory_mb=2048)):
    bytearray(1 << 30)
print("raised again")
"""
CPU = """
from validation.sandbox import Bounds, CpuSpentError, bounded
for _ in range(2):
    try:
        with bounded(Bounds(cpu_s=1)):
            while True:
                pass
    except CpuSpentError as error:
        print(error.code, "validation.cpu_s" in error.hint)
print(sum(range(1000)))
"""
STUCK = """
import ctypes
from validation import sandbox
sandbox.CPU_GRACE_S = 0
with sandbox.bounded(sandbox.Bounds(cpu_s=1)):
    hash((1 << 63) ** 2)
    pow(3, 1 << 30)  # one step of the interpreter, for minutes
"""
WRITING = """
import errno, sys
from validation import sandbox
sandbox.WRITTEN_SLACK_BYTES = 0
with sandbox.bounded(sandbox.Bounds(file_bytes=100)):
    try:
        with open(sys.argv[1], "wb") as out:
            out.write(b"x" * 1000)
    except OSError as error:
        print(errno.errorcode[error.errno])
"""


def run(code: str, *words: str, prefix: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run([*prefix, sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=60, check=False, env=environment)


def can_unshare(flags: str) -> bool:
    return shutil.which("unshare") is not None and subprocess.run(["unshare", flags, "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(sys.platform != "linux", reason="namespaces are Linux's")
@pytest.mark.parametrize("is_root", [True, False])
def test_the_gate_reaches_no_network_and_still_reads_its_files(is_root: bool) -> None:
    if is_root and os.geteuid() != 0:
        pytest.skip("only root keeps its user namespace")
    if not can_unshare("-n" if is_root else "-Un"):
        pytest.skip("this kernel gives no network namespace here")
    prefix: tuple[str, ...] = ()
    if not is_root and os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("setpriv (util-linux) is not here")
        prefix = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    with socket.create_server(("127.0.0.1", 0)) as server:
        done = run(NETWORK, str(server.getsockname()[1]), prefix=prefix)
    uid = 65534 if prefix else os.geteuid()
    assert done.stdout.splitlines() == ["0 512", f"['lo'] {uid} True", "ENETUNREACH"], done.stderr


def test_a_kernel_that_gives_no_namespace_is_told_in_the_log_and_nothing_fails(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    class Libc:
        def prctl(self, *_: object) -> int:
            return 0

        def unshare(self, flags: int) -> int:
            ctypes.set_errno(errno.EPERM)
            return -1

    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: Libc())
    monkeypatch.setattr(sandbox, "_lower", lambda *_: None)
    monkeypatch.setattr(sandbox.sys, "platform", "linux")
    with caplog.at_level("INFO"):
        sandbox.enter()
    assert "still there: Operation not permitted" in caplog.text


def test_more_memory_than_allowed_is_refused_and_the_next_file_may_be_allowed_more() -> None:
    done = run(MEMORY)
    assert done.stdout.splitlines() == ["refused", "raised again"], done.stderr


def test_more_cpu_than_allowed_is_said_and_the_next_file_begins_anew() -> None:
    done = run(CPU)
    assert done.stdout.splitlines() == ["CPU_LIMIT True", "CPU_LIMIT True", "499500"], done.stderr


def test_a_step_that_never_comes_back_is_ended_by_the_system() -> None:
    assert run(STUCK).returncode < 0


def test_no_more_is_written_than_a_file_of_this_size_can_need(tmp_path: Path) -> None:
    done = run(WRITING, str(tmp_path / "out"))
    assert done.stdout.splitlines() == ["EFBIG"], done.stderr
    assert (tmp_path / "out").stat().st_size == 800


def test_a_limit_that_is_set_from_outside_is_never_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (100, 1000))
    monkeypatch.setattr(resource, "setrlimit", lambda kind, limits: asked.append(limits))
    with sandbox.bounded(Bounds(memory_mb=1)):
        pass
    assert asked == [(1000, 1000), (100, 1000)], "and what stood before stands again"
