"""Which release answers for a model name.

The table is immutable and replaced by one assignment. A request looks its model up once, in `pin`, and keeps what it
got: a later table does not touch it. A release leaves the engine only when no table names it and nobody has it pinned.
"""

import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from core.answering import NO_RULES, AnswerRules
from core.errors import LoradError
from core.fingerprints import BASE_MARK, fingerprint
from serving.engines.port import Blend, only


class ModelNotFound(LoradError):
    """No model of that name is served."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What answers: the base, or one loaded release. `model` is its unchanging name in the API."""

    model: str
    created: int  # unix seconds
    release: str | None = None
    alias: str | None = None
    rules: AnswerRules = NO_RULES  # of the profile that it was trained with; the base has none
    mixture: Blend = ()  # of a set, or as a request composed it; empty: the release alone

    @property
    def blend(self) -> Blend:
        """What the engine is asked for."""
        return self.mixture or only(self.release)

    @property
    def label(self) -> str:
        """The release id, or `base`."""
        return self.release or BASE_MARK

    @property
    def fingerprint(self) -> str:
        """`lorad-` and 12 hex digits of the release id, or `lorad-base`."""
        return fingerprint(self.label)


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Every name that is served. An alias without a release is answered by the base."""

    base: Served
    aliases: Mapping[str, Served] = field(default_factory=dict)
    releases: Mapping[str, Served] = field(default_factory=dict)  # persona/domain@vN

    def find(self, model: str) -> Served | None:
        """What answers for `model`; None where nothing does."""
        if model == self.base.model:
            return self.base
        return self.aliases.get(model) or self.releases.get(model)

    def names(self) -> list[str]:
        """All names: the base, aliases, releases."""
        return [self.base.model, *sorted(self.aliases), *sorted(self.releases)]


class Routes:
    """The table that is in force, and who is pinned to what. Safe in threads."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self._pins: Counter[str] = Counter()
        self._lock = threading.Lock()

    def flip(self, table: Table) -> None:
        """Put another table in force for requests that come from now on."""
        self.table = table

    @contextmanager
    def pin(self, model: str) -> Iterator[Served]:
        """What answers for `model`, kept loaded until the context ends. Raises ModelNotFound listing the models."""
        with self._lock:
            table = self.table
            served = table.find(model)
            if served is None:
                raise ModelNotFound(f"no model {model!r}", hint=f"models here: {', '.join(table.names())}", code="MODEL_NOT_FOUND")
            self._pins.update(part.release for part in served.blend)
        try:
            yield served
        finally:
            with self._lock:
                self._pins.subtract(part.release for part in served.blend)
                self._pins += Counter()  # forgets what is at zero

    def idle(self, loaded: Iterable[str]) -> list[str]:
        """Which of the `loaded` releases no table entry and no request needs any more: nobody can pin them again."""
        with self._lock:
            routed = {served.release for served in (*self.table.aliases.values(), *self.table.releases.values())}
            return [release for release in loaded if release not in routed and not self._pins[release]]
