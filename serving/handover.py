"""An upgrade of the code without a dropped request.

The listening socket belongs to whoever starts the server (systemd's .socket unit) and is inherited. While the old process
ends and the new one loads its model, the kernel goes on taking connections; they wait in the backlog, and the new process
answers them. So it must not accept before it can answer, and the old one must answer all that it has accepted: it stops
accepting, says `connection: close` in every answer, and gives connections whose request is still on its way a moment.
"""

import asyncio
import ipaddress
import os
import socket
from collections.abc import MutableMapping
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.deployment import PUBLIC_HINT
from core.errors import ConfigError

FIRST_FD = 3  # sd_listen_fds(3)
LINGER_S = 1.0  # between the last accept and the end of idle connections
ENVIRONMENT = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")


def inherited(environment: MutableMapping[str, str] | None = None) -> list[socket.socket]:
    """The listening sockets that this process was started with; none where there are none. Takes the variables away."""
    environment = os.environ if environment is None else environment
    pid, count, _ = (environment.pop(name, "") for name in ENVIRONMENT)
    if pid != str(os.getpid()) or not count.isdecimal():
        return []
    listeners = [socket.socket(fileno=fd) for fd in range(FIRST_FD, FIRST_FD + int(count))]
    for listener in listeners:
        listener.set_inheritable(False)
    return listeners


def require_keys(listeners: list[socket.socket], num_keys: int) -> None:
    """Raises ConfigError where a socket listens on a public address and no API key is in force."""
    for listener in listeners:
        if not num_keys and not is_private(listener):
            what = f"{address_of(listener)} is a public address and no API key is in force"
            raise ConfigError(what, hint=PUBLIC_HINT, code="PUBLIC_WITHOUT_KEYS")


def is_private(listener: socket.socket) -> bool:
    """Whether only this machine can reach it."""
    return listener.family == socket.AF_UNIX or ipaddress.ip_address(listener.getsockname()[0]).is_loopback


def address_of(listener: socket.socket, scheme: str = "http") -> str:
    """Where it is reached, for people."""
    if listener.family == socket.AF_UNIX:
        return f"unix:{listener.getsockname()}"
    host, port = listener.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


class Farewell:
    """Once `parting` is set, every answer tells its client to come back on a new connection."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.parting = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""

        async def told(message: Message) -> None:
            if self.parting and message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), (b"connection", b"close")]
            await send(message)

        await self._app(scope, receive, told)


class HandoverServer(uvicorn.Server):  # type: ignore[misc]  # uvicorn is not looked into by the type check
    """Ends without cutting anybody off who was accepted. For inherited sockets: others end with their process anyway."""

    def __init__(self, config: Any, farewell: Farewell) -> None:
        super().__init__(config)
        self._farewell = farewell

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting, let what was accepted ask and be answered, then end as uvicorn does."""
        self._farewell.parting = True
        for server in self.servers:
            server.close()
        await asyncio.sleep(LINGER_S)
        await super().shutdown(sockets)
