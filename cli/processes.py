"""`lorad daemon` and `lorad serve`: the two long-running processes."""

import faulthandler

import click

from cli.options import config_option


def _log_to_stderr() -> None:
    from daemon.logs import log_without_blocking

    faulthandler.enable()  # a watchdog ends a hung process by SIGABRT: its log then says where it hung
    log_without_blocking()


@click.command()
@config_option
def daemon(config: str | None) -> None:
    """Watch the inbox: check, queue, train, rank, ship. TERM lets the trainer write a checkpoint; a second TERM kills."""
    from daemon.logs import say
    from daemon.main import Daemon
    from daemon.notify import Notifier
    from store.config import ConfigLoader

    _log_to_stderr()
    notifier = Notifier.of_environment()
    loader = ConfigLoader(config)
    for warning in loader.load().warnings:
        click.echo(f"warning: {warning}", err=True)
    Daemon(loader, notifier).run(say)


@click.command()
@config_option
def serve(config: str | None) -> None:
    """Serve the base and every released adapter under the OpenAI API, and swap releases in without dropping a request."""
    from daemon.logs import say
    from daemon.notify import Notifier
    from serving.access.jsonlog import log_as_json
    from serving.main import serve as run
    from store.config import ConfigLoader

    _log_to_stderr()
    log_as_json()
    notifier = Notifier.of_environment()

    def ready(address: str) -> None:
        say(address)
        notifier.ready(f"serves {address}")

    run(ConfigLoader(config).load().config, ready, notifier.alive)
