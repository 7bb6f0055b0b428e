"""An sshd on the far host that knows two keys and nothing else: one may write the box's `in/`, one may read its `out/`."""

import os
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from twohosts import FAR_ADDRESS, SSHD, Host

from core.deployment import TargetConfig
from store.paths import Box

PORT = 22
START_S = 10.0


class ConfinedKeys:
    """Host key, two client keys and the sshd that goes by them. `authorize` says what each key may do."""

    def __init__(self, folder: Path, far: Host, box: Box) -> None:
        self.folder, self.far, self.box = folder, far, box
        folder.mkdir(mode=0o700)
        for name in ("host", "write", "read"):
            self.make(name)
        self.authorize()
        self._pid_file = folder / "sshd.pid"
        self._config = folder / "sshd_config"
        self._config.write_text("".join(f"{line}\n" for line in self._lines()))

    def _lines(self) -> tuple[str, ...]:
        return (
            f"Port {PORT}",
            f"ListenAddress {FAR_ADDRESS}",
            f"HostKey {self.folder / 'host'}",
            f"PidFile {self.folder / 'sshd.pid'}",
            f"AuthorizedKeysFile {self.folder / 'authorized_keys'}",
            "UsePAM no",
            "StrictModes no",
            "PasswordAuthentication no",
            "ClientAliveInterval 2",
            "ClientAliveCountMax 2",
        )

    def make(self, name: str) -> None:
        """A new key pair in place of the one of this name."""
        for path in (self.folder / name, self.folder / f"{name}.pub"):
            path.unlink(missing_ok=True)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(self.folder / name)], check=True)

    def public(self, name: str) -> str:
        """`ssh-ed25519 AAAA…` of a key."""
        return " ".join((self.folder / f"{name}.pub").read_text().split()[:2])

    def authorize(self) -> None:
        """The two lines of authorized_keys."""
        confined = shutil.which("rrsync")
        lines = (
            f'command="{confined} -wo -no-lock -no-del -munge {self.box.incoming.parent}",restrict {self.public("write")}',
            f'command="{confined} -ro -no-lock {self.box.out}",restrict {self.public("read")}',
        )
        (self.folder / "authorized_keys").write_text("".join(f"{line}\n" for line in lines))

    def target(self, **changes: object) -> TargetConfig:
        """The box as the training box's config names it."""
        values = {"name": "cellar", "kind": "ssh", "host": FAR_ADDRESS, "user": "root", "port": PORT, "path": str(self.box.root)}
        values |= {"key": str(self.folder / "write"), "read_key": str(self.folder / "read"), "known_host": self.public("host")}
        return TargetConfig.model_validate(values | changes)

    def start(self) -> None:
        """Start sshd and wait until it listens."""
        Path("/run/sshd").mkdir(exist_ok=True)
        self._pid_file.unlink(missing_ok=True)
        subprocess.run([*self.far.prefix, SSHD, "-f", str(self._config), "-E", str(self.folder / "sshd.log")], check=True, capture_output=True)
        until = time.monotonic() + START_S
        while not self._pid_file.exists() or not self._pid_file.read_text().strip():
            assert time.monotonic() < until, (self.folder / "sshd.log").read_text()

    def stop(self) -> None:
        """Kill sshd and every connection that it holds, as a reboot of the far side does."""
        for pid in [*self.far.pids("sshd"), *self.far.pids("sshd-session")]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def ssh(self, key: str, *words: str) -> subprocess.CompletedProcess[str]:
        """ssh with a key, as a thief of it would from the near host; `words` are further options and a command."""
        return subprocess.run([*self._client(key), *words], capture_output=True, text=True, check=False, timeout=20, stdin=subprocess.DEVNULL)

    def rsync(self, key: str, *words: str) -> subprocess.CompletedProcess[str]:
        """rsync with a key; `BOX:` in front of a name is the box."""
        command = ["rsync", "-e", " ".join(self._client(key)[:-1]), *(word.replace("BOX:", f"root@{FAR_ADDRESS}:") for word in words)]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=20, stdin=subprocess.DEVNULL)

    def _client(self, key: str) -> list[str]:
        known = self.folder / "known"
        known.write_text(f"{FAR_ADDRESS} {self.public('host')}\n")
        options = ["-i", str(self.folder / key), "-o", "IdentitiesOnly=yes", "-o", f"UserKnownHostsFile={known}", "-o", "BatchMode=yes"]
        return ["ssh", "-F", "none", *options, "-o", "ConnectTimeout=5", f"root@{FAR_ADDRESS}"]
