"""Options that several verbs share."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def config_option(command: F) -> F:
    """`--config FILE`, passed on as `config: str | None`."""
    return click.option("--config", metavar="FILE", help="Config file (else LORAD_CONFIG, else ./config.json).")(command)


def format_option(*formats: str) -> Callable[[F], F]:
    """`--format`, passed on as `output: str`."""
    return click.option("--format", "output", type=click.Choice(["text", *(formats or ("json",))]), default="text", show_default=True)


def show_json(values: object) -> None:
    """Print JSON, exact and complete."""
    import json

    click.echo(json.dumps(values, indent=1, ensure_ascii=False))
