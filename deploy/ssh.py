"""The ssh road: two keys, one that may only write the box's `in/` and one that may only read its `out/`, and a pinned host key.

ssh reads no config of the user and asks nobody: all that it goes by stands in its command line. Each key has a connection
of its own that stays open between transfers (a pull over it takes 0.15 s instead of 0.4 s); its socket lies in the target's
folder and is named relative to it, because the path of a socket may not be longer than about 100 bytes.
"""

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from core.deployment import TargetConfig
from core.errors import StateError
from store.durable import replace_file
from store.paths import Home

Way = Literal["in", "out"]
WAYS: tuple[Way, Way] = ("in", "out")  # the key that writes in/, the key that reads out/

CONNECT_S = 10
ALIVE_S, ALIVE_COUNT = 5, 3  # a connection that has been silent for fifteen seconds is given up
PERSIST_S = 60  # how long a connection without a transfer stays open; those of a link that was killed end by it
EXIT_S = 5.0
KNOWN = "known_hosts"  # in the target's folder


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a target's ssh connections go by: private keys, and the line of the pinned host key ("ssh-ed25519 AAAA…")."""

    write_key: Path
    read_key: Path
    known_host: str

    def key(self, way: Way) -> Path:
        """The private key of one way."""
        return self.write_key if way == "in" else self.read_key


def key_path(home: Home, target: str, way: Way) -> Path:
    """Where `lorad deploy setup` puts the private key of one way; its public half lies beside it as .pub."""
    return home.keys / "ssh" / f"{target}.{'write' if way == 'in' else 'read'}"


def pinned_path(home: Home, target: str) -> Path:
    """Where `lorad deploy setup` writes the box's host key down."""
    return home.keys / "ssh" / f"{target}.host"


def credentials_of(target: TargetConfig, home: Home) -> Credentials:
    """By config, else as setup left them. Raises StateError SSH_KEY_MISSING or HOST_KEY_UNPINNED."""
    write = Path(target.key) if target.key else key_path(home, target.name, "in")
    read = Path(target.read_key) if target.read_key else key_path(home, target.name, "out")
    setup = f"`lorad deploy setup {target.name}` makes the keys and pins the host key"
    for path in (write, read):
        if not path.is_file():
            raise StateError(f"target {target.name!r}: no private key {str(path)!r}", hint=setup, code="SSH_KEY_MISSING")
    known = target.known_host or pinned_of(home, target.name)
    if not known:
        raise StateError(f"target {target.name!r}: the host key of {target.host!r} is not known yet", hint=setup, code="HOST_KEY_UNPINNED")
    return Credentials(write, read, known)


def pinned_of(home: Home, target: str) -> str:
    """The host key that setup wrote down; empty where there is none."""
    try:
        return pinned_path(home, target).read_text().strip()
    except FileNotFoundError:
        return ""


def address(target: TargetConfig) -> str:
    """user@host as ssh takes it, without brackets around an IPv6 address."""
    return f"{target.user}@{target.host}"


def remote(target: TargetConfig) -> str:
    """user@host: as rsync takes it."""
    return f"{target.user}@[{target.host}]:" if ":" in target.host else f"{target.user}@{target.host}:"


def alias_of(target: TargetConfig) -> str:
    """The name under which the host key is pinned: of the target, so that a host of another name or port keeps its key."""
    return f"lorad-{target.name}"


def pin(target: TargetConfig, home: Home, known_host: str) -> Path:
    """Write the known_hosts file that holds this one key. Returns its path; changes nothing where it is right already."""
    path, text = home.target(target.name) / KNOWN, f"{alias_of(target)} {known_host}\n"
    try:
        if path.read_text() == text:
            return path
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, text, durable=False)
    return path


def shell_words(target: TargetConfig, home: Home, way: Way, *, shared: bool = True) -> tuple[str, ...]:
    """ssh and its options for one way. `shared`: over the connection that stays open (then run it in the target's folder).

    Raises StateError where keys or pin are missing.
    """
    found = credentials_of(target, home)
    known = pin(target, home, found.known_host)
    options = {
        "BatchMode": "yes",
        "IdentitiesOnly": "yes",
        "IdentityAgent": "none",
        "PreferredAuthentications": "publickey",
        "StrictHostKeyChecking": "yes",
        "HostKeyAlias": alias_of(target),
        "UserKnownHostsFile": _word(known),
        "GlobalKnownHostsFile": "/dev/null",
        "UpdateHostKeys": "no",
        "CheckHostIP": "no",
        "ConnectTimeout": str(CONNECT_S),
        "ServerAliveInterval": str(ALIVE_S),
        "ServerAliveCountMax": str(ALIVE_COUNT),
        "ClearAllForwardings": "yes",
        "LogLevel": "ERROR",
    }
    if shared:
        options |= {"ControlMaster": "auto", "ControlPath": f"{way}.ssh", "ControlPersist": str(PERSIST_S)}
    words = ["ssh", "-F", "none", "-T", "-p", str(target.port), "-i", str(found.key(way)).replace("%", "%%")]
    for name, value in options.items():
        words += ["-o", f"{name}={value}"]
    return tuple(words)


def _word(path: Path) -> str:
    """A path inside an option of ssh, which takes blanks for the end of a word and % for a token."""
    return '"' + str(path).replace("%", "%%") + '"'


def for_rsync(words: tuple[str, ...]) -> str:
    """The words as one value of rsync's --rsh, which splits at blanks, knows quotes, and takes a doubled quote for one."""
    return " ".join("'" + word.replace("'", "''") + "'" if set(word) & {" ", '"', "'"} else word for word in words)


def hang_up(target: TargetConfig, home: Home) -> None:
    """End the connections that stay open, so that nothing of a link outlives it. Never raises for one that is gone."""
    folder = home.target(target.name)
    for way in WAYS:
        if not (folder / f"{way}.ssh").exists():
            continue
        words = ["ssh", "-F", "none", "-O", "exit", "-o", f"ControlPath={way}.ssh", address(target)]
        try:
            subprocess.run(words, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, timeout=EXIT_S, check=False)
        except (OSError, subprocess.TimeoutExpired):
            continue  # it ends by itself after PERSIST_S
