"""What a request must pass before a route sees it: an API key where keys are set, and a body of bounded size."""

import hmac
from pathlib import Path

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.errors import ConfigError
from serving.failures import failure

MAX_BODY_BYTES = 1 << 20
OPEN_PATHS = frozenset({"/health"})


def read_keys(path: str) -> tuple[bytes, ...]:
    """The API keys in a file, one a line; blank lines and lines with # in front are left out. No path: no keys.

    Raises ConfigError where the file is missing, unreadable or holds no key.
    """
    if not path:
        return ()
    try:
        lines = Path(path).read_bytes().splitlines()
    except OSError as error:
        raise ConfigError(f"serving.api_keys_file {path!r}: {error.strerror}", hint="write one key a line into it", code="API_KEYS_MISSING") from None
    keys = tuple(line.strip() for line in lines if line.strip() and not line.strip().startswith(b"#"))
    if not keys:
        raise ConfigError(f"serving.api_keys_file {path!r} holds no key", hint="write one key a line into it", code="API_KEYS_EMPTY")
    return keys


class KeyGuard:
    """401 for every request without one of the keys, except on open paths."""

    def __init__(self, app: ASGIApp, keys: tuple[bytes, ...]) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] == "http" and self._keys and scope["path"] not in OPEN_PATHS and not self._knows(Headers(scope=scope)):
            refusal = failure(401, "this server needs an API key: Authorization: Bearer KEY", code="invalid_api_key", headers={"www-authenticate": "Bearer"})
            await refusal(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _knows(self, headers: Headers) -> bool:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        raw = given.strip().encode("latin-1")
        # Every key is compared, so that the time tells nothing about which one was near.
        matches = [hmac.compare_digest(raw, key) for key in self._keys]
        return scheme.lower() == "bearer" and any(matches)


class BodyGuard:
    """413 for a body over the limit. Reads the body before the route does, and hands it on in one message."""

    def __init__(self, app: ASGIApp, max_bytes: int = MAX_BODY_BYTES) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):
            await self._app(scope, receive, send)
            return
        body = await self._read(Headers(scope=scope).get("content-length", ""), receive)
        if body is None:
            refusal = failure(413, f"the body is larger than {self._max_bytes} bytes", code="body_too_large", headers={"connection": "close"})
            await refusal(scope, receive, send)
            return
        waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return waiting.pop() if waiting else await receive()

        await self._app(scope, replay, send)

    async def _read(self, declared: str, receive: Receive) -> bytes | None:
        """The whole body, or None where it is too large."""
        if declared.isdecimal() and int(declared) > self._max_bytes:
            return None
        parts, size, more = [], 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                break
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            more = message.get("more_body", False)
            if size > self._max_bytes:
                return None
        return b"".join(parts)
