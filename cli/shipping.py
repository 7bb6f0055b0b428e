"""`lorad deploy check|push|adopt`: looking at a target from here, sending to it by hand, taking it over."""

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.options import config_option, format_option, show_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from core.config import Config
    from core.deployment import TargetConfig
    from core.wire import Observed
    from store.paths import Home

PATIENCE_S = 120.0


@click.command()
@click.argument("target", required=False)
@config_option
@format_option()
def check(target: str | None, config: str | None, output: str) -> int:
    """What is wrong with a target (else with each), and the command that mends it. Exit 2: something is."""
    from deploy.examination import examine
    from store.child import clock

    loaded = _loaded(config)
    rows = []
    for one in _wanted(loaded, target):
        for found in examine(loaded, one, clock):
            rows.append({"target": one.name, "code": found.code, "is_problem": bool(found.mend), "what": found.what, "mend": found.mend})
            if output == "text":
                mark = click.style("problem", fg="red") if found.mend else click.style("ok     ", fg="green")
                click.echo(f"{mark} {found.code}: {found.what}" + (f"\n        what to do: {found.mend}" if found.mend else ""))
    if output == "json":
        show_json(rows)
    return 2 if any(row["is_problem"] for row in rows) else 0


@click.command()
@click.argument("target", required=False)
@click.option("--base", is_flag=True, help="Send the base model instead; serving takes it in when it starts.")
@config_option
@format_option()
def push(target: str | None, base: bool, config: str | None, output: str) -> None:
    """Send now what is wished of a target (else of each), and wait until it has answered; the daemon does it by itself."""
    loaded, told = _loaded(config), []
    for one in _wanted(loaded, target):
        if base:
            from deploy.bases import push_base

            sent = push_base(loaded, one, lambda text: click.echo(text, err=output == "json"))
            told.append({"target": one.name, "base": sent.name, "bytes": sent.num_bytes})
            text = f"base {sent.name} lies on {one.name}; next, there: systemctl restart lorad-serve"
        else:
            seen = _push(loaded, one)
            told.append({"target": one.name, "fence": seen.active.fence_seen if seen.active else 0})
            text = f"{one.name} has answered to all that it was asked"
        if output == "text":
            click.echo(text)
    if output == "json":
        show_json(told)


def _push(config: "Config", target: "TargetConfig") -> "Observed":
    """Turn until the target has answered to the whole wish. Raises LoradError: what stands in the way, or NOT_CONFIRMED."""
    from core.errors import LoradError
    from deploy.delivery import is_settled
    from deploy.failures import BY_HAND
    from store.paths import Home
    from store.targets import desired_of

    home = Home(Path(config.home))
    until, seen = time.monotonic() + PATIENCE_S, None
    for seen in _looks(home, target):
        if is_settled(desired_of(home, target.name), seen) and not seen.code:
            return seen
        if seen.code in BY_HAND or seen.code == "FENCE_FOREIGN" or time.monotonic() > until:
            break
    if seen is not None and seen.code:
        raise LoradError(seen.reason, hint=seen.hint, code=seen.code)
    raise LoradError(f"target {target.name!r} has not answered yet", hint=f"it stays wished for; `lorad deploy check {target.name}`", code="NOT_CONFIRMED")


def _looks(home: "Home", target: "TargetConfig") -> "Iterator[Observed]":
    """What is seen of a target, again and again: by the daemon's link where one runs, else by turns of our own."""
    from deploy.delivery import Delivery
    from deploy.link import LOCK
    from deploy.rsync import road_to
    from deploy.ssh import hang_up
    from store.child import clock
    from store.locks import is_locked, take_lock
    from store.targets import observed_of

    while is_locked(home.target(target.name) / LOCK):
        seen = observed_of(home, target.name)
        if seen is not None:
            yield seen
        time.sleep(0.3)
    lock = take_lock(home.target(target.name) / LOCK, f"pid {os.getpid()}", f"target {target.name!r}", hint="the daemon's link runs: try again")
    try:
        delivery = Delivery(home, road_to(target, home), clock)
        while True:
            yield delivery.turn()
            time.sleep(delivery.pause_s)
    finally:
        if target.kind == "ssh":
            hang_up(target, home)
        os.close(lock)


@click.command()
@click.argument("target")
@config_option
@format_option()
def adopt(target: str, config: str | None, output: str) -> None:
    """Take a target over from another training box, as it is: from now on it listens to this home, and no more to the other."""
    from core.errors import StateError
    from deploy.delivery import OUT_FILES
    from deploy.rsync import fetch, road_to
    from store import targets
    from store.child import clock
    from store.locks import is_locked
    from store.paths import Home

    loaded = _loaded(config)
    (found,) = _wanted(loaded, target)
    home = Home(Path(loaded.home))
    if is_locked(home.lock):
        hint = "stop it (`systemctl stop lorad`), adopt, start it again"
        raise StateError("the daemon runs: it may be asking the target for something right now", hint=hint, code="DAEMON_RUNS")
    home.prepare()
    fetch(road_to(found, home), OUT_FILES, targets.mirror(home, found.name))
    desired = targets.adopt(home, found.name, clock())
    _push(loaded, found)
    if output == "json":
        show_json({"target": found.name, "fence": desired.fence, "adapters": {alias: wish.release for alias, wish in desired.aliases.items()}})
    else:
        click.echo(f"{found.name} listens to this home from fence {desired.fence} on; its {len(desired.aliases)} adapters stay as they are")


def _loaded(config: str | None) -> "Config":
    from store.config import ConfigLoader

    return ConfigLoader(config).load().config


def _wanted(config: "Config", target: str | None) -> "tuple[TargetConfig, ...]":
    """The named target, else all. Raises UsageError TARGET_UNKNOWN."""
    from deploy.link import target_named

    return (target_named(config.deploy.targets, target),) if target else config.deploy.targets
