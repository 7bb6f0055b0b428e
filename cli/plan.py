"""`lorad plan`: what a file would take and meet, before anything runs."""

import shutil
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.options import config_option, format_option, show_json
from core.names import DEFAULT_ADAPTER

if TYPE_CHECKING:
    from cli.prospect import Earlier, FileRows
    from cli.setting import Target
    from core.config import Config
    from core.devices import BaseShape
    from core.estimate import Expected
    from core.forecast import Judgement
    from core.hyperparameters import Settled
    from store.paths import Home
    from trainer.plan import Plan

SCORING_IS_FASTER = 2.0  # than training, a token: forward passes alone, by arithmetic
MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """A file with the config that its job would freeze."""

    target: "Target"
    config: "Config"
    origins: dict[str, str]
    home: "Home"
    adapter: str
    level: str
    priority: int
    not_before: str
    again: bool
    now: datetime
    frozen: "Config | None" = None  # the config as the job would freeze it, before values were settled


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """What the file holds and what becomes of it."""

    rows: "FileRows"
    earlier: "Earlier"
    judgement: "Judgement"
    places: dict[str, list[int]]  # split -> rows of the file that a model can read
    plan: "Plan | None"  # None: nothing to train on
    settled: "Settled"
    note: str


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--adapter", default=DEFAULT_ADAPTER, show_default=True, metavar="PERSONA/DOMAIN")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="As `lorad drop --set`: a config key that a sidecar may set; repeatable.")
@config_option
@format_option()
def plan(file: Path, adapter: str, settings: tuple[str, ...], config: str | None, output: str) -> int:
    """Tokens, steps, memory, disk and time of a training on FILE, whether it could be judged, and where it would queue.

    Nothing is dropped, and nothing runs. A sidecar beside FILE counts as if it were dropped with it. Exit 2 where the job
    would fail, wait for room that is not there, or end in held for want of held-out rows.
    """
    asked = _asked(file, adapter, settings, config)
    found = _found(asked)
    asked = replace(asked, config=found.settled.config, frozen=asked.config)
    told = _told(asked, found)
    if output == "json":
        show_json(told)
    else:
        from cli.plantext import as_text

        click.echo(as_text(told))
    return 2 if told["obstacles"] else 0


def _asked(file: Path, adapter: str, settings: tuple[str, ...], config: str | None) -> _Asked:
    from datetime import UTC

    from cli.drop import parse_settings
    from cli.setting import Asked, sidecar_of, target_of
    from core.config import nest, sidecar_layer
    from core.errors import UsageError
    from core.gate import level_of
    from core.names import parse_adapter
    from store.config import ConfigLoader
    from store.paths import Home

    if file.is_fifo():
        raise UsageError(f"{str(file)!r} is a pipe, and a plan reads its file more than once", hint="write the rows into a file", code="FILE_KIND")
    beside, beside_job = sidecar_of(file)
    values, job = sidecar_layer(nest(parse_settings(settings)), "the command line")
    job = beside_job | job
    resolved = ConfigLoader(config).load(sidecar=nest(beside | values))
    made = resolved.config
    level = level_of(resolved, parse_adapter(adapter), str(job.get("source", "")))
    target = target_of(file, Asked(schema=made.schema_id, level=level, max_length=made.max_length, columns=",".join(made.columns) or None, config=config))
    now = datetime.now(UTC)  # noqa: TID251 - a person asks now
    priority, not_before = int(job.get("priority", 0)), str(job.get("not_before", ""))
    return _Asked(
        target=target,
        config=made,
        origins=resolved.origins,
        home=Home(Path(made.home)),
        adapter=parse_adapter(adapter),
        level=level,
        priority=priority,
        not_before=not_before,
        again=bool(job.get("again", False)),
        now=now,
    )


# ---------------------------------------------------------------- what it holds


