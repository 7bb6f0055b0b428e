"""`lorad init`: a config with every key explained, home, keys and the local target."""

import json
from collections.abc import Iterator
from pathlib import Path

import click

from cli.options import config_option


@click.command()
@config_option
@click.option("--force", is_flag=True, help="Write the config anew even if there is one.")
def init(config: str | None, force: bool) -> None:
    """Write a config, make home, keys and the local target. An existing config is kept."""
    from core.config import Config
    from store.config import ConfigLoader
    from store.config_file import config_path
    from store.durable import replace_file
    from store.keys import ensure_keys
    from store.paths import Box, Home

    path = config_path(config)
    if path.exists() and not force:
        click.echo(f"kept {path}")
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, "\n".join(["{", *_lines(Config()), "}"]) + "\n")
        click.echo(f"wrote {path}")
    loaded = ConfigLoader(path).load().config
    home = Home(Path(loaded.home))
    home.prepare()
    ensure_keys(home.keys)
    for target in loaded.deploy.targets:
        Box(Path(target.path)).prepare()
        click.echo(f"target {target.name}: {target.path}")
    click.echo(f"home {home.root}\nnext: lorad models pull, then lorad serve and lorad daemon, then lorad drop FILE")


def _lines(config: object) -> Iterator[str]:
    """The two keys that a new user may want to change, then every other key with its default, commented out."""
    from core.config import Config, flatten

    assert isinstance(config, Config)
    values = flatten(config.model_dump(mode="json"))
    yield '  "home": "var",  // lorad\'s state; a relative path starts at this file\'s folder'
    yield f'  "serving.port": {config.serving.port},  // OpenAI API on 127.0.0.1'
    yield "  // Every other key with its default: take the slashes away to set it. Dotted keys may also be nested."
    for key, value in values.items():
        if key not in ("home", "serving.port"):
            yield f'  // "{key}": {json.dumps(value)},  // {_help(key)}'


def _help(key: str) -> str:
    from core.config import Config
    from core.sections import Section

    model: type[Section] = Config
    *sections, last = key.split(".")
    for section in sections:
        kind = model.model_fields[section].annotation
        assert isinstance(kind, type)
        model = kind
    return model.model_fields[last].description or ""
