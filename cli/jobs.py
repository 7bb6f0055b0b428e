"""`lorad jobs`: the queue, and what a person may decide about it."""

import json
from pathlib import Path
from typing import Any

import click

from cli.asking import ask, say
from cli.options import config_option, format_option, show_json
from core.commands import CommandKind
from core.errors import StateError, UsageError
from core.records import Ended, Held, Job, JobState, Ranking, Releasing
from store.config_file import config_path, home_of
from store.locks import is_locked
from store.paths import Home


@click.group()
def jobs() -> None:
    """List, show, pause, resume, cancel, retry, approve, refuse jobs."""


def rows_of(home: Home) -> list[dict[str, Any]]:
    """All jobs, oldest first: the daemon's snapshot while it runs, else read from the job folders."""
    from store.listings import read_jobs

    if is_locked(home.lock) and (rows := read_jobs(home)) is not None:
        return rows
    from daemon.listing import job_row
    from store.jobs import read_all

    if not (home.root / "jobs").is_dir():
        return []
    found, damaged = read_all(home)
    for sentence in damaged:
        click.echo(f"warning: {sentence}", err=True)
    return [job_row(job, 100 if isinstance(job.facts, Ended) else 0, {}) for job in sorted(found, key=lambda job: job.id)]


@jobs.command("list")
@config_option
@format_option()
@click.option("--state", type=click.Choice([state.value for state in JobState]), help="Only jobs in this state.")
def list_jobs(config: str | None, output: str, state: str | None) -> None:
    """All jobs, oldest first."""
    rows = [row for row in rows_of(home_of(config_path(config))) if state in (None, row["state"])]
    if output == "json":
        show_json(rows)
        return
    if not rows:
        click.echo(f"no job is {state}" if state else "no jobs yet; drop a file: lorad drop FILE")
    for row in rows:
        line = f"{row['id']}  {row['state']:<10} {row['progress']:3d} %  {row['adapter']:<20} {row['file']}  {row['reason']}"
        click.echo(line.rstrip())


def _find(home: Home, job: str) -> tuple[Job, Path]:
    from store.jobs import find_folder, read_job

    found = find_folder(home, job) if (home.root / "jobs").is_dir() else None
    if found is None:
        raise UsageError(f"no job {job!r} in {str(home.root)!r}", hint="`lorad jobs list` names them", code="JOB_UNKNOWN")
    return read_job(found[1], found[0]), found[1]


@jobs.command()
@click.argument("job")
@config_option
@format_option()
def show(job: str, config: str | None, output: str) -> None:
    """One job: what it trains on, where it stands, its ranking and verdict."""
    from ranking.report import render
    from store.codec import to_plain

    home = home_of(config_path(config))
    found, folder = _find(home, job)
    order, verdict = evidence(home, found)
    checkpoint = newest_checkpoint(home, job)
    settings = settings_of(home, job)
    if output == "json":
        known = {"settings": settings, "folder": str(folder), "runs": str(home.runs(job)), "checkpoint": str(checkpoint) if checkpoint else None}
        show_json({**to_plain(found), **known, "ranking": _read_json(order), "verdict": _read_json(verdict)})
        return
    click.echo(f"{found.id}  {found.state.value}  adapter {found.card.adapter}  from {found.card.file}")
    click.echo(f"  trains on {found.card.num_drops} drop(s), backend {found.card.backend}, base {found.card.base_sha256[:12]}")
    if reason := getattr(found.facts, "reason", ""):
        click.echo(f"  {reason}")
    if hint := getattr(found.facts, "hint", ""):
        click.echo(f"  what to do: {hint}")
    for line in settings_lines(settings):
        click.echo(f"  {line}")
    if order is not None:
        click.echo(render(order, verdict))
    click.echo(f"  folder {folder}\n  runs   {home.runs(job)}" + (f"\n  newest checkpoint {checkpoint}" if checkpoint else ""))


@jobs.command()
@click.argument("job")
@config_option
@format_option()
def verdict(job: str, config: str | None, output: str) -> int:
    """The verdict of a job by its legs, for scripts: exit 0 where it says promote, 2 where it does not, 1 where there is none."""
    from core.records import VerdictWord
    from ranking.evidence import Verdict
    from ranking.report import verdict_lines
    from store.codec import read

    home = home_of(config_path(config))
    found, _ = _find(home, job)
    _, path = evidence(home, found)
    if path is None:
        raise StateError(f"job {job} is {found.state.value} and has no verdict", hint=f"`lorad jobs show {job}` says how far it is", code="NO_VERDICT")
    given = read(Verdict, path)
    if output == "json":
        show_json(_read_json(path))
    else:
        click.echo("\n".join([given.sentence, *verdict_lines(given)]))
    return 0 if given.word is VerdictWord.PROMOTE else 2


def settings_of(home: Home, job: str) -> dict[str, Any]:
    """What the newest training of a job went by, with reasons: its settings.json; empty before there is one."""
    from store.runs import read_settings

    runs = sorted(home.runs(job).glob("*-train"), reverse=True)
    return next((found for run in runs if (found := read_settings(run))), {})


def settings_lines(settings: dict[str, Any]) -> list[str]:
    """The backend, each value that somebody set or the data settled, and warnings, with the reasons, a line each."""
    if not settings:
        return []
    backend = settings.get("backend", {})
    lines = [f"backend {backend.get('name')}: {backend.get('why')}"]
    told = {key: entry for key, entry in settings.get("values", {}).items() if entry["origin"] != "default"}
    lines += [f"{key} = {entry['value']}  ({entry['origin']}: {entry['why']})" for key, entry in told.items() if entry["origin"] == "settled"]
    lines += [f"{key} = {entry['value']}  ({entry['origin']})" for key, entry in told.items() if entry["origin"] != "settled"]
    return [*lines, *(f"warning: {warning}" for warning in settings.get("warnings", []))]