def _found(asked: _Asked) -> _Found:
    from cli.prospect import Counter, earlier_of, read_file
    from core.forecast import judge_size
    from core.splits import group_rows
    from store.engines import choose_backend
    from store.seals import hash_file
    from trainer.plan import Plan

    config = asked.config
    is_stub = choose_backend(config).name == "stub"
    counter = Counter("" if is_stub else asked.target.validator.setting.around.base, is_stub=is_stub)
    rows = read_file(asked.target, counter)
    earlier = earlier_of((asked.home, asked.adapter), rows.keys, hash_file(asked.target.file), counter, config.max_length)
    groups = group_rows(rows.keys, earlier.splits)
    readable = {group for place, group in enumerate(groups) if rows.is_kept(place, config.max_length)}
    judgement = judge_size(groups, earlier.splits, config.ranking.min_gate_groups, frozenset(groups) - readable)
    places: dict[str, list[int]] = {"train": [], "dev": [], "gate": []}
    for place, group in enumerate(groups):
        if rows.is_kept(place, config.max_length):
            places[judgement.splits[group]].append(place)
    num_rows = len(places["train"]) + earlier.rows
    settled = _settled(asked, num_rows, max((rows.tokens[place] for place in places["train"]), default=0), len(places["dev"]))
    plan = Plan.of(settled.config, num_rows) if num_rows else None
    note = "; ".join(filter(None, (counter.note, earlier.note)))
    return _Found(rows=rows, earlier=earlier, judgement=judgement, places=places, plan=plan, settled=settled, note=note)


def _settled(asked: _Asked, num_rows: int, longest: int, num_dev: int) -> "Settled":
    """The values that nobody set, as the trainer would settle them on this machine."""
    from core.estimate import shape_of
    from core.hyperparameters import DataFacts, kind_of, limit_of, settle
    from daemon.devices import sensors_here
    from store.bases import described_base

    described, size = described_base(asked.config)
    cards = sensors_here().gpus()
    objective = asked.config.objective if asked.config.objective != "auto" else asked.target.spec.objective
    data = DataFacts(
        num_rows=num_rows,
        kind=kind_of(asked.config, {asked.target.schema_id}, objective),
        objective=objective,
        num_dev=num_dev,
        longest=longest,
        model_max_length=limit_of(described),
        shape=shape_of(described, size) if described else None,
        device="cuda" if cards else "cpu",
        device_memory_bytes=(cards[0].total_bytes or 0) if cards else 0,
    )
    return settle(asked.config, asked.origins, data)


# ---------------------------------------------------------------- what it takes


def _told(asked: _Asked, found: _Found) -> dict[str, Any]:
    """Everything that is printed, as plain values."""
    from core.estimate import shape_of, tokens_of_steps
    from store.bases import base_folder, described_base
    from store.engines import choose_backend

    rows, plan, config = found.rows, found.plan, asked.config
    backend = choose_backend(config)
    described, size = described_base(config) if backend.name != "stub" else ({}, 0)
    shape = shape_of(described, size)
    a_pass = sum(rows.tokens[place] for place in found.places["train"]) + found.earlier.tokens
    tokens = tokens_of_steps(a_pass, plan.num_rows, min(plan.total_rows, plan.total_steps * plan.batch_size)) if plan else 0
    told: dict[str, Any] = {
        "file": str(asked.target.named),
        "adapter": asked.adapter,
        "schema_id": asked.target.schema_id,
        "backend": backend.name,
        "base": base_folder(config).name if backend.name != "stub" else "stub",
        "rows": _rows(found, config),
        "groups": {"new": len(found.judgement.splits) - found.judgement.known, "known": found.judgement.known},
        "earlier": {"drops": found.earlier.drops, "train_rows": found.earlier.rows},
        "tokens": {"a_pass": a_pass, "learnt_a_pass": sum(rows.learnt[p] for p in found.places["train"]) + found.earlier.learnt, "total": tokens},
        "steps": plan.total_steps if plan else 0,
        "batch_size": config.batch_size,
        "epochs": config.training.epochs,
        "checkpoints": sorted(plan.checkpoint_steps) if plan else [],
        "gate": {"level": asked.level, "seconds": _gate_s(asked, len(rows.keys))},
        "judged": _judged(found.judgement),
        "settings": {key: told for key, told in found.settled.record().items() if told["origin"] == "settled"},
        "notes": [*filter(None, [found.note]), *found.settled.warnings],
    }
    told |= _time(asked, found, told, shape)
    told |= {"memory": _memory(asked, found, shape, told["time"]["device"]), "disk": _disk(asked, described), "queue": _queue(asked)}
    return told | {"obstacles": _obstacles(asked, found, told)}


