"""`lorad deploy rehearse`: a release tried on the boxes that answer, beside what is live, without a flip."""

import time
from typing import TYPE_CHECKING

import click

from cli.asking import ask
from cli.options import config_option, format_option, show_json
from core.commands import CommandKind
from core.errors import LoradError, RefusedError
from store.config_file import config_path, home_of
from store.paths import Home

if TYPE_CHECKING:
    from core.wire import TrialResult

LOOK_S = 0.2


@click.command()
@click.argument("release")
@click.option("--target", default="", help="Only this target; else all.")
@click.option("--wait", "wait_s", type=float, default=600.0, show_default=True, help="Seconds to wait for the answers; it goes on afterwards.")
@config_option
@format_option()
def rehearse(release: str, target: str, wait_s: float, config: str | None, output: str) -> None:
    """Try RELEASE (persona/domain@v3, or the first digits of its id) beside what is live; exit code 2 where a target found it wanting.

    The box loads it, asks the prompts of its probe of both at once, and holds what came back against deploy.rehearsal.
    """
    from store.codec import to_plain
    from store.vault import resolve

    home = home_of(config_path(config))
    found = resolve(home, release)
    answer = ask(home, CommandKind.REHEARSE, adapter=found.adapter, to_release=found.id, details={"target": target})
    results = _wait(home, found.id, answer.command, target, wait_s)
    if output == "json":
        show_json({"release": found.id, "results": {name: to_plain(result) for name, result in results.items()}})
    else:
        for name, result in results.items():
            click.echo(_line(name, result))
    if failed := [name for name, result in results.items() if not result.passed]:
        raise RefusedError(
            f"the rehearsal failed on {', '.join(failed)}", hint="nothing was changed; deploy.rehearsal has the criteria", code="REHEARSAL_FAILED"
        )


def _wait(home: Home, release: str, trial: str, target: str, wait_s: float) -> "dict[str, TrialResult]":
    """The answers of all that were asked. Raises LoradError NOT_CONFIRMED."""
    from store.targets import desired_of, observed_of

    names = [path.name for path in sorted((home.root / "targets").iterdir()) if target in ("", path.name)]
    asked = [name for name in names if (desired := desired_of(home, name)) and release in desired.trials and desired.trials[release].id == trial]
    deadline = time.monotonic() + wait_s
    while True:
        seen = {name: observed.active.trials.get(release) for name in asked if (observed := observed_of(home, name)) and observed.active}
        results = {name: result for name, result in seen.items() if result is not None and result.id == trial}
        if len(results) == len(asked):
            return results
        if time.monotonic() > deadline:
            missing = ", ".join(name for name in asked if name not in results)
            raise LoradError(f"no answer yet from {missing}", hint="`lorad status` shows the targets; ask again later", code="NOT_CONFIRMED")
        time.sleep(LOOK_S)


def _line(name: str, result: "TrialResult") -> str:
    word = "passed" if result.passed else "failed"
    beside = f", the live release {result.live_latency_ms:g} ms" if result.live_latency_ms else ""
    told = f"{name}: {word}; {result.requests} requests, {result.errors} failed, {result.latency_ms:g} ms to the first token{beside}"
    return "\n".join([f"{told}, {result.requests_s:g} answers a second", *(f"  {reason}" for reason in result.reasons)])
