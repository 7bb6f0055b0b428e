"""What a request must pass before a route sees it, in this order: the host it calls us by, the form of its head, a known path,
a key with the route's scope, its rate, and a body of bounded size within bounded time. Then it has `serving.timeout_s` to be
answered. Afterwards it is counted, and one line of it is logged.

Keys come before rates: comparing one costs microseconds, so that a flood of wrong keys slows nobody who has a right one.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.access import SOCKET, ApiKey, Door, door_of
from core.access import Scope as KeyScope
from serving.access import exchange as exchanges
from serving.access.exchange import Exchange
from serving.access.hosts import Hosts
from serving.access.keyring import KeyRing
from serving.access.rates import Rates
from serving.failures import failure
from serving.metrics import Meter
from store.capture import Captures

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 1 << 20
BODY_S = 30.0  # for the whole body to come
MOST_HEADERS, HEADER_BYTES = 100, 16 << 10
POLICY_VIOLATION = 1008  # why a WebSocket is closed (RFC 6455)
BODILESS = ("GET", "HEAD", "OPTIONS")


@dataclass(slots=True, kw_only=True)
class Access:
    """What the guard goes by. As it is made here, without a server's config, it asks nobody for anything but a body of bounded size."""

    ring: KeyRing | None = None
    hosts: Hosts | None = None
    rates: Rates | None = None
    meter: Meter = field(default_factory=Meter)
    captures: Captures | None = None
    max_body_bytes: int = MAX_BODY_BYTES
    body_s: float = BODY_S
    timeout_s: float | None = None
    over: Callable[[Exchange], None] = lambda exchange: None
    """Told of every request that is over, on the event loop."""

    def owns(self, key: str) -> bool:
        """Whether the request that is answered here may reach what the key of that id has asked: it shows the same one, or one with the scope admin."""
        told = exchanges.current()
        own = told.key if told else ""
        return own == key or (self.ring is not None and self.ring.has_scope(own, KeyScope.ADMIN))


