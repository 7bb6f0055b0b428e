"""`lorad adapters import`: an adapter of others becomes a signed release, without a verdict and not live."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.options import config_option, format_option

if TYPE_CHECKING:
    from core.config import Resolved
    from deploy.foreign import Rules
    from store.paths import Home

PATIENCE_S = 600.0


@click.command("import")
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--as", "adapter", metavar="ADAPTER", required=True, help="Adapter that it becomes a version of: persona/domain, or shared/NAME.")
@click.option("--alpha", type=float, help="lora_alpha of a bare safetensors file, which does not say it.")
@click.option("--edition", default="", help="Edition of a package: lite, normal, plus, super, or its own name.")
@click.option("--label", help="Semantic version that names it, such as v1.3.0; else that of the package.")
@config_option
@format_option()
def import_(source: Path, adapter: str, alpha: float | None, edition: str, label: str | None, config: str | None, output: str) -> None:
    """Take in SOURCE: a PEFT folder, a safetensors file, a package, each also in a .zip or .tar.gz.

    It becomes the next version of the adapter, with origin imported and no verdict; it serves only once you say so
    (`lorad adapters rollback ADAPTER --to VERSION`). The original is only read. Exit 2 where it is refused.
    """
    import secrets

    from cli.asking import ask, require_daemon, say
    from core.commands import CommandKind
    from core.errors import UsageError
    from core.names import parse_adapter
    from deploy.foreign import stage
    from store.config import ConfigLoader
    from store.paths import Home

    resolved = ConfigLoader(config).load()
    home, name = Home(Path(resolved.config.home)), parse_adapter(adapter, shared=True)
    if not source.exists() and not source.is_symlink():
        raise UsageError(f"there is no {str(source)!r}", hint="check the path", code="FILE_MISSING")
    require_daemon(home)
    folder = home.tmp / f"import-{secrets.token_hex(6)}"  # a daemon's start empties tmp/
    try:
        staged = stage(source, folder, _rules(resolved, alpha, edition))
        _probe(resolved, folder)
        details = {"folder": str(folder), "sha256": staged.sha256, "source": source.name}
        answer = ask(home, CommandKind.IMPORT, PATIENCE_S, adapter=name, details=details)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if wanted := label or staged.label:
        _label(home, name, answer.made, wanted)
    if staged.left_out and output != "json":
        click.echo(f"left out, no part of an adapter: {', '.join(staged.left_out[:20])}", err=True)
    say(answer, output)


def _rules(resolved: "Resolved", alpha: float | None, edition: str) -> "Rules":
    """What this box's config holds an import to. Raises BaseMissingError."""
    from deploy.foreign import Rules
    from store.bases import STUB_BASE, base_folder, read_base
    from store.engines import choose_backend

    config = resolved.config
    is_stub = choose_backend(config).name == "stub"
    base = None if is_stub else base_folder(config)
    return Rules(
        base=base,
        base_sha256=read_base(base).source_sha256 if base is not None else STUB_BASE,
        max_rank=config.serving.max_rank,
        alpha=alpha,
        edition=edition,
        key_file=config.deploy.encryption_key,
    )


def _probe(resolved: "Resolved", folder: Path) -> None:
    """Have the trainer load the adapter on its base and write `probe.jsonl`, by which a server proves what it loaded. Raises RefusedError."""
    from cli.scoringchild import ADAPTER, score, score_task
    from core.errors import LoradError, RefusedError
    from core.tasks import ScoreModel
    from daemon.cores import threads_for

    task = score_task(resolved, (), (ScoreModel(id=ADAPTER, adapter=str(folder / "adapter")),), probe=ADAPTER)
    try:
        score(task, folder / "probe", threads_for(resolved.config))
    except LoradError as error:
        if error.code != "ADAPTER_UNREADABLE":
            raise
        raise RefusedError(error.what, hint=error.hint, code=error.code) from None
    (folder / "probe" / "probe.jsonl").rename(folder / "probe.jsonl")


def _label(home: "Home", adapter: str, release: str, label: str) -> None:
    """Give the import its label; one that is taken already leaves the import as it is, and is told."""
    from cli.asking import ask
    from core.commands import CommandKind
    from core.errors import RefusedError

    try:
        ask(home, CommandKind.MARK, adapter=adapter, to_release=release, details={"label": label})
    except RefusedError as error:
        click.echo(f"imported without the label {label}: {error.what}", err=True)
