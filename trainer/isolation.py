"""No network for a trainer: it reads files and writes files.

Where the kernel allows it (root, or user namespaces), the process moves into a network namespace of its own in which only
a loopback interface exists, so that backends that talk to themselves keep working. Elsewhere Python itself refuses to
connect: weaker, because a library in C can go around it. Which of the two it is stands in log.txt and in progress.jsonl.
"""

import contextlib
import ctypes
import fcntl
import ipaddress
import logging
import os
import socket
import struct
import sys
from enum import StrEnum

log = logging.getLogger(__name__)

CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
SIOCGIFFLAGS, SIOCSIFFLAGS = 0x8913, 0x8914
IFF_UP = 1
INHERITED = "LORAD_NETWORK"
"""What the process that started this one can reach: several processes of one training stay in one namespace, or they could not meet."""
LOCAL = frozenset({"", "localhost", "localhost.localdomain"})


class Network(StrEnum):
    """What a trainer can reach."""

    OPEN = "open"  # training.network is true
    NONE = "none"  # a namespace with loopback alone
    GUARDED = "guarded"  # Python refuses to connect; code in C could


def leave_network() -> Network:
    """Cut this process off from every network but loopback, for good. To be called before other threads exist.

    Returns how; never raises. Unix sockets of the file system stay. A process that another one started for the same
    training (INHERITED) stays where that one is.
    """
    before = os.environ.get(INHERITED)
    if before in (Network.OPEN, Network.NONE):
        return Network(before)
    if before is None and _unshare():
        with contextlib.suppress(OSError):
            _raise_loopback()
        return Network.NONE
    sys.addaudithook(_guard)
    log.warning("no network namespace may be made here: Python refuses connections instead, code in C could still connect")
    return Network.GUARDED


def _unshare() -> bool:
    """Move into a new network namespace; without the right to, inside a new user namespace in which we are who we were."""
    if sys.platform != "linux":
        return False
    unshare = ctypes.CDLL(None, use_errno=True).unshare
    if unshare(CLONE_NEWNET) == 0:
        return True
    user, group = os.geteuid(), os.getegid()
    if unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0:
        return False
    for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        with contextlib.suppress(OSError), open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)
    return True


def _raise_loopback() -> None:
    """Bring up `lo`, which is down in a new namespace."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plug:
        request = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack("16sh14x", fcntl.ioctl(plug, SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(plug, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | IFF_UP))


def _guard(event: str, arguments: tuple[object, ...]) -> None:
    """Audit hook: raises PermissionError for whatever would leave this machine."""
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        address = arguments[1]
        if isinstance(address, tuple) and not _is_local(address[0]):
            raise PermissionError(f"a trainer may not reach {address[0]!r}: training.network is false")
    elif event == "socket.getaddrinfo" and not _is_local(arguments[0]):
        raise PermissionError(f"a trainer may not look up {arguments[0]!r}: training.network is false")


def _is_local(host: object) -> bool:
    if isinstance(host, bytes):
        host = host.decode(errors="replace")
    if host is None or host in LOCAL:
        return True
    try:
        return ipaddress.ip_address(str(host).partition("%")[0]).is_loopback
    except ValueError:
        return False
