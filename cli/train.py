"""`lorad train`: one training in the foreground, from a file of rows to an adapter, without a daemon."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.options import format_option, show_json

if TYPE_CHECKING:
    from cli.foreground import Trained
    from core.config import Resolved
    from core.tasks import TrainTask

CONFIGS = (".yaml", ".yml", ".json")
ROWS_KEYS = ("train_file", "training_file", "dataset_path", "dataset", "datasets", "train_data", "data")
INTERRUPTED = 130


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="A config key, lorad's or another tool's; repeatable.")
@click.option("--config", metavar="FILE", help="Config file; else LORAD_CONFIG, else ./config.json, else none: the defaults.")
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="Where the adapter goes; else FILE's name with .adapter.")
@click.option("--continue-from", "start", type=click.Path(path_type=Path), metavar="ADAPTER", help="Go on from this adapter (a PEFT folder) on these rows.")
@click.option("--resume", is_flag=True, help="Go on with the training in --out that was stopped.")
@click.option("--auto", is_flag=True, help="Try three learning rates for a few steps and take the one with the best dev loss.")
@format_option()
def train(file: Path, settings: tuple[str, ...], config: str | None, out: Path | None, start: Path | None, resume: bool, auto: bool, output: str) -> int:
    """Train on FILE here and now: check it, train with live progress, leave a PEFT folder in --out.

    FILE holds rows (JSON Lines), or is a config that names such a file (train_file, dataset, datasets). Ctrl-C seals a
    resume point; --resume goes on from it. Exit 0 trained, 1 failed, 2 the rows were refused, 3 wrong usage, 130 stopped.
    """
    from cli.foreground import train as carry_out
    from daemon.cores import threads_for

    say = _Teller(shows=output != "json")
    rows, resolved = _resolved(file, settings, config, auto)
    folder = (out or Path(f"{rows.name.removesuffix('.jsonl')}.adapter")).absolute()
    task = _resumed(rows, folder, is_changed=bool(settings or auto or start)) if resume else _task(rows, resolved, folder, start, say)
    say.line(f"training on {task.backend}; the work lies in {folder}")
    trained = carry_out(task, folder, threads_for(resolved.config), say.progress)
    say.end()
    told = _told(trained, folder)
    if output == "json":
        show_json(told)
    else:
        _show(told, trained, file, folder)
    return INTERRUPTED if trained.is_stopped else 0


# ---------------------------------------------------------------- what is asked


def _resolved(file: Path, settings: tuple[str, ...], config: str | None, auto: bool) -> "tuple[Path, Resolved]":
    """(the file of rows, the config with everything over it). Raises UsageError, ConfigError."""
    import os

    from cli.drop import parse_settings
    from cli.setting import sidecar_of
    from core.aliases import translate
    from core.config import nest
    from core.errors import UsageError
    from store.config import ConfigLoader
    from store.config_file import ENVIRONMENT, config_path

    if not file.is_file():
        raise UsageError(f"there is no file {str(file)!r}", hint="check the path", code="FILE_MISSING")
    rows, named = file, config
    if file.suffix in CONFIGS:
        if config:
            raise UsageError(f"{str(file)!r} is a config, and --config names another", hint="name one of them", code="TWO_CONFIGS")
        rows, named = _rows_named_in(file), str(file)
    typed = translate(nest(parse_settings(settings)), "the command line")
    layer = typed.layer
    if auto:
        layer = {**layer, "training": {**layer.get("training", {}), "auto_rate": True}}
    has_file = bool(named or os.environ.get(ENVIRONMENT) or config_path(None).exists())
    loader = ConfigLoader(named) if has_file else ConfigLoader.without_file()
    resolved = loader.load(layer, nest(sidecar_of(rows)[0]))
    for warning in (*resolved.warnings, *typed.warnings):
        click.echo(f"warning: {warning}", err=True)
    return rows, resolved


def _rows_named_in(file: Path) -> Path:
    """The file of rows that a config names, beside it where the path is relative. Raises UsageError."""
    from core.errors import UsageError
    from store.config_file import read_layer

    tree = read_layer(file)
    for key in ROWS_KEYS:
        found = tree.get(key)
        if isinstance(found, list) and found:
            found = found[0]
        if isinstance(found, dict):
            found = found.get("path")
        if isinstance(found, str) and found:
            path = file.parent / found
            if path.is_file():
                return path
            raise UsageError(f"{key} in {str(file)!r} names {found!r}, which is no file", hint="name a local JSON Lines file", code="FILE_MISSING")
    raise UsageError(f"the config {str(file)!r} names no rows", hint=f"write train_file: rows.jsonl, or: lorad train ROWS --config {file}", code="ROWS_UNNAMED")


def _resumed(rows: Path, folder: Path, *, is_changed: bool) -> "TrainTask":
    from cli.foreground import next_task
    from core.errors import UsageError

    if is_changed:
        raise UsageError("--resume goes on with the settings as they were", hint="leave the other options out", code="RESUME_CHANGED")
    return next_task(folder, rows)


def _task(rows: Path, resolved: "Resolved", folder: Path, start: Path | None, say: "_Teller") -> "TrainTask":
    from dataclasses import replace

    from cli.foreground import WORK, check_rows, first_task
    from core.abilities import require_able
    from core.errors import UsageError
    from core.starting import begins_on_base
    from rendering.specs import SPECS
    from store.engines import choose_backend
    from trainer.convert import pull

    if start is not None and not (start / "adapter_config.json").is_file():
        raise UsageError(f"{str(start)!r} holds no adapter: it has no adapter_config.json", hint="name a folder in PEFT's layout", code="ADAPTER_MISSING")
    if start is not None and (why := begins_on_base(resolved.config)):
        raise UsageError(f"--continue-from cannot be: {why}", hint="leave it out, or the layers of the stages", code="START_UNFIT")
    if (folder / WORK / "runs").exists():
        raise UsageError(f"{str(folder)!r} holds a training already", hint="go on with it by --resume, or name another --out", code="OUT_TAKEN")
    config = resolved.config
    backend = choose_backend(config)
    say.line(f"backend {backend.name}: {backend.why}")
    require_able(config, backend.name, SPECS[config.schema_id].objective if config.schema_id in SPECS else "")
    if backend.name != "stub":
        pull(config, say.line)
    source = check_rows(rows, config, folder)
    return replace(first_task(resolved, backend.name, source), start=str(start.absolute()) if start is not None else None)


# ---------------------------------------------------------------- what is told


class _Teller:
    """Progress on standard error: one line that moves on a terminal, else a line at each dev loss and every tenth of the way."""

    def __init__(self, *, shows: bool) -> None:
        self._shows = shows
        self._moves = shows and sys.stderr.isatty()
        self._dev: float | None = None
        self._tenth = -1
        self._drawn = False

    def line(self, text: str) -> None:
        """One sentence."""
        if self._shows:
            self.end()
            click.echo(text, err=True)

    def progress(self, line: dict[str, Any]) -> None:
        """One line of progress.jsonl."""
        if not self._shows:
            return
        if line.get("stage") == "dev" and line.get("dev_loss") is not None:
            self._dev = line["dev_loss"]
            self.line(f"step {line['step']} of {line['total_steps']}: dev loss {self._dev:.4f}")
        elif line.get("stage") == "train" and line.get("total_steps"):
            self._step(line)

    def _step(self, line: dict[str, Any]) -> None:
        step, total = line["step"], line["total_steps"]
        text = words_of(line, self._dev)
        if self._moves:
            sys.stderr.write(f"\r\x1b[K{text}")
            sys.stderr.flush()
            self._drawn = True
        elif (tenth := 10 * step // total) > self._tenth:
            self._tenth = tenth
            click.echo(text, err=True)

    def end(self) -> None:
        """Leave the moving line as it is and begin a new one."""
        if self._drawn:
            sys.stderr.write("\n")
            self._drawn = False


def words_of(line: dict[str, Any], dev_loss: float | None) -> str:
    """One step for people: `step 12 of 105  loss 1.234  dev 1.301  812 tokens/s  about 2 min left`."""
    from cli.plantext import duration

    parts = [f"step {line['step']} of {line['total_steps']}"]
    if line.get("loss") is not None:
        parts.append(f"loss {line['loss']:.4f}")
    if dev_loss is not None:
        parts.append(f"dev {dev_loss:.4f}")
    if line.get("tokens_per_s"):
        parts.append(f"{line['tokens_per_s']:,.0f} tokens/s")
    if line.get("eta_s") is not None:
        parts.append(f"about {duration(line['eta_s'])} left")
    return "  ".join(parts)


def _told(trained: "Trained", folder: Path) -> dict[str, Any]:
    from store.runs import read_settings

    note = trained.note
    return {
        "state": "stopped" if trained.is_stopped else "trained",
        "out": str(folder),
        "run": str(trained.run),
        "steps": note.steps,
        "total_steps": note.total_steps,
        "rows": note.rows,
        "tokens": note.tokens,
        "seconds": note.seconds,
        "device": note.device,
        "memory_mb": note.memory_mb,
        "chosen": {key: value for key, value in asdict(trained.chosen).items() if key != "path"} if trained.chosen else None,
        "settings": read_settings(trained.run),
        "can_resume": trained.can_resume,
    }


def _show(told: dict[str, Any], trained: "Trained", file: Path, folder: Path) -> None:
    from cli.jobs import settings_lines
    from cli.plantext import duration

    if trained.is_stopped:
        click.echo(f"stopped after step {told['steps']} of {told['total_steps']}" + ("" if told["can_resume"] else ", before there was anything to keep"))
        click.echo(f"  go on: lorad train {file} --out {folder} --resume")
        return
    speed = told["tokens"] / told["seconds"] if told["seconds"] else 0.0
    click.echo(f"trained {told['steps']:,} steps on {told['rows']:,} rows in {duration(told['seconds'])} on {told['device']}")
    click.echo(f"  {told['tokens']:,} tokens, {speed:,.0f} a second; memory at its peak {told['memory_mb']:,} MB")
    for line in settings_lines(told["settings"]):
        click.echo(f"  {line}")
    chosen = told["chosen"]
    loss = f"the least dev loss: {chosen['dev_loss']:.4f}" if chosen["dev_loss"] is not None else "the last one, as there was no dev row"
    click.echo(f"  checkpoint of step {chosen['step']}, {loss}")
    is_whole = not (folder / "adapter_config.json").exists()  # method full leaves a model
    click.echo(f"{'model' if is_whole else 'adapter'} in {folder}")
    use = f'AutoModelForCausalLM.from_pretrained("{folder}")' if is_whole else f'PeftModel.from_pretrained(base, "{folder}")'
    click.echo(f"  use it: {use}; run, log and settings lie in {trained.run}")
