"""`lorad models`: the base models, and the sentence model of the gate's deepest level."""

import time
from pathlib import Path

import click

from cli.options import config_option, format_option, show_json


@click.group()
def models() -> None:
    """List, fetch and recommend models."""


@models.command("list")
@config_option
@format_option()
def list_models(config: str | None, output: str) -> None:
    """The models that are ready in models_dir."""
    from core.names import SENTENCE_MODEL
    from store.bases import BASE, base_folder, models_dir, read_base
    from store.config import ConfigLoader
    from store.seals import is_sealed
    from trainer.sentences import read_note

    loaded = ConfigLoader(config).load().config
    folder = models_dir(loaded)
    wanted = base_folder(loaded)
    found = sorted(path for path in folder.iterdir() if is_sealed(path)) if folder.is_dir() else []
    rows: list[dict[str, object]] = []
    for path in found:
        known = read_base(path) if (path / BASE).is_file() else read_note(path)
        rows.append({"name": path.name, "folder": str(path), "source_sha256": known.source_sha256, "licence": known.licence, "chosen": path == wanted})
    if output == "json":
        show_json(rows)
        return
    for row in rows:
        click.echo(f"{'*' if row['chosen'] else ' '} {row['name']:<32} {str(row['source_sha256'])[:12]}  {row['licence']}  {row['folder']}")
    if wanted not in found:
        click.echo(f"  {wanted.name} is named by the config and not here yet: lorad models pull")
    if folder / SENTENCE_MODEL not in found:
        click.echo(f"  {SENTENCE_MODEL}, with which `lorad check --level deep` compares meanings, is not here yet: lorad models pull {SENTENCE_MODEL}")


@models.command()
@click.argument("name", required=False)
@config_option
@format_option()
def pull(name: str | None, config: str | None, output: str) -> None:
    """Fetch and convert the config's base model into models_dir; done once, a repeat changes nothing.

    NAME all-minilm-l6-v2 fetches the sentence model instead, with which the gate's deepest level compares meanings.
    """
    from core.errors import UsageError
    from core.names import SENTENCE_MODEL
    from store.bases import base_folder, models_dir
    from store.config import ConfigLoader
    from trainer.convert import pull as convert
    from trainer.sentences import pull_sentence_model

    loaded = ConfigLoader(config).load().config
    started = time.monotonic()

    def say(text: str) -> None:
        click.echo(text, err=output == "json")

    if name == SENTENCE_MODEL:
        folder = pull_sentence_model(models_dir(loaded), say)
    elif name in (None, loaded.model_name, base_folder(loaded).name):
        folder = convert(loaded, say)
    else:
        raise UsageError(
            f"{name!r} is not a model to pull", hint=f"pull {SENTENCE_MODEL}, or the config's base {base_folder(loaded).name}", code="MODEL_UNKNOWN"
        )
    seconds = round(time.monotonic() - started, 1)
    if output == "json":
        show_json({"folder": str(folder), "seconds": seconds})
    else:
        click.echo(f"{'sentence' if name == SENTENCE_MODEL else 'base'} model ready in {folder} ({seconds} s)")


@models.command("init")
@click.argument("name")
@click.option("--from", "parent", required=True, metavar="BASE", help="Name of a base in models_dir (`lorad models list`).")
@click.option("--add-tokens", "tokens", required=True, metavar="TOKENS", help='New special tokens, joined by commas: "<context>,<response>".')
@config_option
@format_option()
def init_base(name: str, parent: str, tokens: str, config: str | None, output: str) -> None:
    """Make a base of your own in models_dir: BASE with new tokens. Train on it with model_name = NAME."""
    from store.bases import read_base
    from store.config import ConfigLoader
    from trainer.newbase import init_base as make
    from trainer.newbase import tokens_of

    wanted = tokens_of(tokens)
    folder = make(ConfigLoader(config).load().config, name, parent, wanted, lambda text: click.echo(text, err=output == "json"))
    if output == "json":
        base = read_base(folder)
        show_json({"name": name, "folder": str(folder), "source_sha256": base.source_sha256, "source": base.source, "licence": base.licence, "tokens": wanted})
    else:
        click.echo(f"train on it with: model_name = {name!r}")


@models.command("recommend")
@click.option("--data", type=click.Path(exists=True, path_type=Path), metavar="FILE", help="What is to be trained on; else 1,000 rows of 300 tokens.")
@config_option
@format_option()
def recommend_base(data: Path | None, config: str | None, output: str) -> int:
    """Which base fits this device, its memory and the data, with reasons and licence; from a table, no network. Exit 2: none fits."""
    from cli.recommending import as_text, recommend

    told = recommend(data, config)
    if output == "json":
        show_json(told)
    else:
        click.echo(as_text(told))
    return 0 if told["recommended"] else 2


@models.command()
def template() -> None:
    """Print a generic chat template (ChatML) for a model folder that has none: `… > FOLDER/chat_template.jinja`."""
    from rendering.folders import GENERIC_TEMPLATE

    click.echo(GENERIC_TEMPLATE)
