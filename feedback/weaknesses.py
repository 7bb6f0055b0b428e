"""From failures to named weaknesses: questions that an adapter got wrong, put together by what they mean. The chore "weaknesses".

    failures (feedback.failures) → vectors of the sentence model → kinds (feedback.kinds) → names, words, pattern, teacher

A weakness that was there before keeps its name. One whose failures are mostly a skill's own rows, or of users of an adapter that
learns that skill alone, knows the teacher that has more of the kind; another one comes with a template for a person.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.signals import Standing
from core.weaknesses import EXAMPLES, Failure, Weakness, Weaknesses, recognised
from feedback.failures import SIGNAL, of_exams, of_signals, of_suites
from feedback.kinds import kinds_of, middle_first, pattern_of, telling_words
from store.embedding import Embedder
from store.feedback import read_shelf
from store.paths import Home
from store.vault import live_of, releases_of
from store.weaknesses import finding, read_weaknesses, write_weaknesses

if TYPE_CHECKING:
    from store.embedding import Vectors

MOST = 2_000  # failures that are looked at, those of users first: some 10 s of the sentence model on two cores
NAMELESS = "other"
HEARD = (Standing.PENDING, Standing.REVIEW, Standing.CAPPED, Standing.QUEUED)  # not what a person or the gate put aside

Embed = Callable[[Sequence[str]], "Vectors"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """Whose weaknesses are looked for, and by what."""

    adapter: str
    embedder: str  # folder of the sentence model
    demand_consent: bool
    skills: tuple[str, ...] = ()  # that the adapter learns


def chore_weaknesses(home: Home, spec: Mapping[str, Any]) -> dict[str, Any]:
    """Find the weaknesses of one adapter anew, and keep them. `spec`: adapter, embedder, demand_consent, skills, now. It may be repeated.

    Raises LoradError EMBEDDER_FAILED, EMBEDDER_SLOW; LockHeldError while others look; OSError.
    """
    search = Search(adapter=str(spec["adapter"]), embedder=str(spec["embedder"]), demand_consent=bool(spec["demand_consent"]), skills=tuple(spec["skills"]))
    found = find(home, search, datetime.fromisoformat(spec["now"]))
    return {"weaknesses": len(found.found), "failures": found.failures, "message": f"{found.adapter}: {len(found.found)} kinds of failures"}


def find(home: Home, search: Search, now: datetime) -> Weaknesses:
    """What the adapter gets wrong again and again, kept in its file. Raises as the chore does."""
    with finding(home, search.adapter):
        release = live_of(home).get(search.adapter) or ""
        failures = failures_of(home, search, release)
        before = read_weaknesses(home, search.adapter)
        found = weaknesses_in(failures, Embedder(Path(search.embedder)), search, now)
        kept = replace(found, release=release, found=recognised(found.found, before.found if before else ()))
        write_weaknesses(home, kept)
        return kept


def failures_of(home: Home, search: Search, release: str) -> list[Failure]:
    """Newest signals first, then the unseen rows of its skills, then what the live release failed of its suites; each question once."""
    shelf = read_shelf(home)
    said = (signal for standing in HEARD for signal in shelf.signals(search.adapter, standing))
    signals = sorted(of_signals(said, demand_consent=search.demand_consent), key=lambda one: str(one.at), reverse=True)
    live = next((one for one in releases_of(home, search.adapter) if one.id == release), None)
    suites = of_suites(home, live, home.suites) if live is not None else ()
    exams = (one for skill in search.skills for one in of_exams(home, skill))
    return list(islice(_once([*signals, *exams, *suites]), MOST))


def _once(failures: Iterable[Failure]) -> Iterable[Failure]:
    seen = set[str]()
    for one in failures:
        folded = " ".join(one.question.split()).casefold()
        if folded not in seen:
            seen.add(folded)
            yield one


def weaknesses_in(failures: Sequence[Failure], embed: Embed, search: Search, now: datetime) -> Weaknesses:
    """The kinds of failures there are, the largest first."""
    vectors = embed([one.question for one in failures])
    kinds = [middle_first(vectors, kind) for kind in kinds_of(vectors)]
    words = telling_words([[failures[place].question for place in kind] for kind in kinds])
    found = tuple(_weakness([failures[place] for place in kind], told, search, now) for kind, told in zip(kinds, words, strict=True))
    alone = len(failures) - sum(len(kind) for kind in kinds)
    return Weaknesses(adapter=search.adapter, at=now, release="", failures=len(failures), alone=alone, found=found)


def _weakness(kind: Sequence[Failure], words: tuple[str, ...], search: Search, now: datetime) -> Weakness:
    skill, level = _teacher(kind, search)
    return Weakness(
        name="-".join(words) or NAMELESS,
        adapter=search.adapter,
        size=len(kind),
        refs=tuple(one.ref for one in kind),
        examples=tuple(kind[:EXAMPLES]),
        origins=dict(Counter(one.origin for one in kind)),
        words=words,
        pattern=pattern_of([one.question for one in kind]),
        since=now,
        skill=skill,
        level=level,
    )


def _teacher(kind: Sequence[Failure], search: Search) -> tuple[str, int]:
    """(skill, level) whose teacher has more of the kind; ("", 0) where none is known."""
    made = Counter((one.skill, one.level) for one in kind if one.skill)
    if made and sum(made.values()) * 2 > len(kind):
        return max(made, key=lambda one: (made[one], one))
    from_users = sum(one.origin == SIGNAL for one in kind)
    return (search.skills[0], 0) if len(search.skills) == 1 and from_users * 2 > len(kind) else ("", 0)


# ---------------------------------------------------------------- a template for a person


def template_of(weakness: Weakness) -> list[dict[str, Any]]:
    """Rows that a person may fill in and drop: questions of users who agreed, with the right answer where it is known, and one of the pattern.

    Never an item of a suite: whoever trains on what they are measured by learns nothing of how they fare.
    """
    rows = [_row(one.question, one.right) for one in weakness.examples if one.may_train]
    return [*rows, _row(weakness.pattern or f"a question about {', '.join(weakness.words) or weakness.name}", "")]


def _row(question: str, answer: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def template_lines(weakness: Weakness) -> str:
    """The template as JSON Lines."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in template_of(weakness))