def newest_checkpoint(home: Home, job: str) -> Path | None:
    """The adapter of the most steps that the job has sealed: a resume point or a kept checkpoint; it can be used by itself."""
    from store.runs import candidates_of, resume_point

    kept = candidates_of(home, job)
    found = [home.runs(job) / path for path in (resume_point(home, job), kept[-1].path if kept else None) if path]
    return max(found, key=lambda folder: folder.name, default=None)


def evidence(home: Home, job: Job) -> tuple[Path | None, Path | None]:
    """Where ranking.json and verdict.json of a job lie, as far as they exist."""
    facts = job.facts
    ranking = facts if isinstance(facts, Ranking) else facts.ranking if isinstance(facts, Held | Releasing) else None
    verdict_run = ranking.verdict if ranking else getattr(facts, "verdict", None)
    runs = home.runs(job.id)
    orders = sorted(runs.glob("*-rank/ranking.json"))
    order = runs / ranking.order / "ranking.json" if ranking and ranking.order else orders[-1] if orders else None
    verdict = runs / verdict_run / "verdict.json" if verdict_run else None
    return order if order and order.exists() else None, verdict if verdict and verdict.exists() else None


def _read_json(path: Path | None) -> dict[str, Any] | None:
    if path is None:
        return None
    found: dict[str, Any] = json.loads(path.read_text())
    return found


@jobs.command()
@click.argument("job")
@config_option
@format_option()
@click.option("--lines", default=40, show_default=True, type=click.IntRange(1), help="Lines of each log.")
def logs(job: str, config: str | None, output: str, lines: int) -> None:
    """The end of the log of each of the job's runs."""
    from store.runs import log_tail

    home = home_of(config_path(config))
    _find(home, job)
    folders = sorted(home.runs(job).iterdir()) if home.runs(job).is_dir() else []
    tails = {run.name: log_tail(run, lines) for run in folders}
    if output == "json":
        show_json(tails)
        return
    for name, tail in tails.items():
        click.echo("\n".join([f"== {name}", *tail]))


@jobs.command()
@click.argument("job")
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Where the page goes; else report-JOB.html here.")
@config_option
@format_option()
def report(job: str, out: Path | None, config: str | None, output: str) -> None:
    """Write a page about a job for a browser or for paper: promoted or not and why, what got better and worse, answers side by side."""
    from cli.reporting import write_report

    home = home_of(config_path(config))
    found, _ = _find(home, job)
    path, absent = write_report(home, found, out or Path(f"report-{job}.html"))
    if output == "json":
        show_json({"page": str(path), "absent": [{"what": one.what, "why": one.why, "how": one.how} for one in absent]})
        return
    click.echo(f"{path}  (open it in a browser; it holds text of rows)")
    for one in absent:
        click.echo(f"  without {one.what}: {one.why}. {one.how}")


@jobs.command()
@click.argument("job")
@config_option
@format_option()
def cancel(job: str, config: str | None, output: str) -> None:
    """Stop a job that is not released yet; its newest checkpoint stays, `lorad jobs show` says where."""
    say(ask(home_of(config_path(config)), CommandKind.CANCEL, job=job), output)


@jobs.command()
@click.argument("job", required=False, default="")
@click.option("--reason", default="", help="Why; it stands in the journal and in status.")
@config_option
@format_option()
def pause(job: str, reason: str, config: str | None, output: str) -> None:
    """Hold back one job, or without JOB all training; what is at work writes a checkpoint and waits."""
    say(ask(home_of(config_path(config)), CommandKind.PAUSE, job=job, reason=reason), output)


@jobs.command()
@click.argument("job", required=False, default="")
@click.option("--reason", default="", help="Why; it stands in the journal.")
@config_option
@format_option()
def resume(job: str, reason: str, config: str | None, output: str) -> None:
    """Take the pause of one job, or without JOB of the whole queue, away."""
    say(ask(home_of(config_path(config)), CommandKind.RESUME, job=job, reason=reason), output)


@jobs.command()
@click.argument("job")
@config_option
@format_option()
def retry(job: str, config: str | None, output: str) -> None:
    """Make a new job on the drop of an ended one."""
    say(ask(home_of(config_path(config)), CommandKind.RETRY, job=job), output)


@jobs.command()
@click.argument("job")
@click.option("--reason", required=True)
@click.option("--force", is_flag=True, help="Even where evidence is missing, or the verdict is against a release that is live no more.")
@config_option
@format_option()
def approve(job: str, reason: str, force: bool, config: str | None, output: str) -> None:
    """Release a held job; actor and reason stand in the journal."""
    if force:
        click.echo(f"warning: {job} is released on your word alone where its evidence is missing or out of date; the journal says so", err=True)
    details = {"force": "yes"} if force else {}
    say(ask(home_of(config_path(config)), CommandKind.APPROVE, job=job, reason=reason, details=details), output)


@jobs.command()
@click.argument("job")
@click.option("--reason", required=True)
@config_option
@format_option()
def refuse(job: str, reason: str, config: str | None, output: str) -> None:
    """Refuse a held job; later jobs do not train on its drop."""
    say(ask(home_of(config_path(config)), CommandKind.REFUSE, job=job, reason=reason), output)
