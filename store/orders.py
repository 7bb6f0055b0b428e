"""The words between the daemon and its warm trainer, over a Unix socket that keeps messages apart.

The daemon orders a child and hands over open files with it (its log, the lock of its slot); the warm trainer says when it
is ready, which process it started, and how one ended. A process that ended stays unreaped, and so its number its own,
until the daemon has let it go.
"""

import json
import socket
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

MOST_BYTES = 1 << 16  # of a message
MOST_FILES = 2
NO_PROCESS = 0  # as the pid of Started: the machine gave none


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A child to start."""

    run: str  # its run folder
    threads: int  # compute threads
    environment: Mapping[str, str] = field(default_factory=dict)  # over that of the warm trainer


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """The answer to an order."""

    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """The daemon has heard how this child ended: its number may be given away."""

    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """Everything is loaded."""

    memory_mb: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Gone:
    """A child ended; `status` is negative for the signal that ended it."""

    pid: int
    status: int


Message = Order | Started | Release | Ready | Gone
KINDS: dict[str, type[Message]] = {kind.__name__: kind for kind in (Order, Started, Release, Ready, Gone)}


def pair() -> tuple[socket.socket, socket.socket]:
    """The two ends. Raises OSError where the system has no such sockets."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(channel: socket.socket, message: Message, files: Sequence[int] = ()) -> None:
    """Send a message, and copies of these descriptors with it. Raises OSError where the other end is gone."""
    text = json.dumps({"kind": type(message).__name__, **asdict(message)}).encode()
    socket.send_fds(channel, [text], list(files))


def receive(channel: socket.socket) -> tuple[Message | None, list[int]]:
    """The next message and the descriptors that came with it, which are the caller's to close; None where the other end is gone.

    Raises BlockingIOError where nothing has come and the channel does not wait.
    """
    try:
        text, files, _, _ = socket.recv_fds(channel, MOST_BYTES, MOST_FILES)
    except ConnectionResetError:
        return None, []
    if not text:
        return None, files
    words: dict[str, Any] = json.loads(text)
    return KINDS[words.pop("kind")](**words), files
