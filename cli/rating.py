"""The blind rating of `lorad compare --rate`: pairs in a drawn order, sides drawn too, one key a pair, kept after each.

What is kept (`caches/ratings/<key>.jsonl`) are hashes of pairs and choices; no text. The same comparison with the same seed
goes on where it was left.
"""

import hashlib
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.options import show_json
from core.errors import UsageError
from core.ratings import Rating, details_of
from store.paths import Home

if TYPE_CHECKING:
    from cli.comparison import Compared, Shown


class Choice(StrEnum):
    """What became of a pair. A and B are the models as they were named, not the sides on the screen."""

    A = "a"
    B = "b"
    TIE = "tie"
    SKIP = "skip"


KEYS = {"=": Choice.TIE, "t": Choice.TIE, "s": Choice.SKIP}
QUIT = ("q", "\x03", "\x04")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two answers to one question; `swapped`: B's is shown first."""

    id: str
    question: str
    answers: tuple[str, str]
    swapped: bool

    @property
    def first(self) -> Choice:
        """Whose answer is shown as 1."""
        return Choice.B if self.swapped else Choice.A

    @property
    def shown(self) -> tuple[str, str]:
        """The answers in the order of the screen."""
        return (self.answers[1], self.answers[0]) if self.swapped else self.answers


def pairs_of(rows: "Sequence[Shown]", key: str, seed: int) -> list[Pair]:
    """The pairs to rate, one a conversation, in an order that only `key` and `seed` decide. Equal answers are no choice and are left out."""
    found, groups = [], set[str]()
    for row in sorted(rows, key=lambda row: (row.drop, row.line)):
        if row.answers is None or row.answers[0].strip() == row.answers[1].strip() or row.group in groups:
            continue
        groups.add(row.group)
        id = hashlib.sha256(json.dumps([row.drop, row.line, *row.answers]).encode()).hexdigest()
        found.append((id, row))
    rng = random.Random(f"{key}/{seed}")  # noqa: S311 - an order, no secret
    rng.shuffle(found)
    return [Pair(id=id, question=row.question, answers=row.answers or ("", ""), swapped=rng.random() < 0.5) for id, row in found]


def session_key(found: "Compared", seed: int) -> str:
    """Under what the choices are kept."""
    told = [*(side.model.id for side in found.sides), found.on, seed]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


def read_choices(path: Path) -> dict[str, Choice]:
    """Pair -> choice, of an earlier sitting; a torn last line is left out."""
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            kept = json.loads(line)
            found[str(kept["pair"])] = Choice(kept["choice"])
        except (ValueError, KeyError, TypeError):
            continue
    return found


def rate_pairs(pairs: Sequence[Pair], known: dict[str, Choice], path: Path, getkey: Callable[[], str]) -> bool:
    """Ask about every pair that has no choice yet; each choice is kept at once. Returns whether all were asked."""
    open_pairs = [pair for pair in pairs if pair.id not in known]
    for number, pair in enumerate(open_pairs, len(pairs) - len(open_pairs) + 1):
        _show(pair, number, len(pairs))
        choice = _asked(pair, getkey)
        if choice is None:
            return False
        known[pair.id] = choice
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"pair": pair.id, "choice": choice.value}) + "\n")
    return True


def _asked(pair: Pair, getkey: Callable[[], str]) -> Choice | None:
    """The choice, or None to quit; other keys are asked again."""
    by_key = KEYS | {"1": pair.first, "2": Choice.A if pair.first is Choice.B else Choice.B}
    while True:
        click.echo("better: 1, 2, = both alike, s skip, q quit and keep: ", nl=False, err=True)
        key = getkey()
        click.echo(key if key.isprintable() else "", err=True)
        if key in QUIT or not key:
            return None
        if key in by_key:
            return by_key[key]


