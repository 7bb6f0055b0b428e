"""Who may ask what of a server: scopes, API keys, and one table of the routes with the scope of each.

The table is an allow-list: a path that stands in none of its rows is answered with 404 before any route is looked for.
"""

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

RATE = re.compile(r"[1-9][0-9]{0,8}/(second|minute|hour|day)")
EVERY_ROUTE = "*"  # in serving.rates: all of one client's requests together
DEFAULT_RATES = {"feedback": "12000/minute"}  # where serving.rates says nothing of the route: what is taken lies on two disks
MARK = "lorad"


class Scope(StrEnum):
    """What a key opens. No scope holds another."""

    INFER = "infer"
    FEEDBACK = "feedback"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A key as the box keeps it: never the key itself, only an HMAC of it."""

    id: str
    name: str  # a person's word for it
    scopes: tuple[Scope, ...]
    digest: str  # HMAC-SHA-256 of the whole key, hex
    made_at: datetime
    revoked_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """Routes of one kind. `name` is their word in serving.rates, logs and metrics; a path with * at its end stands for all that begin so."""

    name: str
    methods: tuple[str, ...]
    path: str
    scope: Scope | None = None  # None: any key
    is_open: bool = False  # no key at all

    def fits(self, path: str) -> bool:
        """Whether `path` is one of it."""
        return path.startswith(self.path[:-1]) if self.path.endswith("*") else path == self.path


GET, POST, DELETE, SOCKET = "GET", "POST", "DELETE", "WEBSOCKET"
TALK = "/api/ai-echo"

DOORS = (
    Door(name="health", methods=(GET,), path="/health", is_open=True),
    Door(name="ready", methods=(GET,), path="/ready"),
    Door(name="metrics", methods=(GET,), path="/metrics"),
    Door(name="openapi", methods=(GET,), path="/openapi.json"),
    Door(name="models", methods=(GET,), path="/v1/models", scope=Scope.INFER),
    Door(name="models", methods=(GET,), path="/v1/models/*", scope=Scope.INFER),
    Door(name="chat", methods=(POST,), path="/v1/chat/completions", scope=Scope.INFER),
    Door(name="captured", methods=(DELETE,), path="/v1/chat/completions/*", scope=Scope.INFER),
    Door(name="completions", methods=(POST,), path="/v1/completions", scope=Scope.INFER),
    Door(name="embeddings", methods=(POST,), path="/v1/embeddings", scope=Scope.INFER),
    Door(name="adapters", methods=(POST,), path="/v1/load_lora_adapter", scope=Scope.ADMIN),
    Door(name="adapters", methods=(POST,), path="/v1/unload_lora_adapter", scope=Scope.ADMIN),
    Door(name="conversation", methods=(POST,), path=f"{TALK}/chat", scope=Scope.INFER),
    Door(name="conversation", methods=(SOCKET,), path=f"{TALK}/ws", scope=Scope.INFER),
    Door(name="history", methods=(GET, DELETE), path=f"{TALK}/history", scope=Scope.INFER),
    Door(name="history", methods=(POST,), path=f"{TALK}/reset-context", scope=Scope.INFER),
    Door(name="feedback", methods=(POST,), path="/v1/feedback", scope=Scope.FEEDBACK),
    Door(name="training", methods=(GET,), path="/api/training/status", scope=Scope.INFER),
)
RATE_NAMES = frozenset({EVERY_ROUTE, *(door.name for door in DOORS)})


def door_of(path: str, method: str) -> Door | None:
    """The row of a request; for a path whose method is another, the path's first row. None: no such path."""
    rows = [door for door in DOORS if door.fits(path)]
    return next((door for door in rows if method in door.methods), rows[0] if rows else None)


def id_of(key: str) -> str:
    """The id in the text of a key, `lorad_<id>_<secret>`; empty where it is no such text."""
    mark, _, rest = key.partition("_")
    identity, _, secret = rest.partition("_")
    return identity if mark == MARK and secret else ""