def _rows(found: _Found, config: "Config") -> dict[str, Any]:
    rows = found.rows
    overlong = sum(tokens > config.max_length for tokens in rows.tokens)
    longest = max(rows.tokens, default=0)
    silent = len(rows.keys) - overlong - sum(map(len, found.places.values()))
    counts = {split: len(places) for split, places in found.places.items()}
    return {"in_file": len(rows.keys) + rows.unread, **counts, "overlong": overlong, "silent": silent, "unread": rows.unread, "longest_tokens": longest}


def _gate_s(asked: _Asked, num_rows: int) -> float:
    from core.forecast import GATE_ROWS_S, GATE_START_S

    return round(GATE_START_S[asked.level] + num_rows / GATE_ROWS_S[asked.level], 1)


def _judged(judgement: "Judgement") -> dict[str, Any]:
    from ranking.verdict import rows_for

    new_drop = rows_for(judgement.needed)
    return {"gate_groups": judgement.gate_groups, "needed": judgement.needed, "enough": judgement.is_enough, "missing": judgement.missing, "new_drop": new_drop}


def _time(asked: _Asked, found: _Found, told: dict[str, Any], shape: "BaseShape | None") -> dict[str, Any]:
    from dataclasses import asdict

    from cli.prospect import wanted_of
    from core.estimate import expect, record_of, weights_of
    from store.series import remembered

    ran = remembered(asked.home)
    wanted = wanted_of(asked.config, told["backend"], told["tokens"]["total"], weights_of(shape) if shape else 0, _base_sha256(asked, told["backend"]))
    expected = expect(ran, wanted)
    record = record_of([run for run in ran if run.backend == told["backend"]])
    time: dict[str, Any] = {key: round(value, 1) if isinstance(value, float) else value for key, value in asdict(expected).items()}
    return {"time": {**time, "device": wanted.device, "ranking_s": round(_ranking_s(found, expected), 1)}, "record": asdict(record) if record else None}


def _base_sha256(asked: _Asked, backend: str) -> str:
    from core.errors import LoradError
    from store.bases import STUB_BASE, base_folder, read_base

    if backend == "stub":
        return STUB_BASE
    try:
        return read_base(base_folder(asked.config)).source_sha256
    except LoradError:
        return ""


def _ranking_s(found: _Found, expected: "Expected") -> float:
    """Dev rows for every checkpoint, incumbent and base, gate rows for two models, each started once: a guess from the arithmetic."""
    plan, rows = found.plan, found.rows
    if plan is None:
        return 0.0
    held = {split: sum(rows.tokens[place] for place in found.places[split]) + found.earlier.dev_tokens / 2 for split in ("dev", "gate")}
    tokens = held["dev"] * (len(plan.checkpoint_steps) + 2) + held["gate"] * 3
    return 2 * expected.other_s + tokens / (expected.tokens_per_s * SCORING_IS_FASTER)


