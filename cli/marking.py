"""What people write on a version: `lorad adapters pin|unpin|tag|note|label|expire`."""

from datetime import UTC, datetime, timedelta

import click

from cli.asking import ask, say
from cli.options import config_option, format_option
from core.commands import CommandKind
from core.errors import UsageError
from core.names import parse_adapter
from store.config_file import config_path, home_of
from store.vault import choose

UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
RELEASE = click.argument("release", metavar="RELEASE")
ADAPTER = click.argument("adapter")


@click.command()
@ADAPTER
@RELEASE
@click.option("--reason", default="", help="Why; stands in pins.json and the journal.")
@config_option
@format_option()
def pin(adapter: str, release: str, reason: str, config: str | None, output: str) -> None:
    """Keep a release (v3, 3, a label, or the beginning of its id) whatever retention says."""
    _set_pin(CommandKind.PIN, (adapter, release), reason, config, output)


@click.command()
@ADAPTER
@RELEASE
@click.option("--reason", default="", help="Why; stands in the journal.")
@config_option
@format_option()
def unpin(adapter: str, release: str, reason: str, config: str | None, output: str) -> None:
    """Let retention decide about a release again."""
    _set_pin(CommandKind.UNPIN, (adapter, release), reason, config, output)


@click.command()
@ADAPTER
@RELEASE
@click.argument("tags", nargs=-1, required=True)
@click.option("--remove", is_flag=True, help="Take the tags off.")
@config_option
@format_option()
def tag(adapter: str, release: str, tags: tuple[str, ...], remove: bool, config: str | None, output: str) -> None:
    """Put tags on a version; `lorad adapters list --tag TAG` finds it by them."""
    _mark((adapter, release), {"tag-" if remove else "tag+": ",".join(tags)}, config, output)


@click.command()
@ADAPTER
@RELEASE
@click.argument("text")
@config_option
@format_option()
def note(adapter: str, release: str, text: str, config: str | None, output: str) -> None:
    """Write a note on a version; an empty TEXT takes it off."""
    _mark((adapter, release), {"note": text}, config, output)


@click.command()
@ADAPTER
@RELEASE
@click.argument("version")
@config_option
@format_option()
def label(adapter: str, release: str, version: str, config: str | None, output: str) -> None:
    """Give a version a semantic version such as v1.3.0: it names that version for ever, wherever v3 would."""
    _mark((adapter, release), {"label": version}, config, output)


@click.command()
@ADAPTER
@RELEASE
@click.argument("when")
@config_option
@format_option()
def expire(adapter: str, release: str, when: str, config: str | None, output: str) -> None:
    """Let retention delete a version from WHEN on, unless it is live, was live before, or is pinned.

    WHEN: 30d, 12h, 2w, a day such as 2030-01-31, an ISO time with its zone, or never.
    """
    moment = _moment(when)
    _mark((adapter, release), {"expires_at": moment.isoformat() if moment else ""}, config, output)


MARKING = (pin, unpin, tag, note, label, expire)


def _set_pin(kind: CommandKind, named: tuple[str, str], reason: str, config: str | None, output: str) -> None:
    home, name = home_of(config_path(config)), parse_adapter(named[0], shared=True)
    say(ask(home, kind, adapter=name, to_release=choose(home, name, named[1]).id, reason=reason), output)


def _mark(named: tuple[str, str], wish: dict[str, str], config: str | None, output: str) -> None:
    home, name = home_of(config_path(config)), parse_adapter(named[0], shared=True)
    say(ask(home, CommandKind.MARK, adapter=name, to_release=choose(home, name, named[1]).id, details=wish), output)


def _moment(when: str) -> datetime | None:
    """The time that a person means; None: never. Raises UsageError."""
    if when == "never":
        return None
    if when[:-1].isdigit() and when[-1:] in UNITS:
        return datetime.now(UTC) + int(when[:-1]) * UNITS[when[-1]]  # noqa: TID251 - a person counts from now
    try:
        found = datetime.fromisoformat(when)
    except ValueError:
        raise UsageError(f"{when!r} is no time", hint="30d, 12h, 2w, 2030-01-31, or never", code="EXPIRY_FORM") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
