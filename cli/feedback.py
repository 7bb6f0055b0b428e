"""`lorad feedback`: what people and programs say of answers, what waits for whom, and what became of it."""

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from cli.asking import ask, say
from cli.options import config_option, format_option, show_json
from core.commands import CommandKind
from core.config import Config
from core.errors import UsageError
from core.names import parse_adapter
from core.signals import Signal, Standing

if TYPE_CHECKING:
    from feedback.fate import Fate
    from store.feedback import Shelf
    from store.paths import Home
    from store.signallog import Note

STANDINGS = [standing.value for standing in Standing]
SHOWN = 60  # characters of a question in a list
BATCHES = 5  # newest ones that `status` tells


@click.group()
def feedback() -> None:
    """Signals: what waits, add, import, review, make a drop of what is pending, what became of each."""


def opened(config: str | None) -> "tuple[Config, Home, Shelf]":
    """Config, home and shelf as they are now. Raises ConfigError."""
    from store.config import ConfigLoader
    from store.config_file import config_path, home_of
    from store.feedback import read_shelf

    settings, home = ConfigLoader(config).load().config, home_of(config_path(config))
    shelf = read_shelf(home)
    shelf.follow(settings.feedback)
    return settings, home, shelf


def found_id(shelf: "Shelf", word: str) -> str:
    """The id of the one signal whose id begins so. Raises UsageError SIGNAL_UNKNOWN, SIGNAL_AMBIGUOUS."""
    ids = shelf.ids(word) if word else []
    if not ids:
        raise UsageError(f"no signal {word!r}", hint="`lorad feedback list` names them", code="SIGNAL_UNKNOWN")
    if len(ids) > 1 and word not in ids:
        raise UsageError(f"{len(ids)} signals begin with {word!r}", hint=f"such as {', '.join(ids[:3])}: give more of it", code="SIGNAL_AMBIGUOUS")
    return word if word in ids else ids[0]


# ---------------------------------------------------------------- status


@feedback.command()
@click.option("--adapter", metavar="PERSONA/DOMAIN", help="Only this one.")
@config_option
@format_option()
def status(adapter: str | None, config: str | None, output: str) -> None:
    """How many signals of each adapter wait, for what, and what became of the last batches."""
    from store.codec import to_plain

    _, home, shelf = opened(config)
    wanted = parse_adapter(adapter) if adapter else None
    counts = {name: one for name, one in sorted(shelf.counts().items()) if wanted in (None, name)}
    rows = [{"adapter": name, **to_plain(one), "batches": list(_batches(home, shelf, name))} for name, one in counts.items()]
    if output == "json":
        show_json(rows)
        return
    if not rows:
        click.echo("no signal yet; see docs/howto/feedback.md")
    for row in rows:
        click.echo("\n".join(_told(row)))


def _batches(home: "Home", shelf: "Shelf", adapter: str) -> Iterator[dict[str, Any]]:
    """The newest batches with how many of their signals came how far."""
    from feedback.fate import Fates

    fates = Fates(home, adapter)
    for batch in shelf.batches(adapter)[-BATCHES:]:
        told = fates.counted(batch.id)
        yield {"id": batch.id, "trigger": batch.trigger, "made_at": batch.made_at.isoformat(), "schema_id": batch.schema_id} | {
            "signals": len(batch.rows) + len(batch.left_out),
            "refused": batch.refused,
            "fates": told,
        }


def _told(row: dict[str, Any]) -> Iterator[str]:
    oldest = f", the oldest since {row['oldest_at'][:16]}" if row["oldest_at"] else ""
    yield f"{row['adapter']}: {row['rows']:,} rows pending{oldest}"
    others = {"pending without consent": row["pending"] - row["rows"], "bad answers without a right one": row["mistakes"]}
    others |= {name: row[name] for name in ("review", "quarantined", "capped", "rejected")} | {"in batches": row["queued"]}
    yield "  " + (", ".join(f"{count:,} {name}" for name, count in others.items() if count) or "nothing else")
    if row["by_source"]:
        yield "  pending by source: " + ", ".join(f"{source or '?'} {count:,}" for source, count in row["by_source"].items())
    for source, why in row["held_sources"].items():
        yield f"  source {source!r} is quarantined: {why}; `lorad feedback accept --source {source} --adapter {row['adapter']}`"
    for batch in row["batches"]:
        became = ", ".join(f"{count} {word}" for word, count in batch["fates"].items()) or (f"refused: {batch['refused']}" if batch["refused"] else "no row")
        yield f"  {batch['id']}  {batch['made_at'][:16]}  {batch['trigger']}: {became}"


# ---------------------------------------------------------------- list and show


