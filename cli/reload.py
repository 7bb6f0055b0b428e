"""`lorad reload`: the daemon reads its config again."""

import click

from cli.options import config_option, format_option


@click.command()
@config_option
@format_option()
def reload(config: str | None, output: str) -> None:
    """Let the daemon read its config again. A bad file changes nothing (exit 2, and why); running jobs go on as they began.

    The answer names what changed, and what waits for a restart of which program. SIGHUP does the same.
    """
    from cli.asking import ask, say
    from core.commands import CommandKind
    from store.config_file import config_path, home_in_force

    say(ask(home_in_force(config_path(config)), CommandKind.RELOAD), output)
