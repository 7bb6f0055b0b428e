"""`lorad feedback review`: signals that wait for a person, one after another, a key each."""

import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import click

from cli.options import config_option
from core.errors import LoradError, UsageError
from core.names import parse_adapter
from core.signals import Signal, SignalKind, Standing

if TYPE_CHECKING:
    from store.feedback import Shelf
    from store.signallog import Note

QUIT = ("q", "\x03", "\x04")
CONTEXT_TURNS = 2  # before the question


@click.command()
@click.option("--adapter", metavar="PERSONA/DOMAIN", help="Only this one's.")
@click.option("--quarantined", is_flag=True, help="Those that the gate refused, or whose source fails too often.")
@config_option
def review(adapter: str | None, quarantined: bool, config: str | None) -> None:
    """Decide about signals one by one: a accept, e edit, r reject, s skip, q quit. Each decision is kept at once."""
    from cli.asking import require_daemon
    from cli.feedback import opened
    from cli.signalling import tell

    _, home, shelf = opened(config)
    require_daemon(home)
    wanted = parse_adapter(adapter) if adapter else None
    waiting = list(_waiting(shelf, wanted, Standing.QUARANTINED if quarantined else Standing.REVIEW))
    if not waiting:
        click.echo("nothing waits for you")
        return
    done = dict.fromkeys(("accept", "edit", "reject", "skip"), 0)
    for number, (note, signal) in enumerate(waiting, 1):
        click.echo(f"\n{number} of {len(waiting)}", err=True)
        show_signal(note, signal)
        what, right = asked(signal, getkey)
        if not what:
            break
        if what != "skip" and not (what == "accept" and note.standing is Standing.QUEUED):  # it is kept as a bad answer already
            try:
                tell(home, signal.adapter, what=what, id=signal.id, **({"correct_output": right} if what == "edit" else {}))
            except LoradError as error:  # somebody else, or a batch, was faster: the others still wait
                click.echo(f"  {error.what}", err=True)
                what = "skip"
        done[what] += 1
    click.echo(", ".join(f"{count} {TOLD[what]}" for what, count in done.items() if count) or "nothing decided")


TOLD = {"accept": "accepted", "edit": "answered", "reject": "rejected", "skip": "skipped"}


def _waiting(shelf: "Shelf", adapter: str | None, standing: Standing) -> "Iterator[tuple[Note, Signal]]":
    """Proposals with the most confidence first, then what needs an answer written: so a sitting of few minutes does the most."""
    names = [name for name in sorted(shelf.counts()) if adapter in (None, name)]
    found = [(note, note.signal) for name in names for note in shelf.notes(name, standing) if note.signal is not None]
    if standing is Standing.REVIEW:
        found += [one for name in names for one in _taught(shelf, name)]
    return iter(sorted(found, key=lambda one: (not one[1].is_proposal, -one[1].confidence, one[1].at)))


def _taught(shelf: "Shelf", adapter: str) -> "list[tuple[Note, Signal]]":
    """Bad answers that a batch took as such, and whose right answer nobody has given yet."""
    found = [(note, note.signal) for note in shelf.notes(adapter, Standing.QUEUED) if note.signal is not None and not note.signal.is_whole]
    if not found:
        return []
    answered = {_about(note.signal) for note in shelf.notes(adapter) if note.signal is not None and note.signal.correct_output}
    return [(note, signal) for note, signal in found if _about(signal) not in answered]


def _about(signal: Signal) -> str:
    """The answer that a signal is about."""
    return json.dumps([signal.input, signal.wrong_output], sort_keys=True)


def show_signal(note: "Note", signal: Signal) -> None:
    """What a person has to know to decide."""
    from cli.comparing import indented
    from cli.feedback import question_of, safe

    proposed = f", proposed with confidence {signal.confidence:.2f}" if signal.is_proposal else ""
    click.echo(f"  {signal.kind.value} for {signal.adapter} from {signal.source or '?'} ({signal.origin.value}){proposed}  {signal.id[:12]}", err=True)
    if note.code:
        click.echo(f"  {note.code} {note.message}", err=True)
    texts = [(str(turn.get("role")), turn.get("content")) for turn in signal.input[:-1]][-CONTEXT_TURNS:]
    texts += [("question", question_of(signal)), ("answer", signal.wrong_output), ("right", signal.correct_output), ("context", signal.context)]
    for name, text in texts:
        if isinstance(text, str) and text:
            click.echo(f"  {name.ljust(9)} {indented(safe(text))}", err=True)


def asked(signal: Signal, key: Callable[[], str]) -> tuple[str, str]:
    """(accept, edit, reject or skip, the right answer of an edit); an empty word to quit. Other keys are asked again."""
    accept = "keep it as a bad answer" if signal.kind is SignalKind.MISTAKE and not signal.is_whole else "accept"
    while True:
        click.echo(f"a {accept}, e edit the right answer, r reject, s skip, q quit: ", nl=False, err=True)
        pressed = key()
        click.echo(pressed if pressed.isprintable() else "", err=True)
        if pressed in QUIT or not pressed:
            return "", ""
        if pressed == "e" and (right := edited(signal)).strip():
            return "edit", right
        if pressed in ("a", "r", "s"):
            return {"a": "accept", "r": "reject", "s": "skip"}[pressed], ""


def edited(signal: Signal) -> str:
    """The right answer as the person writes it: in their editor at a terminal, else a line; empty where they left it."""
    import sys

    before = signal.correct_output or signal.wrong_output
    if sys.stdin.isatty():
        try:
            return (click.edit(before, extension=".txt") or "").strip("\n")
        except click.ClickException as error:
            click.echo(f"  {error.format_message()}", err=True)
    return str(click.prompt("right answer", default="", show_default=False, err=True))


def getkey() -> str:
    """One key of the terminal; its end counts as quit. Raises UsageError where there is none."""
    try:
        return click.getchar()
    except (EOFError, KeyboardInterrupt):
        return QUIT[0]
    except OSError as error:
        hint = "`lorad feedback list --standing review` names the signals; accept and reject take their ids"
        raise UsageError(f"the review needs a terminal: {error}", hint=hint, code="TERMINAL_MISSING") from None
