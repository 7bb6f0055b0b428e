"""`lorad daemon` and `lorad serve`: the two long-running processes."""

import logging

import click

from cli.options import config_option


def _log_to_stderr() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")


@click.command()
@config_option
def daemon(config: str | None) -> None:
    """Watch the inbox: check, queue, train, rank, ship. TERM lets the trainer write a checkpoint; a second TERM kills."""
    from daemon.main import Daemon
    from store.config import ConfigLoader

    _log_to_stderr()
    loader = ConfigLoader(config)
    for warning in loader.load().warnings:
        click.echo(f"warning: {warning}", err=True)
    Daemon(loader).run(click.echo)


@click.command()
@config_option
def serve(config: str | None) -> None:
    """Serve the base and every released adapter under the OpenAI API, and swap releases in without dropping a request."""
    from serving.main import serve as run
    from store.config import ConfigLoader

    _log_to_stderr()
    run(ConfigLoader(config).load().config, click.echo)
