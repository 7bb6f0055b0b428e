"""`lorad models`: the base models."""

import time

import click

from cli.options import config_option, format_option, show_json


@click.group()
def models() -> None:
    """List and fetch base models."""


@models.command("list")
@config_option
@format_option()
def list_models(config: str | None, output: str) -> None:
    """The base models that are ready in models_dir."""
    from store.bases import base_folder, models_dir, read_base
    from store.config import ConfigLoader
    from store.seals import is_sealed

    loaded = ConfigLoader(config).load().config
    folder = models_dir(loaded)
    wanted = base_folder(loaded)
    found = sorted(path for path in folder.iterdir() if is_sealed(path)) if folder.is_dir() else []
    rows = [
        {
            "name": path.name,
            "folder": str(path),
            "source_sha256": (base := read_base(path)).source_sha256,
            "licence": base.licence,
            "chosen": path == wanted,
        }
        for path in found
    ]
    if output == "json":
        show_json(rows)
        return
    for row in rows:
        click.echo(f"{'*' if row['chosen'] else ' '} {row['name']:<32} {str(row['source_sha256'])[:12]}  {row['licence']}  {row['folder']}")
    if wanted not in found:
        click.echo(f"  {wanted.name} is named by the config and not here yet: lorad models pull")


@models.command()
@config_option
@format_option()
def pull(config: str | None, output: str) -> None:
    """Fetch and convert the config's base model into models_dir; done once, a repeat changes nothing."""
    from store.config import ConfigLoader

    loaded = ConfigLoader(config).load().config
    started = time.monotonic()
    from trainer.convert import pull as convert

    folder = convert(loaded, lambda text: click.echo(text, err=output == "json"))
    seconds = round(time.monotonic() - started, 1)
    if output == "json":
        show_json({"folder": str(folder), "seconds": seconds})
    else:
        click.echo(f"base model ready in {folder} ({seconds} s)")


@models.command()
def template() -> None:
    """Print a generic chat template (ChatML) for a model folder that has none: `… > FOLDER/chat_template.jinja`."""
    from rendering.folders import GENERIC_TEMPLATE

    click.echo(GENERIC_TEMPLATE)
