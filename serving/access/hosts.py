"""By which names clients may call this server. A page of a foreign site that makes its own name point at 127.0.0.1 (DNS
rebinding), or opens a WebSocket to us, is told apart by Host and Origin."""

from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers

LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})


class Hosts:
    """Args: host: `serving.host`. names: `serving.hosts`; where it is empty, a client with a key may use any name."""

    def __init__(self, host: str, names: Iterable[str]) -> None:
        named = {name.lower() for name in names}
        self._names = LOCAL | {host.lower()} | named
        self._is_strict = bool(named)

    def knows(self, headers: Headers, *, is_keyless: bool) -> bool:
        """Whether a request may come in. Args: is_keyless: whether it needs no key."""
        if not self._is_strict and not is_keyless:
            return True
        if len(headers.getlist("host")) != 1 or self._name(f"//{headers['host']}") not in self._names:
            return False
        origin = headers.get("origin")
        return origin is None or self._name(origin) in self._names

    def _name(self, url: str) -> str:
        try:
            return (urlsplit(url).hostname or "").rstrip(".")
        except ValueError:
            return ""