@feedback.command("list")
@click.option("--adapter", metavar="PERSONA/DOMAIN", help="Only this one's.")
@click.option("--standing", type=click.Choice(STANDINGS), multiple=True, help="Only those that stand there; repeatable.")
@click.option("--source", metavar="NAME", help="Only those of this source.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, metavar="N", help="The newest so many.")
@config_option
@format_option()
def list_signals(adapter: str | None, standing: tuple[str, ...], source: str | None, limit: int, config: str | None, output: str) -> None:
    """The newest signals, each with its fate."""
    _, home, shelf = opened(config)
    wanted = parse_adapter(adapter) if adapter else None
    found: list[tuple[str, Note]] = []
    for name in (name for name in shelf.counts() if wanted in (None, name)):
        notes = shelf.notes(name, *map(Standing, standing))
        found += deque(((name, note) for note in notes if source in (None, note.signal and note.signal.source)), maxlen=limit)
    newest = sorted(found, key=lambda one: one[1].stored_at)[-limit:]
    rows = [_row(note, fate) for note, fate in _with_fates(home, newest)]
    if output == "json":
        show_json(rows)
        return
    if not rows:
        click.echo("no such signal")
    for row in rows:
        click.echo(f"{row['id'][:12]}  {row['at'][:16]}  {row['kind']:<10} {row['fate']['word']:<11} {shortened(row['question'])}".rstrip())


def _with_fates(home: "Home", notes: "Iterable[tuple[str, Note]]") -> "Iterator[tuple[Note, Fate]]":
    from feedback.fate import Fates

    known: dict[str, Fates] = {}
    for adapter, note in notes:
        fates = known.setdefault(adapter, Fates(home, adapter))
        yield note, fates.of(note.id, note.standing, note.message)


def _row(note: "Note", fate: "Fate") -> dict[str, Any]:
    from store.codec import to_plain

    signal = note.signal
    told: dict[str, Any] = {"id": note.id, "standing": note.standing.value, "fate": to_plain(fate), "code": note.code, "message": note.message, "by": note.by}
    if signal is None:
        return told | {"at": note.stored_at.isoformat(), "kind": "", "question": ""}
    return {**told, **to_plain(signal), "question": question_of(signal)}


def question_of(signal: Signal) -> str:
    """The last user turn, as text."""
    last: Mapping[str, Any] = next((turn for turn in reversed(signal.input) if turn.get("role") == "user"), {})
    content = last.get("content")
    return content if isinstance(content, str) else " ".join(str(part.get("text", "")) for part in content or () if isinstance(part, dict))


def safe(text: str) -> str:
    """A text as it may be printed: without keys and passwords, cut where it is long."""
    from ranking.page.words import clean
    from validation.masking import without_secrets

    return clean(without_secrets(text))


def shortened(text: str, most: int = SHOWN) -> str:
    """One line of a text, safe to print."""
    line = " ".join(safe(text).split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


@feedback.command()
@click.argument("signal")
@config_option
@format_option()
def show(signal: str, config: str | None, output: str) -> None:
    """One signal: what it says, and what became of it. SIGNAL is its id or the beginning of that."""
    from feedback.fate import Fates

    _, home, shelf = opened(config)
    note = shelf.find(found_id(shelf, signal))
    assert note is not None, "it was found a moment ago"
    adapter = note.signal.adapter if note.signal else next((batch.adapter for batch in [shelf.batch_of(note.id)] if batch), "")
    row = _row(note, Fates(home, adapter).of(note.id, note.standing, note.message))
    if output == "json":
        show_json(row)
        return
    click.echo("\n".join(_lines(row, note.signal)))


def _lines(row: dict[str, Any], signal: Signal | None) -> Iterator[str]:
    from cli.comparing import indented

    fate = row["fate"]
    yield f"{row['id']}  {fate['word']}: {fate['why']}"
    told = {name: fate[name] for name in ("batch", "drop", "line", "split", "job", "job_state", "run", "release") if fate[name]}
    yield from (f"  {name.ljust(9)} {value}" for name, value in told.items())
    if because := [word for word in (row["code"], row["message"], row["by"] and f"by {row['by']}") if word]:
        yield f"  {'because'.ljust(9)} {' '.join(because)}"
    if signal is None:
        yield "  its text was forgotten"
        return
    weight = f", weight {signal.weight:g}" if signal.weight != 1 else ""
    proposed = f", a proposal with confidence {signal.confidence:g}" if signal.is_proposal else ""
    agreed = "" if signal.consent else ", without consent"
    yield f"  {signal.kind.value} for {signal.adapter} from {signal.source or '?'} ({signal.origin.value}){weight}{proposed}{agreed}, {row['at'][:19]}"
    if signal.response or signal.release:
        yield f"  {'about'.ljust(9)} {signal.response} {signal.release[:12]}".rstrip()
    turns = Counter(str(turn.get("role")) for turn in signal.input)
    yield f"  {'turns'.ljust(9)} {', '.join(f'{count} {role}' for role, count in turns.items())}"
    texts = (("question", row["question"]), ("answer", signal.wrong_output), ("right", signal.correct_output), ("context", signal.context))
    yield from (f"  {name.ljust(9)} {indented(safe(text))}" for name, text in texts if text)


@feedback.command()
@click.argument("adapter")
@config_option
@format_option()
def flush(adapter: str, config: str | None, output: str) -> None:
    """Make a drop of all that is pending of ADAPTER now, whatever the triggers say."""
    from store.config_file import config_path, home_of

    say(ask(home_of(config_path(config)), CommandKind.FEEDBACK, adapter=parse_adapter(adapter), details={"what": "flush"}), output)


def _add_commands() -> None:
    from cli.reviewing import review
    from cli.signalling import accept, add, import_files, reject

    for command in (add, import_files, review, accept, reject):
        feedback.add_command(command)


_add_commands()
