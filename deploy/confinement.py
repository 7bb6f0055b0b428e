"""The two keys of an ssh target, made here, and the lines that confine them there.

Each key may do one thing on the box: the first write below `in/`, the second read below `out/`, both by rrsync, neither with
a shell, a forwarded port or a terminal. `-munge` makes links harmless, `-no-del` keeps a sender from deleting, `-no-lock`
lets a wish pass beside a long transfer (the lock against two copiers is on the near side).
"""

import os
import shlex
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from core.deployment import TargetConfig
from core.errors import StateError
from deploy.ssh import WAYS, Way, key_path
from store.durable import create_file, sync_dir
from store.paths import Home

RRSYNC = {"in": "rrsync -wo -no-lock -no-del -munge", "out": "rrsync -ro -no-lock"}
MARK = "lorad"  # begins the comment of each key


@dataclass(frozen=True, slots=True)
class KeyPair:
    """Where a private key lies, and the line of its public half ("ssh-ed25519 AAAA… comment")."""

    private: Path
    public: str


def make_key(path: Path, comment: str) -> KeyPair:
    """An ed25519 key in OpenSSH's format at `path`, 0600, its public half beside it; one that is there is kept. Raises StateError for a damaged one."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not path.exists():
        made = Ed25519PrivateKey.generate().private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption())
        create_file(path, made, mode=0o600)
    public_path = _public(path)
    public = f"{public_of(path)} {comment}"
    if not public_path.exists():
        create_file(public_path, f"{public}\n".encode())
    return KeyPair(path, public)


def public_of(private: Path) -> str:
    """The public half of a private key as OpenSSH writes it. Raises StateError."""
    try:
        key = serialization.load_ssh_private_key(private.read_bytes(), password=None)
        raw = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    except (OSError, ValueError, TypeError) as error:
        hint = "move it away and run `lorad deploy setup` again: it makes another"
        raise StateError(f"private key {str(private)!r}: {error}", hint=hint, code="SSH_KEY_DAMAGED") from None
    return raw.decode()


def keys_of(target: TargetConfig, home: Home) -> dict[Way, KeyPair]:
    """Both keys of a target, made where they are missing. Raises StateError."""
    named = {"in": target.key, "out": target.read_key}
    found: dict[Way, KeyPair] = {}
    for way in WAYS:
        path = Path(named[way]) if named[way] else key_path(home, target.name, way)
        found[way] = make_key(path, _comment(target, way))
    return found


def new_keys_of(target: TargetConfig, home: Home) -> dict[Way, KeyPair]:
    """The pair that is to replace the keys that setup made, beside them as .new; made where it is missing. Raises StateError."""
    return {way: make_key(_next(key_path(home, target.name, way)), _comment(target, way)) for way in WAYS}


def put_in_place(target: TargetConfig, home: Home) -> None:
    """The new pair replaces the old one."""
    for way in WAYS:
        path = key_path(home, target.name, way)
        for old, new in ((path, _next(path)), (_public(path), _public(_next(path)))):
            os.replace(new, old)
        sync_dir(path.parent)


def _next(path: Path) -> Path:
    return path.with_name(f"{path.name}.new")


def _public(path: Path) -> Path:
    return path.with_name(f"{path.name}.pub")


def _comment(target: TargetConfig, way: Way) -> str:
    return f"{MARK}-{target.name}-{'write' if way == 'in' else 'read'}"


def authorized_lines(target: TargetConfig, keys: dict[Way, KeyPair]) -> list[str]:
    """The two lines for the authorized_keys of the target's user."""
    return [f"{confined(target.path, way)} {keys[way].public}" for way in WAYS]


def confined(path: str, way: Way) -> str:
    """The options in front of a key: nothing but rrsync in one folder of the box."""
    command = f"{RRSYNC[way]} {shlex.quote(f'{path}/{way}')}".replace("\\", "\\\\").replace('"', '\\"')
    return f'restrict,command="{command}"'
