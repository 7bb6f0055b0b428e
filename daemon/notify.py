"""Speaks sd_notify, the protocol of the service manager: ready, reloading, stopping, alive.

A message is one datagram of KEY=VALUE lines to the AF_UNIX socket named by NOTIFY_SOCKET. Without that variable nothing
is sent. WATCHDOG=1 is sent from the main loop alone, when it has got somewhere: a loop that hangs falls silent, and the
manager (WatchdogSec=) ends the process and starts another. No thread may ever send it.
"""

import logging
import os
import socket
from collections.abc import MutableMapping

from daemon.clock import monotonic_s

log = logging.getLogger(__name__)

SHARE_OF_WATCHDOG = 3  # a sign of life at most every third of WATCHDOG_USEC: two may be late
STATUS_EVERY_S = 1.0
ENVIRONMENT = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class Notifier:
    """Tells the service manager how this process fares. No call raises or blocks: a message that cannot be sent is lost."""

    def __init__(self, address: str = "", watchdog_s: float = 0.0) -> None:
        """Args: address: of the socket; "@name" is an abstract one; empty: nobody listens. watchdog_s: 0 is none."""
        self.watchdog_s = watchdog_s
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) if address else None
        self._alive_at_s = float("-inf")
        self._status_at_s = float("-inf")
        self._status = ""
        self._lost = False

    @classmethod
    def of_environment(cls, environment: MutableMapping[str, str] | None = None) -> "Notifier":
        """The notifier that this process was started with. Takes the variables away: a child must not speak for it."""
        environment = os.environ if environment is None else environment
        address, usec, pid = (environment.pop(name, "") for name in ENVIRONMENT)
        ours = not pid or pid == str(os.getpid())
        return cls(address, int(usec) / 1e6 if usec.isdecimal() and ours else 0.0)

    def ready(self, status: str) -> None:
        """The start, or a reload, is complete."""
        self._alive_at_s = monotonic_s()
        self._send("READY=1", f"STATUS={_one_line(status)}", *self._alive_line())

    def reloading(self) -> None:
        """A reload begins; `ready` ends it."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={int(monotonic_s() * 1e6)}", "STATUS=reads its config again")

    def stopping(self, status: str) -> None:
        """The end begins."""
        self._send("STOPPING=1", f"STATUS={_one_line(status)}")

    def status(self, status: str) -> None:
        """One line for `systemctl status`, where it changed; at most one a second."""
        if status != self._status and monotonic_s() - self._status_at_s >= STATUS_EVERY_S:
            self._status, self._status_at_s = status, monotonic_s()
            self._send(f"STATUS={_one_line(status)}")

    def alive(self) -> None:
        """The main loop got somewhere. Cheap: call it as often as that is so."""
        if self.watchdog_s and monotonic_s() - self._alive_at_s >= self.watchdog_s / SHARE_OF_WATCHDOG:
            self._alive_at_s = monotonic_s()
            self._send(*self._alive_line())

    def extend(self, seconds: float) -> None:
        """Ask for so much more time to start or to stop, counted from now. To be repeated while it is so."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def _alive_line(self) -> tuple[str, ...]:
        return ("WATCHDOG=1",) if self.watchdog_s else ()

    def _send(self, *lines: str) -> None:
        if self._socket is None:
            return
        try:
            self._socket.sendto("\n".join(lines).encode(), socket.MSG_DONTWAIT, self._address)
        except OSError as error:  # full, or the manager restarts: the next message counts
            if not self._lost:
                log.warning("the service manager cannot be told: %s", error, extra={"action": "notify_lost"})
            self._lost = True
        else:
            self._lost = False


def _one_line(text: str) -> str:
    return " ".join(text.split())
