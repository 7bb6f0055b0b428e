"""What a model gets wrong again and again: failures, and the weaknesses that they are put together to. Records only, and which is which again."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import count

EXAMPLES = 8  # of a weakness
SAME_SHARE = 0.5  # of the smaller one's failures, from which two weaknesses are the same one


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One question that was answered wrong. `ref` says where it is from: signal:<id>, suite:<name>/<item>, skill:<name>/<level>/<hash of the question>."""

    ref: str
    question: str
    right: str = ""  # empty: not known
    wrong: str = ""  # empty: nobody kept it
    at: datetime | None = None
    skill: str = ""  # whose teacher made it
    level: int = 0
    may_train: bool = False  # its question may stand in a row: from a user who agreed; an item of a suite never may

    @property
    def origin(self) -> str:
        """signal, suite or skill."""
        return self.ref.partition(":")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """`caches/exams/<skill>.json`: the rows of a skill's last evaluation that the live release answered wrong."""

    skill: str
    level: int
    rows: tuple[tuple[str, str, str], ...]  # question, right answer, what it said


@dataclass(frozen=True, slots=True, kw_only=True)
class Taught:
    """That rows were asked for against a weakness."""

    at: datetime
    rows: int
    file: str  # in the inbox


@dataclass(frozen=True, slots=True, kw_only=True)
class Weakness:
    """Failures that are alike. `refs` are all of them, `examples` the ones in their middle."""

    name: str
    adapter: str
    size: int
    refs: tuple[str, ...]
    examples: tuple[Failure, ...]
    origins: Mapping[str, int] = field(default_factory=dict)  # signal, suite, skill -> how many
    words: tuple[str, ...] = ()  # that it has and the others have not
    pattern: str = ""  # what its questions have in common, … for the rest
    since: datetime | None = None  # found first
    skill: str = ""  # whose teacher has more of the kind
    level: int = 0  # of the skill; 0: whichever is practised now
    taught: tuple[Taught, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Weaknesses:
    """`caches/weaknesses/<persona>/<domain>.json`: what was found of one adapter, the largest first."""

    adapter: str
    at: datetime
    release: str  # that was live; empty: the base
    failures: int  # that were looked at
    alone: int  # of them, alike to no others
    found: tuple[Weakness, ...] = ()

    def named(self, name: str) -> Weakness | None:
        """The weakness of that name."""
        return next((one for one in self.found if one.name == name), None)

    def with_lesson(self, name: str, lesson: Taught) -> "Weaknesses":
        """The same, once rows were asked for against one of them."""
        return replace(self, found=tuple(replace(one, taught=(*one.taught, lesson)) if one.name == name else one for one in self.found))


def recognised(found: Sequence[Weakness], before: Sequence[Weakness]) -> tuple[Weakness, ...]:
    """Those found now, with name, time and lessons of the one before that shares most of their failures; every name once."""
    left, matched = {one.name: one for one in before}, list[tuple[Weakness, Weakness | None]]()
    for one in found:
        same = max(left.values(), key=lambda old: _shared(one, old), default=None)
        is_same = same is not None and _shared(one, same) >= SAME_SHARE
        matched.append((one, left.pop(same.name) if same is not None and is_same else None))
    used = {same.name for _, same in matched if same is not None}
    result = []
    for one, same in matched:
        if same is not None:
            result.append(replace(one, name=same.name, since=same.since, taught=same.taught))
            continue
        name = next(name for name in _names(one.name) if name not in used)
        used.add(name)
        result.append(replace(one, name=name))
    return tuple(result)


def _names(name: str) -> Iterator[str]:
    yield name
    yield from (f"{name}-{number}" for number in count(2))


def _shared(one: Weakness, other: Weakness) -> float:
    """The share of the smaller one's failures that both have."""
    return len({*one.refs} & {*other.refs}) / max(1, min(len({*one.refs}), len({*other.refs})))