class Refusal(Exception):
    """The guard answers by itself."""

    def __init__(self, status: int, code: str, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    @property
    def response(self) -> Response:
        """In the form of every failed request."""
        return failure(self.status, self.message, code=self.code, headers=self.headers)


class Guard:
    """Stands around the whole application."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        method = SOCKET if scope["type"] == "websocket" else scope["method"]
        exchange = Exchange(id=secrets.token_hex(8), method=method, path=scope["path"], client=(scope.get("client") or ("",))[0])
        scope["exchange"] = exchange
        token = exchanges.enter(exchange)
        try:
            await self._answer(scope, receive, _noting(send, exchange), exchange)
        except BaseException:
            exchange.status = exchange.status or 500  # that is what the server makes of it, outside of us
            raise
        finally:
            exchanges.leave(token)
            self._access.meter.count(exchange, time.monotonic())
            self._access.over(exchange)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, exchange: Exchange) -> None:
        try:
            self._look(scope, exchange)
            if scope["type"] == "http" and scope["method"] not in BODILESS:
                receive = await self._body(scope, receive)
        except Refusal as refusal:
            exchange.refused = refusal.code
            if scope["type"] == "websocket":
                await _close(scope, receive, send, refusal)
            else:
                await refusal.response(scope, receive, send)
            return
        await self._within_time(scope, receive, send, exchange)

    def _look(self, scope: Scope, exchange: Exchange) -> None:
        headers = Headers(scope=scope)
        _check_head(headers, scope)
        access = self._access
        if access.hosts is not None:
            is_keyless = access.ring is not None and access.ring.is_keyless
            if not access.hosts.knows(headers, is_keyless=is_keyless):
                hint = "add its name to serving.hosts"
                raise Refusal(421, "host_not_allowed", f"this server is not called {headers.get('host', '')!r}, or the page that asks is another's: {hint}")
        door = exchange.door = door_of(scope["path"], exchange.method)
        if access.ring is not None and (door is None or access.ring.needs_key(door)):
            self._check_key(access.ring, door, headers, exchange)
        if door is None:
            raise Refusal(404, "not_found", f"there is no {scope['path']!r} here")
        self._check_rate(door, exchange)

    def _check_key(self, ring: KeyRing, door: Door | None, headers: Headers, exchange: Exchange) -> None:
        key = ring.find(headers.get("authorization", ""))
        if key is None and door is None and ring.is_keyless:
            return
        if key is None:
            wait = self._access.rates.fail(exchange.client) if self._access.rates else 0
            if wait:
                raise Refusal(429, "too_many_wrong_keys", f"too many requests without a right key: try again in {wait} s", retry_after=str(wait))
            message = "this needs an API key: Authorization: Bearer KEY; `lorad keys add` makes one"
            raise Refusal(401, "invalid_api_key", message, www_authenticate="Bearer", connection="close")
        exchange.key = key.id
        if door is not None and not _opens(key, door):
            scope = f'Bearer error="insufficient_scope", scope="{door.scope}"'
            raise Refusal(403, "insufficient_scope", f"this key lacks the scope {door.scope}", www_authenticate=scope)

    def _check_rate(self, door: Door, exchange: Exchange) -> None:
        if self._access.rates is None or door.is_open:
            return
        wait = self._access.rates.retry_after_s(exchange.key or exchange.client, door.name)
        if wait:
            raise Refusal(429, "rate_limit_exceeded", f"too many requests: try again in {wait} s; serving.rates is the limit", retry_after=str(wait))

    async def _body(self, scope: Scope, receive: Receive) -> Receive:
        """Read the whole body, and hand it on in one message. Raises Refusal."""
        declared = Headers(scope=scope).get("content-length", "")
        limit = self._access.max_body_bytes
        too_large = Refusal(413, "body_too_large", f"the body is larger than {limit} bytes", connection="close")
        if declared.isdecimal() and int(declared) > limit:
            raise too_large
        try:
            async with asyncio.timeout(self._access.body_s):
                body = await _read(receive, limit)
        except TimeoutError:
            raise Refusal(408, "body_too_slow", f"the body did not come within {self._access.body_s:g} s", connection="close") from None
        if body is None:
            raise too_large
        waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return waiting.pop() if waiting else await receive()

        return replay

    async def _within_time(self, scope: Scope, receive: Receive, send: Send, exchange: Exchange) -> None:
        if scope["type"] == "websocket":  # a conversation may last
            await self._app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(self._access.timeout_s):
                await self._app(scope, receive, send)
        except TimeoutError:
            if exchange.status:
                log.warning("answer was cut off after %g s", self._access.timeout_s, extra={"action": "answer_cut"})
                raise  # the head is long gone: the connection is cut, so that nobody takes half an answer for a whole one
            exchange.refused = "timeout"
            await failure(504, f"no answer within {self._access.timeout_s:g} s (serving.timeout_s)", code="timeout")(scope, receive, send)


def _check_head(headers: Headers, scope: Scope) -> None:
    if len(headers) > MOST_HEADERS or sum(len(name) + len(value) for name, value in scope["headers"]) > HEADER_BYTES:
        raise Refusal(431, "headers_too_large", f"more than {MOST_HEADERS} headers, or more than {HEADER_BYTES} bytes of them", connection="close")
    if "content-length" in headers and "transfer-encoding" in headers:  # where a proxy in front reads one and we the other, a request is smuggled
        raise Refusal(400, "ambiguous_length", "a request has content-length or transfer-encoding, not both", connection="close")


def _opens(key: ApiKey, door: Door) -> bool:
    return door.scope is None or door.scope in key.scopes


async def _read(receive: Receive, limit: int) -> bytes | None:
    """The whole body, or None where it is too large."""
    parts, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            break
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        more = message.get("more_body", False)
        if size > limit:
            return None
    return b"".join(parts)


def _noting(send: Send, exchange: Exchange) -> Send:
    async def noted(message: Message) -> None:
        if message["type"] in ("http.response.start", "websocket.http.response.start"):
            exchange.status = message["status"]
            message["headers"] = [*message.get("headers", []), (b"x-request-id", exchange.id.encode())]
        elif message["type"] == "websocket.accept":
            exchange.status = 101
        await send(message)

    return noted


async def _close(scope: Scope, receive: Receive, send: Send, refusal: Refusal) -> None:
    """Refuse a WebSocket before it is one: with the true status where the server can tell it, else 403."""
    if "websocket.http.response" in scope.get("extensions", {}):
        response = refusal.response
        await send({"type": "websocket.http.response.start", "status": response.status_code, "headers": response.raw_headers})
        await send({"type": "websocket.http.response.body", "body": response.body})
        return
    await send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": refusal.code})
