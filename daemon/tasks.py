"""Writes what a child is to do: the spec of each run, from the job's facts and its frozen config."""

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from core.config import Config
from core.evaluation import RankingConfig
from core.progress import BASE, models_to_score
from core.records import Accepted, Job, Kind, Queued, Ranking, Releasing
from core.starting import Incumbent, Start, choose_start, unfit
from core.steps import StartChild
from core.tasks import PackTask, RankTask, RowsOf, ScoreModel, ScoreTask, SuiteOf, Task, TrainTask
from daemon.index import Index
from rendering.suites import of_names
from store.bases import base_folder
from store.codec import read_if_whole
from store.drops import rows_folder
from store.engines import has_cuda
from store.jobs import read_config
from store.runs import SPEC
from store.seals import is_sealed

WORDS: dict[Kind, list[str]] = {Kind.TRAIN: ["trainer"], Kind.SCORE: ["trainer"], Kind.RANK: ["ranking"], Kind.PACK: ["deploy", "pack"]}


def make_task(index: Index, job: Job, step: StartChild) -> Task:
    """The task of the next run of `job`. Reads the job's frozen config."""
    frozen: dict[str, Any] = read_config(index.home, job)
    values: dict[str, Any] = frozen["values"] | {"deploy": frozen["values"].get("deploy", {}) | {"encryption_key": index.config.deploy.encryption_key}}
    frozen = {**frozen, "values": values}  # what is live may be encrypted with a key that was named after the job was made
    match job.facts:
        case Queued():
            return _train(index, job, job.facts, frozen, step.incumbent)
        case Ranking() if step.kind is Kind.SCORE:
            return _score(index, job, job.facts, step.purpose, values)
        case Ranking():
            return _rank(index, job, job.facts, step.purpose, values)
        case Releasing():
            return _pack(index, job, job.facts)
    raise AssertionError(f"{job.state} starts no {step.kind}")


def _rows(index: Index, job: Job) -> tuple[RowsOf, ...]:
    rows = []
    for ref in index.shelf.refs_of(job.card):
        accepted = index.drops[ref.id].facts
        assert isinstance(accepted, Accepted)
        rows.append(RowsOf(drop=ref.id, sha256=ref.sha256, folder=str(rows_folder(index.home, ref.id)), schema_id=accepted.schema_id))
    return tuple(rows)


def _base(index: Index, job: Job) -> str:
    return "" if job.card.backend == "stub" else str(base_folder(index.config))


def _train(index: Index, job: Job, facts: Queued, frozen: dict[str, Any], incumbent: str | None) -> TrainTask:
    runs = index.home.runs(job.id)
    checkpoint = str(runs / facts.checkpoint) if facts.checkpoint and is_sealed(runs / facts.checkpoint) else None
    before = _spec_behind(runs, facts.checkpoint) if checkpoint and facts.checkpoint else None
    rows = _rows(index, job)
    start = _start(index, job, rows, frozen["values"], incumbent) if before is None else Start(release=None, why=before.start_reason)
    release = index.releases[start.release] if start.release is not None else None
    return TrainTask(
        job=job.id,
        backend=job.card.backend,
        base=_base(index, job),
        rows=rows,
        settings=frozen["values"],
        checkpoint=checkpoint,
        micro_batch=facts.micro_batch,
        origins=frozen["origins"],
        this_drop=job.card.drop,
        start=before.start if before else str(release.folder) if release else None,
        learnt=before.learnt if before else tuple(row.drop for row in rows if row.sha256 in start.learnt),
        start_reason=start.why,
        tokens=str(index.home.tokens),
    )


def _spec_behind(runs: Path, checkpoint: str) -> TrainTask | None:
    """What the run of a resume point was to do: a training that goes on keeps the start that it had."""
    return read_if_whole(TrainTask, runs / Path(checkpoint).parts[0] / SPEC)


def _start(index: Index, job: Job, rows: tuple[RowsOf, ...], values: dict[str, Any], incumbent: str | None) -> Start:
    release = index.releases.get(incumbent) if incumbent is not None else None
    wanted = values.get("training", {}).get("start", "base")  # a job of an earlier lorad starts from the base
    live = None
    if release is not None and wanted != "base":
        manifest = release.manifest
        live = Incumbent(
            release=release.id,
            base_sha256=manifest.base_sha256,
            drops=frozenset(manifest.drops),
            made_up=manifest.backend == "stub" != job.card.backend,
            unfit=_unfit(index, manifest.job, values),
        )
    return choose_start(wanted, live, job.card.base_sha256, {row.sha256: _num_rows(index, row.drop) for row in rows})


