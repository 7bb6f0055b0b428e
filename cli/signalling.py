"""`lorad feedback add|import|accept|reject`: signals from a person at this machine, from exports of other systems, and a person's word on them."""

import getpass
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.asking import ask, require_daemon, say
from cli.options import config_option, format_option
from core.commands import Answer, CommandKind
from core.errors import UsageError
from core.names import parse_adapter
from core.signals import Signal, SignalKind, signal_id

if TYPE_CHECKING:
    from store.paths import Home

SOURCE = "terminal"
IMPORT_PATIENCE_S = 600.0
FORMATS = ("lorad", "openwebui", "langfuse", "openai")


def _home(config: str | None) -> "Home":
    from store.config_file import config_path, home_of

    return home_of(config_path(config))


def tell(home: "Home", adapter: str = "", reason: str = "", **details: str) -> Answer:
    """Ask the daemon about feedback. Raises RefusedError, StateError."""
    return ask(home, CommandKind.FEEDBACK, adapter=adapter, reason=reason, details=details)


@click.command()
@click.option("--adapter", default="default/main", show_default=True, metavar="PERSONA/DOMAIN")
@click.option("--question", metavar="TEXT", help="What was asked; asked for where it is left out.")
@click.option("--answer", metavar="TEXT", help="What the model answered.")
@click.option("--right", metavar="TEXT", help="What it should have answered.")
@click.option("--good", is_flag=True, help="The answer was right.")
@click.option("--context", default="", metavar="TEXT", help="Anything else that a reviewer should know.")
@config_option
@format_option()
def add(adapter: str, question: str | None, good: bool, config: str | None, output: str, **words: Any) -> None:
    """Say what an answer should have been, or that it was right or wrong."""
    import msgspec

    home, name = _home(config), parse_adapter(adapter)
    question = question if question is not None else click.prompt("question")
    answer = words["answer"] if words["answer"] is not None or words["right"] is not None else click.prompt("the model's answer")
    right = words["right"]
    if right is None and not good and words["answer"] is None:
        right = click.prompt("what would have been right (empty: only that it was wrong)", default="", show_default=False)
    signal = _signal(name, question, answer or "", right or "", good)
    signal = replace(signal, context=words["context"])
    say(tell(home, name, what="add", signal=msgspec.json.encode(signal).decode()), output)


def _signal(adapter: str, question: str, answer: str, right: str, good: bool) -> Signal:
    """What a person said at this machine, who thereby agrees. Raises UsageError."""
    hint = "give --question, and --answer with --good, --right, or neither where it was wrong and nobody knows what is right"
    if not question.strip() or (good and right) or not (right.strip() or answer.strip()):
        raise UsageError("this says nothing of an answer", hint=hint, code="SIGNAL_SYNTAX")
    kind = SignalKind.POSITIVE if good else SignalKind.CORRECTION if right.strip() else SignalKind.MISTAKE
    persona, _, domain = adapter.partition("/")
    made = Signal(
        id="",
        kind=kind,
        persona=persona,
        domain=domain,
        input=({"role": "user", "content": question},),
        wrong_output="" if good else answer,
        correct_output=answer if good else right,
        source=SOURCE,
        at=datetime.now(UTC),  # noqa: TID251 - a person says it now
        consent=True,
        metadata={"by": getpass.getuser()},
    )
    return replace(made, id=signal_id(made))


@click.command("import")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--adapter", default="default/main", show_default=True, metavar="PERSONA/DOMAIN")
@click.option("--as", "form", type=click.Choice(FORMATS), help="The format; else it is told by the records.")
@click.option("--score", default="", metavar="NAME", help="Name of the score that judges an answer; else those named like feedback.")
@click.option("--consent", is_flag=True, help="The users whose words these are have agreed that a model learns them.")
@config_option
@format_option()
def import_files(files: tuple[Path, ...], adapter: str, form: str | None, score: str, consent: bool, config: str | None, output: str) -> None:
    """Take in judged answers of another system: exports of Open WebUI, Langfuse, ChatGPT, API logs, or lorad's own JSON Lines."""
    from store.inbox import lent

    home, name = _home(config), parse_adapter(adapter)
    for file in files:
        if not file.is_file() or "\n" in str(file):
            raise UsageError(f"{str(file)!r} is not a file", hint="name the exported file", code="FILE_MISSING")
    require_daemon(home)
    with lent(home, files) as copies:
        paths = "\n".join(str(copy.resolve()) for copy in copies)
        details = {"what": "import", "files": paths, "format": form or "", "score": score, "consent": "yes" if consent else "no"}
        say(ask(home, CommandKind.FEEDBACK, IMPORT_PATIENCE_S, adapter=name, details=details), output)
    if not consent and output == "text":
        click.echo("  without --consent they wait: feedback.require_consent decides whether they become rows")


@click.command()
@click.argument("signals", nargs=-1)
@click.option("--right", metavar="TEXT", help="The right answer, in the place of the proposed one.")
@click.option("--source", metavar="NAME", help="Let a whole source go on that is quarantined; needs --adapter.")
@click.option("--adapter", metavar="PERSONA/DOMAIN", help="Whose source.")
@config_option
@format_option()
def accept(signals: tuple[str, ...], right: str | None, source: str | None, adapter: str | None, config: str | None, output: str) -> None:
    """Let signals count that wait for a person: proposals, bad answers, what is quarantined."""
    home = _home(config)
    if source is not None:
        if signals or adapter is None:
            raise UsageError("--source needs --adapter, and no signal", hint="lorad feedback accept --source api --adapter acme/support", code="SIGNAL_SYNTAX")
        say(tell(home, parse_adapter(adapter), what="accept", source=source), output)
        return
    if right is not None and len(signals) > 1:
        raise UsageError("--right is the answer to one signal", hint="name one", code="SIGNAL_SYNTAX")
    more = {"what": "accept"} if right is None else {"what": "edit", "correct_output": right}
    _decide(home, config, signals, "", output, **more)


@click.command()
@click.argument("signals", nargs=-1)
@click.option("--reason", default="", metavar="TEXT")
@config_option
@format_option()
def reject(signals: tuple[str, ...], reason: str, config: str | None, output: str) -> None:
    """Let signals never become rows; they stay listed."""
    _decide(_home(config), config, signals, reason, output, what="reject")


def _decide(home: "Home", config: str | None, signals: tuple[str, ...], reason: str, output: str, **details: str) -> None:
    from cli.feedback import found_id, opened

    if not signals:
        raise UsageError("name a signal", hint="`lorad feedback list --standing review` shows those that wait", code="SIGNAL_UNKNOWN")
    _, _, shelf = opened(config)
    for id in [found_id(shelf, word) for word in signals]:
        say(tell(home, reason=reason, id=id, **details), output)
