"""What is known of one request while it is answered: for the access log, the metrics and what is captured.

The guard makes it, the engine's doorway writes the answers into it; both find it by a context variable, which goes along
into the tasks and worker threads of the request.
"""

import time
from contextvars import ContextVar
from dataclasses import dataclass, field

from core.access import Door
from serving.engines.port import Blend, Generation


@dataclass(slots=True, kw_only=True)
class Track:
    """One answer. Times are of the monotonic clock."""

    blend: Blend
    begun_s: float
    max_tokens: int | None = None
    asked: tuple[tuple[str, str], ...] = ()  # (role, text) as the filters left it; only where it is captured or logged
    said: list[str] = field(default_factory=list)  # likewise
    first_s: float | None = None
    ended_s: float | None = None
    end: str = ""
    generation: Generation | None = None

    @property
    def release(self) -> str:
        """The releases that answered, joined by +; `base` for none."""
        return "+".join(part.release for part in self.blend) or "base"


@dataclass(slots=True, kw_only=True)
class Exchange:
    """One request and its answers."""

    id: str
    method: str
    path: str
    client: str = ""  # address
    key: str = ""  # id of the API key
    door: Door | None = None
    begun_s: float = field(default_factory=time.monotonic)
    status: int = 0  # 0: nothing was answered
    refused: str = ""  # code of the refusal, where the guard answered
    response: str = ""  # id of the response object
    model: str = ""  # as the request named it
    finish: str = ""  # why the answer ended, as the response says
    tracks: list[Track] = field(default_factory=list)


_CURRENT: ContextVar[Exchange | None] = ContextVar("exchange", default=None)
enter = _CURRENT.set
leave = _CURRENT.reset


def current() -> Exchange | None:
    """The request that is being answered here; None outside of one."""
    return _CURRENT.get()


def note(response: str = "", finish: str = "", model: str = "") -> None:
    """Say the response's id, why its answer ended, or which model was asked. Outside of a request nothing happens."""
    exchange = _CURRENT.get()
    if exchange is not None:
        exchange.response = response or exchange.response
        exchange.finish = finish or exchange.finish
        exchange.model = model or exchange.model
