"""`lorad config`: which value comes from where, and whether a file is right."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from cli.options import config_option, format_option, show_json

RELOADED = "`lorad reload`"  # what most keys wait for


@click.group()
def config() -> None:
    """Show the config with where each value comes from; check a file."""


@config.command()
@config_option
@click.option("--origin", is_flag=True, help="Say where each value comes from: default, config.json, sidecar, command line.")
@click.option("--job", metavar="JOB", help="The config that this job froze when it was made.")
@format_option()
def show(config: str | None, origin: bool, job: str | None, output: str) -> None:
    """Every key with its value; with --origin also where it comes from. Keys that a running daemon does not go by yet are named."""
    values, origins = _of_job(config, job) if job else _of_file(config)
    waiting = {} if job else _waiting(config)
    if output == "json":
        origin_of = {"origins": origins} if origin else {}
        show_json({"values": values, **origin_of, "waiting": waiting})
        return
    for line in _lines(values, origins if origin else {}):
        click.echo(line)
    for key, what in waiting.items():
        click.echo(f"{click.style('waiting', fg='yellow')}: the daemon goes by another {key} until {what}")


@config.command()
@config_option
@click.argument("file", required=False)
@format_option()
def check(config: str | None, file: str | None, output: str) -> None:
    """Whether a config file is right (exit 3 and why, if not). Without FILE: the one that --config names."""
    from core.abilities import unfit_keys
    from core.config import changed_keys
    from store.config import ConfigLoader
    from store.engines import choose_backend

    loader = ConfigLoader(file or config)
    resolved = loader.load()
    follow_names(resolved.config)
    unfit = [one.words for one in unfit_keys(resolved.config, choose_backend(resolved.config).name)]
    running = _in_force(resolved.config.home)
    changed = changed_keys(running, resolved.config) if running is not None else ()
    if output == "json":
        became = [{"alias": found.alias, "key": found.key, "value": found.value, "note": found.note} for found in loader.became]
        known = {"warnings": [*resolved.warnings, *unfit], "differs_from_daemon": list(changed), "aliases": became}
        show_json({"ok": True, "file": str(loader.path)} | known)
        return
    for found in loader.became:
        if not found.is_lost:  # the others are among the warnings
            click.echo(f"  {found.words}")
    for warning in (*resolved.warnings, *unfit):
        click.echo(f"warning: {warning}", err=True)
    held = {key: what for key, what in _waiting(file or config).items() if key in changed and what != RELOADED}
    parts = [f"{loader.path} is right"]
    if now := [key for key in changed if key not in held]:
        parts.append(f"`lorad reload` would change {', '.join(now)}")
    click.echo("; ".join(parts + [f"{key} waits for {what}" for key, what in held.items()]))


def follow_names(config: Any) -> None:
    """What else a config names must be right too: own schemas, profiles, times of schedules. Raises LoradError."""
    from datetime import UTC, datetime

    from daemon.schedules import Times, check_crons, zone_of
    from ranking.metrics.targets import check_metrics
    from rendering.ownspecs import load_specs
    from rendering.profiles import check_profiles
    from rendering.suites import check_suites
    from store.paths import Home
    from validation.profiles import resolve_profile

    load_specs(config.specs, Path())
    for name in (config.validation.profile, *config.validation.profiles):
        resolve_profile(name, config.validation.profiles)
    check_profiles(config)
    check_metrics(config)
    check_suites(config.ranking.suites, Home(Path(config.home)).suites)
    for name, entry in config.schedule.entries.items():
        Times(name, entry, zone_of(config.schedule), datetime.now(UTC))  # noqa: TID251 - a person looks now
    check_crons(config)


def _of_file(config: str | None) -> tuple[dict[str, Any], dict[str, str]]:
    from core.config import flatten
    from store.config import ConfigLoader

    loader = ConfigLoader(config)
    resolved = loader.load()
    foreign = {found.key: f"{resolved.origins[found.key]}: {found.alias}" for found in loader.became if found.key}
    return flatten(resolved.config.model_dump(mode="json")), resolved.origins | foreign


def _of_job(config: str | None, job: str) -> tuple[dict[str, Any], dict[str, str]]:
    from core.config import flatten
    from core.errors import UsageError
    from store.config_file import config_path, home_of
    from store.jobs import CONFIG, find_folder

    found = find_folder(home_of(config_path(config)), job)
    if found is None:
        raise UsageError(f"no job {job!r}", hint="`lorad jobs list` names them", code="JOB_UNKNOWN")
    frozen = json.loads((found[1] / CONFIG).read_text())
    return flatten(frozen["values"]), frozen["origins"]


def _in_force(home: str) -> Any:
    """The config that the daemon of this home goes by; None where none runs, or where another lorad wrote it."""
    from core.config import resolve
    from core.errors import ConfigError
    from store.config_file import read_layer
    from store.locks import is_locked
    from store.paths import Home

    place = Home(Path(home))
    try:
        if not is_locked(place.lock):
            return None
        return resolve({"config.json": read_layer(place.config_in_force)}).config
    except (ConfigError, PermissionError):
        return None


def _waiting(config: str | None) -> dict[str, str]:
    """Keys that the file says otherwise than the daemon that runs -> what makes it follow."""
    from core.config import changed_keys, leaves
    from store.config import ConfigLoader

    wanted = ConfigLoader(config).load().config
    running = _in_force(wanted.home)
    if running is None:
        return {}
    marks = dict(leaves())
    return {key: f"a restart of {marks[key]['restart']}" if "restart" in marks.get(key, {}) else RELOADED for key in changed_keys(running, wanted)}


def _lines(values: dict[str, Any], origins: dict[str, str]) -> Iterator[str]:
    width = max(map(len, values), default=0)
    for key, value in values.items():
        text = json.dumps(value, ensure_ascii=False)
        yield f"{key:{width}}  {text}" + (f"  ({origins[key]})" if key in origins else "")
