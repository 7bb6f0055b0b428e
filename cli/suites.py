"""`lorad suites`: the regression suites, and one of them put to a model here and now."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.options import config_option, format_option, show_json

if TYPE_CHECKING:
    from core.config import Config
    from rendering.suites import Suite
    from store.paths import Home

SHOWN = 3  # items


@click.group()
def suites() -> None:
    """List regression suites, show one, run one."""


@suites.command("list")
@config_option
@format_option()
def list_them(config: str | None, output: str) -> int:
    """Shipped suites and those in home/suites/. Exit 2 where one of yours is damaged."""
    from core.errors import ConfigError
    from rendering.suites import list_suites, of_names
    from store.engines import has_cuda

    settings, home = _setting(config)
    chosen = {suite.name for suite in of_names(settings.ranking.suites, home.suites, on_gpu=has_cuda(), strict=False)}
    rows: list[dict[str, object]] = []
    for name, path, found in list_suites(home.suites):
        row: dict[str, object] = {"name": name, "file": str(path), "runs": name in chosen}
        if isinstance(found, ConfigError):
            row |= {"fault": found.what}
        else:
            row |= {"items": len(found.items), "scored_by": "answers" if found.is_generated else "likelihood", "sha256": found.sha256, "about": found.about}
        rows.append(row)
    broken = any("fault" in row for row in rows)
    if output == "json":
        show_json(rows)
        return 2 if broken else 0
    for row in rows:
        told = row.get("fault") or f"{row['items']:>5} items by {row['scored_by']:<10}  {row['about']}"
        click.echo(f"{'*' if row['runs'] else ' '} {row['name']:<24} {told}")
    click.echo("* runs before a release (ranking.suites); your own lie in " + str(home.suites))
    return 2 if broken else 0


@suites.command()
@click.argument("name")
@config_option
@format_option()
def show(name: str, config: str | None, output: str) -> None:
    """What suite NAME, or the suite file NAME, asks."""
    import msgspec

    from rendering.suites import Choices

    suite = _suite(name, config)
    if output == "json":
        show_json(
            {
                "name": suite.name,
                "about": suite.about,
                "sha256": suite.sha256,
                "items": [{**msgspec.to_builtins(item), "kind": type(item).__name__} for item in suite.items],
            }
        )
        return
    click.echo(f"{suite.name}: {len(suite.items)} items by {'answers' if suite.is_generated else 'likelihood'}; {suite.about}")
    for item in suite.items[:SHOWN]:
        click.echo(f"\n{item.id}: {item.messages[-1].content}")
        if isinstance(item, Choices):
            for place, choice in enumerate(item.choices):
                said = choice.content or ", ".join(f"{call.name}({call.arguments})" for call in choice.tool_calls)
                click.echo(f"  {'*' if place == item.right else ' '} {said!r}")
        else:
            click.echo("  " + "; ".join(str(check) for check in item.checks))
    if len(suite.items) > SHOWN:
        click.echo(f"\nand {len(suite.items) - SHOWN} more")


@suites.command()
@click.argument("name")
@click.option("--adapter", metavar="A", help="A release (persona/domain@v3, @live, an id), or an adapter folder; else the base.")
@config_option
@format_option()
def run(name: str, adapter: str | None, config: str | None, output: str) -> None:
    """Put suite NAME to the base or to an adapter, on this machine. The result is kept, as the daemon keeps it."""
    import json

    from core.errors import LoradError
    from core.tasks import ScoreModel, ScoreTask
    from rendering.suites import of_names
    from store.bases import base_folder
    from store.config import ConfigLoader
    from store.engines import choose_backend
    from trainer.backends import find
    from trainer.run import RunFolder

    settings, home = _setting(config)
    chosen = of_names([name], home.suites, on_gpu=True)
    folder = _adapter_folder(home, adapter) if adapter else None
    model = ScoreModel(id="base" if folder is None else "adapter", adapter=str(folder) if folder is not None else None)
    backend = choose_backend(settings).name
    with tempfile.TemporaryDirectory(prefix="lorad-suites-") as temporary:
        task = ScoreTask(
            job="suites",
            backend=backend,
            base="" if backend == "stub" else str(base_folder(settings)),
            rows=(),
            split="gate",
            models=(model,),
            settings=ConfigLoader(config).load().config.model_dump(mode="json"),
            suites=chosen,
            cache=str(home.suite_results),
        )
        work = RunFolder(Path(temporary))
        find(backend).score(task, work)
        path = work.scores.get(f"suite/{chosen[0].name}/{model.id}")
        if path is None:
            raise LoradError(f"the suite {name!r} gave no result", hint="see the lines above", code="SUITE_EMPTY")
        header, *rows = (json.loads(line) for line in (work.root / path).read_text(encoding="utf-8").splitlines())
    mean = sum(row["value"] for row in rows) / len(rows)
    if output == "json":
        show_json({"suite": name, "model": adapter or "base", "mean": mean, "items": rows, "header": header})
        return
    click.echo(f"{name}: {mean:.3f} over {len(rows)} items of {adapter or 'the base'}{' (made up: no model)' if header['made_up'] else ''}")
    for row in sorted(rows, key=lambda row: row["value"])[:SHOWN]:
        click.echo(f"  lowest: {row['item']} {row['value']:.3f}")


def _setting(config: str | None) -> "tuple[Config, Home]":
    from store.config import ConfigLoader
    from store.paths import Home

    loaded = ConfigLoader(config).load().config
    return loaded, Home(Path(loaded.home))


def _suite(name: str, config: str | None) -> "Suite":
    from rendering.suites import of_names, read_suite

    if name.endswith(".jsonl"):
        return read_suite(Path(name))
    (found,) = of_names([name], _setting(config)[1].suites, on_gpu=True)
    return read_suite(Path(found.path), found.name)


def _adapter_folder(home: "Home", adapter: str) -> Path:
    if Path(adapter, "adapter_config.json").is_file():
        return Path(adapter)
    from store.vault import resolve

    return resolve(home, adapter).folder