def _show(pair: Pair, number: int, total: int) -> None:
    from cli.comparing import indented
    from ranking.page.words import clean

    first, second = pair.shown
    click.echo(f"\npair {number} of {total}", err=True)
    for name, text in (("question", pair.question), ("1", first), ("2", second)):
        click.echo(f"  {name.ljust(8)}  {indented(clean(text))}", err=True)


def rating(found: "Compared", pairs: Sequence[Pair], known: dict[str, Choice], seed: int) -> Rating:
    """What was chosen so far, B in the place of the candidate."""
    rated = [pair.id for pair in pairs if pair.id in known]
    count = [known[id] for id in rated].count
    return Rating(
        job=found.sides[1].job or found.sides[0].job,
        candidate=found.sides[1].model.id,
        incumbent=found.sides[0].model.id,
        better=count(Choice.B),
        worse=count(Choice.A),
        ties=count(Choice.TIE),
        skipped=count(Choice.SKIP),
        pairs_sha256=hashlib.sha256("".join(rated).encode()).hexdigest(),
        seed=seed,
        at=datetime.now(UTC),  # noqa: TID251 - a person rates now
    )


def _key() -> str:
    """One key of the terminal, or of a pipe; its end counts as quit."""
    try:
        return click.getchar()
    except (EOFError, KeyboardInterrupt):
        return QUIT[0]


def rate(home: Home, found: "Compared", seed: int, output: str) -> None:
    """Let a person rate, say what it proves, and send it to the daemon where it is about a job. Raises UsageError, RefusedError."""
    key = session_key(found, seed)
    pairs = pairs_of(found.rows, key, seed)
    if not pairs:
        raise UsageError("there is no pair of different answers to rate", hint="name more --rows, or other rows with --on", code="NOTHING_TO_RATE")
    folder = home.root / "caches" / "ratings"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{key}.jsonl"
    known = {id: choice for id, choice in read_choices(path).items() if id in {pair.id for pair in pairs}}
    if known:
        click.echo(f"going on after {len(known)} pairs", err=True)
    whole = rate_pairs(pairs, known, path, _key)
    result = rating(found, pairs, known, seed)
    _tell(home, found, result, whole, output)


def _tell(home: Home, found: "Compared", result: Rating, whole: bool, output: str) -> None:
    from dataclasses import asdict

    from ranking.preferred import preference

    proven = preference(result.better, result.worse)
    sent = _send(home, found, result) if whole else ""
    if output == "json":
        words = {"share": asdict(proven.share), "p": proven.p, "whole": whole, "sent": sent}
        show_json({name: value for name, value in asdict(result).items() if name not in ("at", "by")} | words)
        return
    click.echo(f"B was preferred {result.better} times, A {result.worse} times; {result.ties} alike, {result.skipped} skipped")
    if proven.decided:
        click.echo(
            f"  B in {proven.share.mean:.0%} of the pairs with a preference, 95 % interval {proven.share.low:.0%} to {proven.share.high:.0%}, p {proven.p:.3g}"
        )
    verdict = "B is better" if proven.is_better else "B is worse" if proven.is_worse else "no preference is proven"
    click.echo(f"  {verdict}. A: {found.sides[0].name}; B: {found.sides[1].name}")
    if sent:
        click.echo(sent)
    elif whole and found.sides[0].judged is not None:
        click.echo(f"  no job was told: name what is live first, lorad compare {found.sides[1].word} {found.sides[0].word} --rate")
    elif not whole:
        click.echo("  kept; the same command goes on from here" + (", and the job is told once every pair was seen" if result.job else ""))


def _send(home: Home, found: "Compared", result: Rating) -> str:
    """Tell the daemon of the rating of a job's candidate; empty where it is about no job that waits for one."""
    from cli.asking import ask
    from core.commands import CommandKind

    judged = found.sides[1].judged
    if judged is None or (judged.best, judged.incumbent) != (result.candidate, result.incumbent):
        return ""
    return ask(home, CommandKind.RATE, job=result.job, details=details_of(result)).message
