"""An sshd on 127.0.0.1 with its own keys and config, and a target that reaches a folder through it."""

import getpass
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

from core.deployment import TargetConfig
from deploy.confinement import authorized_lines, keys_of
from deploy.ssh import hang_up, pinned_path
from store.paths import Box, Home

DEADLINE_S = 10.0
SSHD = shutil.which("sshd", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")

needs_sshd = pytest.mark.skipif(not (SSHD and shutil.which("ssh") and shutil.which("rrsync")), reason="needs sshd, ssh and rrsync")


class Sshd:
    """A running sshd; `authorized` is its one authorized_keys."""

    def __init__(self, folder: Path, authorized: Path | None = None) -> None:
        self.folder = folder
        self.authorized = authorized or folder / "authorized"
        self.process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True)
        self.make_host_key()
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            self.port = found.getsockname()[1]

    def make_host_key(self) -> None:
        for path in self.folder.glob("host*"):
            path.unlink()
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / "host")], check=True)

    @property
    def host_key(self) -> str:
        return " ".join((self.folder / "host.pub").read_text().split()[:2])

    def start(self) -> None:
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        lines = [
            f"Port {self.port}",
            "ListenAddress 127.0.0.1",
            f"HostKey {self.folder}/host",
            "PidFile none",
            "UsePAM no",
            "StrictModes no",
            "PermitRootLogin prohibit-password",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            f"AuthorizedKeysFile {self.authorized}",
        ]
        (self.folder / "conf").write_text("\n".join(lines) + "\n")
        assert SSHD is not None
        self.process = subprocess.Popen([SSHD, "-D", "-f", str(self.folder / "conf"), "-E", str(self.folder / "log")], stdin=subprocess.DEVNULL)
        until = time.monotonic() + DEADLINE_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                assert time.monotonic() < until, (self.folder / "log").read_text()
                time.sleep(0.02)

    def stop(self) -> None:
        """End it; connections that are open stay, as with the real one."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait()
            self.process = None


class FarSide:
    """An ssh target whose keys are made and let in, behind a running sshd."""

    def __init__(self, root: Path, home: Home, name: str = "near") -> None:
        self.home = home
        self.sshd = Sshd(root / f"sshd-{name}")
        self.box = Box(root / "a box")  # with a blank, as a folder of a person may have one
        self.box.prepare()
        self.target = TargetConfig(name=name, kind="ssh", host="127.0.0.1", user=getpass.getuser(), port=self.sshd.port, path=str(self.box.root))
        self.let_in()
        pinned_path(home, name).write_text(self.sshd.host_key + "\n")
        self.sshd.start()

    def let_in(self) -> None:
        self.sshd.authorized.write_text("\n".join(authorized_lines(self.target, keys_of(self.target, self.home))) + "\n")

    def close(self) -> None:
        hang_up(self.target, self.home)
        self.sshd.stop()
