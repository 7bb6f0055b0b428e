"""How clients are connected: HTTP/1.1 by h11 (strict about what a request is), with a bound on how long a head may take and on
how many connections there are; TLS 1.3 where the config names the files."""

import asyncio
import ssl
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from core.errors import ConfigError

HEAD_S = 10.0  # from the first byte (or the connection) to the end of the head
MOST_CONNECTIONS = 1000  # below the usual bound of 1,024 open files


class Connection(H11Protocol):  # type: ignore[misc]  # uvicorn is not looked into by the type check
    """Ends by itself when no head comes: a thousand idle connections are gone after ten seconds."""

    _head: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """asyncio's."""
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            transport.abort()
            return
        self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio's."""
        self._forget_head()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """asyncio's."""
        super().data_received(data)
        if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
            self._watch_head()
        else:
            self._forget_head()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """uvicorn's."""
        self._forget_head()
        super().handle_websocket_upgrade(event)

    def _watch_head(self) -> None:
        if self._head is None:  # one byte a second does not put it off
            self._head = self.loop.call_later(HEAD_S, self._end)

    def _forget_head(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def _end(self) -> None:
        self._head = None
        if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
            self.transport.abort()


def speak_tls(options: uvicorn.Config, cert: str, key: str) -> None:
    """Let the server speak TLS 1.3 and nothing older. Raises ConfigError TLS_FILES where the two files cannot be used."""
    options.load()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as error:
        what = f"serving.tls_cert {cert!r} and serving.tls_key {key!r} cannot be used: {error}"
        raise ConfigError(what, hint="name a certificate chain and its private key, both PEM, readable by this user", code="TLS_FILES") from None
    options.ssl = context
