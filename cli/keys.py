"""`lorad keys`: the API keys of the server on this machine."""

from datetime import UTC, datetime
from pathlib import Path

import click

from cli.options import config_option, format_option, show_json
from core.access import ApiKey, Scope
from core.errors import UsageError
from store.paths import Box


@click.group()
def keys() -> None:
    """Make, list and revoke API keys of this machine's server. It notices at once."""


@keys.command()
@click.argument("name")
@click.option("--scope", "scopes", type=click.Choice([scope.value for scope in Scope]), multiple=True, help="Once for each scope; infer where none is named.")
@config_option
@format_option()
def add(name: str, scopes: tuple[str, ...], config: str | None, output: str) -> None:
    """Make a key and print it. It is shown this once and kept nowhere.

    NAME is your word for whoever gets it. From the first key on every request needs one.
    """
    from store.apikeys import add_api_key, read_api_keys

    box = _box(config)
    if any(key.name == name and key.revoked_at is None for key in read_api_keys(box) or ()):
        raise UsageError(f"a key named {name!r} is in force", hint=f"`lorad keys revoke {name}` first, or take another name", code="KEY_NAME_TAKEN")
    made, text = add_api_key(box, name, [Scope(scope) for scope in scopes or (Scope.INFER,)], _now())
    if output == "json":
        show_json({**_plain(made), "key": text})
        return
    click.echo(text)
    click.echo(f"{made.id} ({name}) opens {', '.join(made.scopes)}; keep it now: it cannot be shown again", err=True)


@keys.command("list")
@config_option
@format_option()
def list_keys(config: str | None, output: str) -> None:
    """List the keys, oldest first, with the revoked ones; never the keys themselves."""
    from store.apikeys import read_api_keys

    found = read_api_keys(_box(config))
    if output == "json":
        show_json([_plain(key) for key in found or ()])
        return
    for key in found or ():
        state = f"revoked {key.revoked_at:%Y-%m-%d %H:%M} UTC" if key.revoked_at else "in force"
        click.echo(f"{key.id}  {key.name:<20}  {','.join(key.scopes):<20}  made {key.made_at:%Y-%m-%d %H:%M} UTC  {state}")
    if found is None:
        click.echo("no keys: whoever reaches the server on this machine may ask it (lorad keys add NAME)")


@keys.command()
@click.argument("key")
@config_option
@format_option()
def revoke(key: str, config: str | None, output: str) -> None:
    """End a key, by its id or name. The next request with it is refused."""
    from store.apikeys import revoke_api_key

    gone = revoke_api_key(_box(config), key, _now())
    if output == "json":
        show_json(_plain(gone))
    else:
        click.echo(f"{gone.id} ({gone.name}) is revoked")


def _box(config: str | None) -> Box:
    from store.config import ConfigLoader

    box = Box(Path(ConfigLoader(config).load().config.serving.home))
    box.root.mkdir(parents=True, exist_ok=True)
    return box


def _plain(key: ApiKey) -> dict[str, object]:
    revoked = key.revoked_at.isoformat() if key.revoked_at else None
    return {"id": key.id, "name": key.name, "scopes": list(key.scopes), "made_at": key.made_at.isoformat(), "revoked_at": revoked}


def _now() -> datetime:
    return datetime.now(UTC)  # noqa: TID251 - a person acts now
