"""Which release answers for a model name.

The table is immutable and replaced by one assignment. A request looks its model up once, in `pin`, and keeps what it
got: a later table does not touch it. A release leaves the engine only when no table names it and nobody has it pinned.
"""

import secrets
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from core.answering import NO_RULES, AnswerRules
from core.errors import LoradError, UsageError
from core.fingerprints import BASE_MARK, fingerprint
from core.guarding import is_canary
from core.names import DEFAULT_ADAPTER, SHARED, parse_adapter
from serving.engines.port import Blend, Part, only


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
    named: "tuple[tuple[str, Served], ...]" = ()  # of a mixture: what each of its releases is by itself

    @property
    def blend(self) -> Blend:
        """What the engine is asked for."""
        return self.mixture or only(self.release)

    @property
    def label(self) -> str:
        """The release id, or `base`; of a mixture each id with its scale, the main one first."""
        if self.mixture:
            return ",".join(f"{part.release}*{part.scale:g}" for part in self.mixture)
        return self.release or BASE_MARK

    @property
    def fingerprint(self) -> str:
        """`lorad-` and 12 hex digits of the release id, or `lorad-base`."""
        return fingerprint(self.label)


@dataclass(frozen=True, slots=True, kw_only=True)
class Canary:
    """An alias whose new release answers only a share of the users, each always on the same side; `before` answers the others."""

    before: Served
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Every name that is served. An alias without a release is answered by the base."""

    base: Served
    aliases: Mapping[str, Served] = field(default_factory=dict)
    releases: Mapping[str, Served] = field(default_factory=dict)  # persona/domain@vN
    sets: Mapping[str, Served] = field(default_factory=dict)  # a persona's name alone: see `sets_of`
    canaries: Mapping[str, Canary] = field(default_factory=dict)  # by alias

    def find(self, model: str) -> Served | None:
        """What answers for `model`; None where nothing does."""
        if model == self.base.model:
            return self.base
        return self.aliases.get(model) or self.releases.get(model) or self.sets.get(model)

    def find_for(self, model: str, user: str) -> Served | None:
        """The same for one user, where a canary may send them to the release before. A user without a name is anyone."""
        served, canary = self.find(model), self.canaries.get(model)
        if canary is None or served is None or served.release is None or is_canary(user or secrets.token_hex(8), served.release, canary.share):
            return served
        return canary.before

    def adapter_of(self, model: str) -> str:
        """The adapter that feedback on a model's answers is for: of a set its main one, of the base alone the default adapter."""
        served = self.find(model)
        if served is not None and served.alias:
            return served.alias
        name = model.partition("@")[0]
        try:
            return DEFAULT_ADAPTER if name == self.base.model else parse_adapter(name)
        except UsageError:
            return DEFAULT_ADAPTER

    def names(self) -> list[str]:
        """All names: the base, aliases, personas whose name stands for more than one adapter, releases."""
        personas = sorted(name for name, served in self.sets.items() if served.mixture)
        return [self.base.model, *sorted(self.aliases), *personas, *sorted(self.releases)]

    def compose(self, model: str, adapters: Sequence[tuple[str, float]] = (), user: str = "") -> Served:
        """What answers for `model` with further adapters, by name and scale, on top of it. Raises ModelNotFound listing the models."""
        found = [(self._found(model, self.find_for(model, user)), 1.0), *((self._found(name, self.find(name)), scale) for name, scale in adapters)]
        return mixed(self.base, found) if adapters else found[0][0]

    def _found(self, model: str, served: Served | None) -> Served:
        if served is None:
            raise ModelNotFound(f"no model {model!r}", hint=f"models here: {', '.join(self.names())}", code="MODEL_NOT_FOUND")
        return served


