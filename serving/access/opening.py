"""All of it as the config says: made once, when the server starts."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from core.access import DEFAULT_RATES
from core.deployment import ServingConfig
from serving.access.accounts import Accounts
from serving.access.doorway import Doorway
from serving.access.filters import Filters
from serving.access.guard import Access
from serving.access.hosts import Hosts
from serving.access.keyring import KeyRing
from serving.access.rates import Rates
from serving.engines.port import Engine
from serving.line import Line
from serving.metrics import Meter
from serving.routing import Routes
from store.capture import Captures
from store.paths import Box

GRACE_S = 10.0  # the routes end an answer themselves after serving.timeout_s; this is for what they do not see, such as a client that does not read


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """What the server is made of."""

    access: Access
    engine: Doorway
    accounts: Accounts
    filters: Filters


def open_access(config: ServingConfig, box: Box, ring: KeyRing, engine: Engine, now: Callable[[], datetime]) -> Opened:
    """Everything that stands before the routes and around the engine. Raises ConfigError for a filter, StateError for the box's secret."""
    meter = Meter()
    filters = Filters(config.filters, meter.hit)
    captures = Captures(box) if config.capture.enabled else None
    accounts = Accounts(captures, config.capture.days, now, logs_prompts=config.log_prompts)
    access = Access(
        ring=ring,
        hosts=Hosts(config.host, config.hosts),
        rates=Rates(DEFAULT_RATES | config.rates),
        meter=meter,
        captures=captures,
        max_body_bytes=config.max_body_kb << 10,
        timeout_s=config.timeout_s + GRACE_S,
        over=accounts.over,
    )
    doorway = Doorway(engine, filters, meter, keeps_texts=config.capture.enabled or config.log_prompts)
    return Opened(access=access, engine=doorway, accounts=accounts, filters=filters)


def watch(meter: Meter, model: str, line: Line, routes: Routes, events: Callable[[], Iterable[str]]) -> None:
    """Let /metrics show the line in front of the engine, the releases, and what became of wishes."""
    meter.watch(model, lambda: line.num_waiting, routes)
    meter.watch_swaps(events)