def _unfit(index: Index, made_by: str, values: dict[str, Any]) -> str:
    """Why a training by these values cannot go on from what the job `made_by` left; empty where it can."""
    try:
        wanted = Config.model_validate(values)
    except ValidationError:  # the trainer says what is wrong with them
        return "the settings of the job cannot be read"
    try:
        made_with = Config.model_validate(read_config(index.home, index.job(made_by))["values"])
    except (KeyError, OSError, ValueError):  # the release came from another home, or its job is gone
        made_with = None
    return unfit(wanted, made_with)


def _num_rows(index: Index, drop: str) -> int:
    accepted = index.drops[drop].facts
    assert isinstance(accepted, Accepted)
    return accepted.rows


def _model(index: Index, job: Job, ranking: Ranking, model: str) -> ScoreModel:
    if model == BASE:
        return ScoreModel(id=BASE, adapter=None)
    for candidate in ranking.candidates:
        if candidate.id == model:
            return ScoreModel(id=model, adapter=str(index.home.runs(job.id) / candidate.path))
    return ScoreModel(id=model, adapter=str(index.releases[model].folder))


def _score(index: Index, job: Job, ranking: Ranking, split: str, values: dict[str, Any]) -> ScoreTask:
    gate = split == "gate"
    models = list(models_to_score(ranking, split))
    assert ranking.best is not None or not gate
    answers, suites = _examined(index, values, gate=gate)
    return ScoreTask(
        job=job.id,
        backend=job.card.backend,
        base=_base(index, job),
        rows=_rows(index, job),
        split="gate" if gate else "dev",
        models=tuple(_model(index, job, ranking, model) for model in models),
        settings=values,
        probe=ranking.best if gate and ranking.best in models else None,
        shift=ranking.best if gate and ranking.best in models else None,
        noise=(ranking.incumbent or BASE) if gate and (ranking.incumbent or BASE) in models else None,
        this_drop=job.card.drop,
        micro_batch=ranking.micro_batch,
        answers=answers,
        suites=suites,
        cache=str(index.home.suite_results),
    )


def _examined(index: Index, values: dict[str, Any], *, gate: bool) -> tuple[int, tuple[SuiteOf, ...]]:
    """How many rows are to be answered, and which suites run.

    Answers to dev rows are for the task metric alone, by which candidates are ordered. Suites run at the gate; on a GPU,
    where they cost little, on every candidate too.
    """
    try:
        wanted = RankingConfig.model_validate(values.get("ranking", {}))
    except ValidationError:  # the child says what is wrong with them
        return 0, ()
    needed = bool(wanted.metric) or (gate and bool(wanted.profile or wanted.targets or wanted.judge.url))
    suites = of_names(wanted.suites, index.home.suites, on_gpu=has_cuda(), strict=False) if gate or has_cuda() else ()
    return wanted.answers if needed else 0, suites


def _rank(index: Index, job: Job, ranking: Ranking, purpose: str, values: dict[str, Any]) -> RankTask:
    runs = index.home.runs(job.id)
    return RankTask(
        job=job.id,
        purpose="verdict" if purpose == "verdict" else "order",
        backend=job.card.backend,
        this_drop=job.card.drop,
        candidates=ranking.candidates,
        incumbent=ranking.incumbent or BASE,
        scores={key: str(runs / path) for key, path in ranking.scores.items()},
        settings=values,
        best=ranking.best,
        looks=ranking.looks,
        rows=_rows(index, job),
        checkpoint=next((str(runs / candidate.path) for candidate in ranking.candidates if candidate.id == ranking.best), ""),
        probe=_probe(runs, ranking, ranking.best) if ranking.best else None,
        cache=str(index.home.votes),
    )


def _pack(index: Index, job: Job, work: Releasing) -> PackTask:
    runs, ranking = index.home.runs(job.id), work.ranking
    best = next(candidate for candidate in ranking.candidates if candidate.id == ranking.best)
    assert work.version is not None
    assert ranking.verdict is not None
    return PackTask(
        job=job.id,
        adapter=job.card.adapter,
        version=work.version,
        backend=job.card.backend,
        checkpoint=str(runs / best.path),
        checkpoint_sha256=best.sha256,
        base=_base(index, job),
        base_sha256=job.card.base_sha256,
        probe=_probe(runs, ranking, best.id),
        verdict=str(runs / ranking.verdict / "verdict.json"),
        parent=ranking.incumbent,
        drops=tuple(ref.sha256 for ref in index.shelf.refs_of(job.card)),
        keys=str(index.home.keys),
        encryption_key=index.config.deploy.encryption_key,
    )


def _probe(runs: Path, ranking: Ranking, best: str) -> str | None:
    """The probe was written by the run that scored the best candidate on the gate split."""
    score = ranking.scores.get(f"gate/{best}")
    path = runs / score.split("/")[0] / "probe.jsonl" if score else None
    return str(path) if path is not None and path.exists() else None