def mixed(base: Served, found: Sequence[tuple[Served, float]]) -> Served:
    """All of them added up, W' = W + sum of s_i B_i A_i: the base, one release as it is, or a mixture.

    The first release is the main one: alias and fingerprint are its own, and the rules, where it has any; else those of the next that has.
    """
    scales: dict[str, float] = {}
    alone: dict[str, Served] = {}
    for served, scale in found:
        for part in served.blend:
            scales[part.release] = scales.get(part.release, 0.0) + part.scale * scale
        alone |= dict(served.named) or ({served.release: served} if served.release else {})
    parts = tuple(Part(release=release, scale=scale) for release, scale in scales.items() if scale)
    if not parts:
        return base
    if parts == only(parts[0].release):
        return alone[parts[0].release]
    sources = [alone[part.release] for part in parts]
    return Served(
        model="+".join(source.model + (f"*{part.scale:g}" if part.scale != 1 else "") for part, source in zip(parts, sources, strict=True)),
        created=max(source.created for source in sources),
        release=parts[0].release,
        alias=sources[0].alias,
        rules=next((source.rules for source in sources if source.rules != NO_RULES), NO_RULES),
        mixture=parts,
        named=tuple((part.release, alone[part.release]) for part in parts),
    )


def sets_of(base: Served, aliases: Mapping[str, Served], shared: Mapping[str, Mapping[str, float]]) -> dict[str, Served]:
    """What each persona's name alone stands for: its own live adapters and the `shared` ones beside them (persona -> {name: scale}).

    A persona whose shared adapters are not all known on this box is left out: a part of a set is not the set.
    """
    own = {alias.split("/")[0] for alias in aliases} - {SHARED}
    made: dict[str, Served] = {}
    for persona in sorted((own | set(shared)) - {base.model}):
        beside = shared.get(persona, {})
        if all(name in aliases for name in beside):
            parts = [(served, 1.0) for alias, served in sorted(aliases.items()) if alias.startswith(f"{persona}/")]
            made[persona] = mixed(base, [*parts, *((aliases[name], scale) for name, scale in sorted(beside.items()))])
    return made


class Routes:
    """The table that is in force, and who is pinned to what. Safe in threads."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self._pins: Counter[str] = Counter()
        self._asked: dict[str, int] = {}  # release -> number of the request that asked it last
        self._requests = 0
        self._lock = threading.Lock()

    def flip(self, table: Table) -> None:
        """Put another table in force for requests that come from now on."""
        self.table = table

    def find(self, model: str, adapters: Sequence[tuple[str, float]] = ()) -> Served:
        """What would answer anyone now. Raises ModelNotFound listing the models."""
        return self.table.compose(model, adapters)

    @contextmanager
    def pin(self, model: str, adapters: Sequence[tuple[str, float]] = (), user: str = "") -> Iterator[Served]:
        """What answers for `model`, kept loaded until the context ends; `user` keeps to one side of a canary. Raises ModelNotFound listing the models."""
        with self._lock:
            served = self.table.compose(model, adapters, user)
            self._pins.update(part.release for part in served.blend)
            self._requests += 1
            self._asked |= {part.release: self._requests for part in served.blend}
        try:
            yield served
        finally:
            with self._lock:
                self._pins.subtract(part.release for part in served.blend)
                self._pins += Counter()  # forgets what is at zero

    def hold(self, releases: Sequence[str]) -> Callable[[], None]:
        """Keep releases loaded until what this returns is called, once. For the thread that loads and unloads."""
        with self._lock:
            self._pins.update(releases)

        def let_go() -> None:
            with self._lock:
                self._pins.subtract(releases)
                self._pins += Counter()

        return let_go

    def oldest_first(self, releases: Iterable[str]) -> list[str]:
        """By when they were asked last; those that never were come first."""
        with self._lock:
            return sorted(releases, key=lambda release: self._asked.get(release, 0))

    def pinned(self) -> dict[str, int]:
        """How many requests each release is held by now."""
        with self._lock:
            return dict(self._pins)

    def idle(self, loaded: Iterable[str]) -> list[str]:
        """Which of the `loaded` releases no table entry and no request needs any more: nobody can pin them again."""
        with self._lock:
            routed = self.routed()
            return [release for release in loaded if release not in routed and not self._pins[release]]

    def routed(self) -> set[str]:
        """Releases that some name of the table in force leads to."""
        table = self.table
        before = [canary.before for canary in table.canaries.values()]
        served = (*table.aliases.values(), *table.releases.values(), *table.sets.values(), *before)
        return {part.release for one in served for part in one.blend}
