"""The command line. Each verb lives in a module of its own that is imported when the verb is called.

Exit status: 0 yes or done, 1 failed at run time, 2 a verdict of no, 3 wrong usage, 75 another daemon or server runs.
"""

import importlib
import sys

import click

from core.errors import LoradError

VERBS = {
    "init": ("cli.init", "Write a config, make home, keys and the local target."),
    "daemon": ("cli.processes", "Watch the inbox: check, queue, train, rank, ship."),
    "serve": ("cli.processes", "Serve the base and its adapters (OpenAI API)."),
    "chat": ("cli.chat", "Talk to the served model in the terminal."),
    "keys": ("cli.keys", "Make, list and revoke API keys of this machine's server."),
    "drop": ("cli.drop", "Put files into the inbox the right way."),
    "check": ("cli.check", "Check a file as the gate would, without a daemon."),
    "fix": ("cli.fix", "Write a mended copy of a file."),
    "inspect": ("cli.inspect", "Show which tokens of rows are learnt."),
    "status": ("cli.status", "What lorad is doing, and what is live."),
    "alerts": ("cli.alerts", "List alerts; try the channels by which they are told."),
    "jobs": ("cli.jobs", "List, show, pause, resume, cancel, retry, approve, refuse jobs."),
    "schedule": ("cli.schedule", "What the clock starts, and when training may run."),
    "adapters": ("cli.adapters", "List adapters, their releases and history; roll back."),
    "why": ("cli.why", "Where an answer comes from: release, verdict, run, config, files, rows."),
    "compare": ("cli.comparing", "Two models on the same rows: numbers, answers side by side, a blind rating."),
    "suites": ("cli.suites", "List, show and run regression suites."),
    "curriculum": ("cli.curriculum", "How far skills are learnt: status, set, history, plot."),
    "weaknesses": ("cli.weaknesses", "What an adapter gets wrong again and again: list, show, teach."),
    "feedback": ("cli.feedback", "Signals: status, list, show, add, import, review, accept, reject, flush."),
    "trigger": ("cli.trigger", "When pending signals become a drop: list, explain, try, fire by hand."),
    "continuous": ("cli.continuous", "Whether the loop of an adapter runs by itself: start, stop, status."),
    "iteration": ("cli.iteration", "Rounds of the loop: list, show with stages and criteria, continue, stop."),
    "skills": ("cli.skills", "Teachers of skills: serve, list, status, generate rows."),
    "reload": ("cli.reload", "Let the daemon read its config again."),
    "config": ("cli.config", "Show the config with where each value comes from; check a file."),
    "forget": ("cli.forget", "Forget rows, drops or sources, everywhere, and train again without them."),
    "gc": ("cli.gc", "Delete what retention does not keep."),
    "snapshot": ("cli.backup", "Make and list snapshots of home or of a checkpoint."),
    "backup": ("cli.backup", "Pack state, keys and rows into one file."),
    "restore": ("cli.backup", "Bring back a backup or a snapshot as a new home."),
    "doctor": ("cli.doctor", "Check machine, disk, config, base, targets, units; say what to do."),
    "support-bundle": ("cli.support", "Write one file for whoever helps: no secrets, no text of rows."),
    "plan": ("cli.plan", "What a file would take: tokens, time, memory, disk; whether it could be judged."),
    "train": ("cli.train", "Train on a file here and now, without a daemon."),
    "metrics": ("cli.metrics", "List and explain the metrics by which answers are measured."),
    "deploy": ("cli.deploy", "The inference boxes: set up, check, status, push, history, roll back, adopt."),
    "models": ("cli.models", "List, fetch and recommend base models."),
}


class LazyGroup(click.Group):
    """A group whose verbs are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The verbs in the order of the table; none is imported."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of a verb, imported now; None for an unknown one."""
        if cmd_name not in VERBS:
            return None
        command = getattr(importlib.import_module(VERBS[cmd_name][0]), cmd_name.replace("-", "_"))
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the verbs with their one-line help, without importing them."""
        with formatter.section("Verbs"):
            formatter.write_dl([(name, text) for name, (_, text) in VERBS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(None, "--version", package_name="lorad")
def lorad() -> None:
    """Drop a file of examples; a better adapter is served: checked, trained, ranked, shipped, swapped in.

    Every verb takes --config FILE (else LORAD_CONFIG, else ./config.json).
    """


def main() -> None:
    """Run the command line and exit with its status."""
    try:
        status = lorad.main(standalone_mode=False)
    except click.exceptions.Abort:
        status = 130
    except click.ClickException as error:
        error.show()
        status = 3 if isinstance(error, click.UsageError) else 1
    except LoradError as error:
        click.echo(f"{click.style('error', fg='red')} {error.code}: {error.what}", err=True)
        if error.hint:
            click.echo(f"  {click.style('what to do:', fg='yellow')} {error.hint}", err=True)
        status = error.exit_status
    except BrokenPipeError:
        status = 1
        sys.stderr.close()
    sys.exit(status if isinstance(status, int) else 0)
