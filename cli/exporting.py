"""`lorad adapters export`: a version, or any adapter folder, in another form."""

import json
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.options import config_option, format_option, show_json
from core.forms import FORMS, PACKAGE

if TYPE_CHECKING:
    from core.config import Config
    from core.tasks import ExitNote

DEFAULT_EDITION = "normal"
STOPPED = 130
FORM_WORDS = "; ".join(f"{form.name}: {form.says}" for form in FORMS.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """An adapter to export: its folder, the base it belongs to, and its names where it is a release."""

    folder: Path
    base: Path
    adapter: str = ""
    release: str = ""


@click.command("export")
@click.argument("adapter")
@click.option("--form", required=True, type=click.Choice([*FORMS, PACKAGE]), help=f"{FORM_WORDS}; {PACKAGE}: editions with their hashes, for another lorad.")
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Folder to make; it must not be there yet.")
@click.option("--dtype", default="", help="Number format; else the form's first: bf16 for merged, f16 for merged-gguf.")
@click.option("--edition", "editions", multiple=True, metavar="NAME=ADAPTER", help="package: an edition besides ADAPTER (normal), or NAME alone names ADAPTER.")
@click.option("--label", default="", help="package: its semantic version, such as v1.3.0.")
@config_option
@format_option()
def export(adapter: str, form: str, out: Path, dtype: str, editions: tuple[str, ...], label: str, config: str | None, output: str) -> int:
    """Write ADAPTER (persona/domain, a version of it, or a folder in PEFT's layout) in another form.

    Each form is loaded again and asked ten prompts before it is called done; export.json in DIR says how its answers compare.
    Exit 0 done, 2 this form cannot be made of this adapter here, 3 wrong usage, 130 stopped.
    """
    from core.errors import UsageError
    from store.config import ConfigLoader

    if out.exists() or out.is_symlink():
        raise UsageError(f"{str(out)!r} is there already", hint="name another folder, or move that one away", code="OUT_TAKEN")
    if form != PACKAGE and (editions or label):
        raise UsageError(f"--edition and --label belong to --form {PACKAGE}", hint="leave them out", code="OPTION_UNFIT")
    resolved = ConfigLoader(config).load()
    out = out.absolute()
    if form == PACKAGE:
        if dtype:
            raise UsageError("a package holds the adapter as it is", hint="leave --dtype out", code="OPTION_UNFIT")
        told = _pack(resolved.config, adapter, editions, label, out)
    else:
        told = _ask_child(resolved.config, adapter, form, dtype, out, shows=output != "json")
    if output == "json":
        show_json(told)
    elif told.get("stopped"):
        click.echo("stopped; nothing was left")
    else:
        _show(told)
    return STOPPED if told.get("stopped") else 0


def chosen(config: "Config", word: str) -> Chosen:
    """The adapter that `word` names, and the base it was trained on. Raises UsageError, BaseMissingError."""
    from core.errors import BaseMissingError, UsageError
    from store.bases import STUB_BASE, base_folder, base_of_hash, models_dir, read_base
    from store.paths import Home
    from store.vault import resolve

    if (Path(word) / "adapter_config.json").is_file():
        base = base_folder(config)
        read_base(base)
        return Chosen(folder=Path(word).absolute(), base=base)
    release = resolve(Home(Path(config.home)), word)
    manifest = release.manifest
    if manifest.base_sha256 == STUB_BASE:
        raise UsageError(f"{release.adapter}@v{release.version} was made up by the stub: there is nothing to export", hint="train it", code="MADE_UP")
    found = base_of_hash(models_dir(config), manifest.base_sha256)
    if found is None:
        raise BaseMissingError(
            f"the base of {release.adapter}@v{release.version} ({manifest.base_sha256[:12]}) is not in {str(models_dir(config))!r}",
            hint="pull the base that it was trained on: `lorad models pull`",
            code="BASE_MISSING",
        )
    return Chosen(folder=release.folder, base=found, adapter=f"{release.adapter}@v{release.version}", release=release.id)


def _ask_child(config: "Config", word: str, form: str, dtype: str, out: Path, *, shows: bool) -> dict[str, Any]:
    """What export.json says. Raises RefusedError where this form cannot be, LoradError with the child's own words."""
    from cli.foreground import run_child
    from core.forms import form_of
    from core.tasks import ExportTask
    from daemon.cores import threads_for
    from store.codec import write
    from store.encryption import opened
    from store.runs import SPEC

    form_of(form, dtype)
    found = chosen(config, word)
    key_file = config.deploy.encryption_key
    with opened(found.folder, key_file) as plain, tempfile.TemporaryDirectory(prefix="lorad-export-") as run:
        task = ExportTask(form=form, adapter=str(plain), base=str(found.base), out=str(out), settings={"dtype": dtype})
        write(Path(run, SPEC), task)
        note, is_stopped = run_child(Path(run), threads_for(config), lambda line: _tell(line, shows=shows))
    if is_stopped:
        return {"stopped": True, "out": str(out)}
    _require_done(note)
    told: dict[str, Any] = json.loads((out / "export.json").read_bytes())
    return {"out": str(out), "of": found.adapter or str(found.folder), "size_bytes": sum(file["size_bytes"] for file in told["files"].values())} | told


def _require_done(note: "ExitNote") -> None:
    from core.errors import LoradError, RefusedError
    from core.exits import ChildExit

    if note.code != ChildExit.DONE:
        kind = RefusedError if note.code == ChildExit.BAD_SPEC else LoradError
        raise kind(note.reason or "the export ended without a word", hint=note.hint or "try again", code=note.error or "EXPORT_FAILED")


def _tell(line: dict[str, Any], *, shows: bool) -> None:
    if shows and line.get("stage") == "export":
        click.echo(line["doing"], err=True)


def _pack(config: "Config", word: str, editions: tuple[str, ...], label: str, out: Path) -> dict[str, Any]:
    """What the package's manifest says."""
    from store.bases import read_base
    from store.encryption import opened
    from store.packages import Source, size_of_package, write_package
    from trainer.space import full_disk, require_free

    names = dict(_edition(text, word) for text in editions)
    if word not in names.values():
        names = {DEFAULT_EDITION: word} | names
    with ExitStack() as stack:
        sources = []
        for edition, named in names.items():
            found = chosen(config, named)
            plain = stack.enter_context(opened(found.folder, config.deploy.encryption_key))
            base = read_base(found.base)
            sources.append(Source(edition=edition, folder=plain, base=base, base_folder=found.base, adapter=found.adapter, release=found.release))
        needs = size_of_package(sources)
        out.parent.mkdir(parents=True, exist_ok=True)
        require_free(out.parent, needs, "the package")
        with full_disk(out.parent):
            made = write_package(out, sources[0].adapter.partition("@")[0] or sources[0].folder.name, label, sources)
    files = {name: {"sha256": digest, "size_bytes": (out / name).stat().st_size} for name, digest in made.files.items()}
    size = sum(int(str(file["size_bytes"])) for file in files.values())
    return {"out": str(out), "form": PACKAGE, "version": label, "bases": list(made.bases), "editions": list(made.editions), "size_bytes": size, "files": files}


def _edition(text: str, word: str) -> tuple[str, str]:
    name, _, named = text.partition("=")
    return name, named or word


def _show(told: dict[str, Any]) -> None:
    size = told["size_bytes"] / (1 << 20)
    if told["form"] == PACKAGE:
        click.echo(f"package with {', '.join(told['editions'])} in {told['out']}, {size:,.1f} MB")
        return
    click.echo(f"{told['form']} in {told['dtype']}: {told['out']}, {size:,.1f} MB")
    check = told["check"]
    if "prompts" in check:
        click.echo(f"  loaded again: {check['equal']} of {check['prompts']} answers equal, {check['equal_tokens']} of {check['tokens']} tokens")
        moved = f"{check['logprob_moved_mean']:.4f} nats in the mean; the adapter itself moves them by {check['adapter_moves_mean']:.4f}"
        click.echo(f"  log-probabilities moved by {moved}")
    if check.get("why"):
        click.echo(f"  {check['why']}")