def _memory(asked: _Asked, found: _Found, shape: "BaseShape | None", device: str) -> dict[str, Any]:
    from core.estimate import estimate_memory_mb
    from daemon.devices import sensors_here

    sensors = sensors_here()
    is_gpu = device not in ("cpu", "stub")
    cards = sensors.gpus() if is_gpu else []
    seen = cards[0] if cards else sensors.cpu()
    free, total = (None if value is None else value // MIB for value in (seen.free_bytes, seen.total_bytes))
    longest = max([found.earlier.longest, *(found.rows.tokens[place] for place in found.places["train"])])
    needs = estimate_memory_mb(shape, asked.config, gpu=is_gpu, longest=longest) if shape else None
    return {"device": device, "needs_mb": needs, "free_mb": free, "total_mb": total}


def _disk(asked: _Asked, described: dict[str, Any]) -> dict[str, Any]:
    from core.estimate import estimate_disk_bytes
    from core.needs import waiting_words

    place = asked.home.root
    while not place.exists():
        place = place.parent
    free, floor = shutil.disk_usage(place).free, asked.config.retention.min_free_mb * MIB
    needs = estimate_disk_bytes(described, asked.config, asked.target.file.stat().st_size)
    return {"needs_bytes": needs, "free_bytes": free, "floor_bytes": floor, "waits": waiting_words(needs, free, floor)}


def _queue(asked: _Asked) -> dict[str, Any]:
    from cli.prospect import queued_jobs
    from core.forecast import jobs_ahead
    from core.windows import closed_at, in_words
    from daemon.schedules import zone_of
    from store.locks import is_locked
    from store.pauses import read_pause

    schedule = asked.config.schedule
    zone = zone_of(schedule)
    closed = closed_at(schedule.windows, schedule.quiet_hours, asked.now, zone)
    pause = read_pause(asked.home)
    jobs = queued_jobs(asked.home)
    return {
        "ahead": jobs_ahead(jobs, asked.adapter, asked.priority),
        "queued": len(jobs),
        "closed": in_words(closed, zone) if closed else "",
        "opens_at": closed.until.isoformat() if closed and closed.until else None,
        "paused": pause.words if pause else "",
        "not_before": asked.not_before,
        "daemon_runs": is_locked(asked.home.lock),
    }


def _same_job(asked: _Asked, found: _Found, backend: str) -> str:
    """The job that makes the file a duplicate, by the rule of intake; empty: none."""
    from core.identity import drop_identity
    from core.records import JobState
    from store.jobs import read_all
    from store.seals import hash_file

    if asked.again or not found.earlier.same:
        return ""
    identity = drop_identity(hash_file(asked.target.file), asked.adapter, asked.frozen or asked.config, _base_sha256(asked, backend))
    over = (JobState.REFUSED, JobState.FAILED, JobState.CANCELLED)
    return next((job.id for job in read_all(asked.home)[0] if job.card.identity == identity and job.state not in over), "")


def _obstacles(asked: _Asked, found: _Found, told: dict[str, Any]) -> list[str]:
    """Why it would not end in a verdict, in words."""
    from core.abilities import unfit_keys
    from core.gate import TRAINED
    from core.servable import unserved

    config, rows, judgement = asked.config, found.rows, found.judgement
    words = []
    words += [f"{one.words}: it would be refused" for one in unfit_keys(config, told["backend"], asked.target.spec.objective)]
    words += [f"{key} cannot be served ({why}): it would be refused" for key, why in unserved(config)]
    if asked.target.spec.objective not in TRAINED:
        words.append(f"rows of {asked.target.schema_id} are checked, and refused at queueing: no backend trains them")
    if rows.unread:
        words.append(f"{rows.unread:,} lines are no rows of {asked.target.schema_id}: `{asked.target.again()}` says why")
    if job := _same_job(asked, found, told["backend"]):
        words.append(f"{job} has the same rows and is on its way or released: they would be refused; `lorad drop --again` trains on them once more")
    if told["backend"] != "stub" and not _base_sha256(asked, told["backend"]):
        words.append("no base model is here: it would wait; `lorad models pull` fetches it")
    if found.plan is None:
        words.append("no row is left to train on: the job would fail")
    share = told["rows"]["overlong"] / max(1, len(rows.keys))
    if share > config.training.max_overlong_share:
        allowed = f"{config.training.max_overlong_share:.1%} may be left out"
        words.append(f"{share:.1%} of the rows are longer than max_length {config.max_length}; {allowed}: it would fail")
    if not judgement.is_enough:
        more = f"; about {judgement.missing:,} more new conversations would do" if judgement.missing else ""
        words.append(f"{judgement.gate_groups} held-out conversations are too few to judge by, {judgement.needed} are needed: it would end in held{more}")
    memory = told["memory"]
    if memory["needs_mb"] and memory["total_mb"] and memory["needs_mb"] > memory["total_mb"]:
        words.append(f"it needs about {memory['needs_mb']:,} MB of {memory['device']}, which has {memory['total_mb']:,} in all")
    return [*words, *([told["disk"]["waits"]] if told["disk"]["waits"] else [])]
