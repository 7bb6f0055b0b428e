"""Writes what a child is to do: the spec of each run, from the job's facts and its frozen config."""

from pathlib import Path
from typing import Any

from core.progress import BASE, models_to_score
from core.records import Accepted, Job, Kind, Queued, Ranking, Releasing
from core.tasks import PackTask, RankTask, RowsOf, ScoreModel, ScoreTask, Task, TrainTask
from daemon.index import Index
from store.bases import base_folder
from store.drops import rows_folder
from store.jobs import read_config
from store.seals import is_sealed

WORDS: dict[Kind, list[str]] = {Kind.TRAIN: ["trainer"], Kind.SCORE: ["trainer"], Kind.RANK: ["ranking"], Kind.PACK: ["deploy", "pack"]}


def make_task(index: Index, job: Job, kind: Kind, purpose: str) -> Task:
    """The task of the next run of `job`. Reads the job's frozen config."""
    values: dict[str, Any] = read_config(index.home, job)["values"]
    match job.facts:
        case Queued():
            return _train(index, job, job.facts, values)
        case Ranking() if kind is Kind.SCORE:
            return _score(index, job, job.facts, purpose, values)
        case Ranking():
            return _rank(index, job, job.facts, purpose, values)
        case Releasing():
            return _pack(index, job, job.facts)
    raise AssertionError(f"{job.state} starts no {kind}")


def _rows(index: Index, job: Job) -> tuple[RowsOf, ...]:
    rows = []
    for ref in index.shelf.refs_of(job.card):
        accepted = index.drops[ref.id].facts
        assert isinstance(accepted, Accepted)
        rows.append(RowsOf(drop=ref.id, sha256=ref.sha256, folder=str(rows_folder(index.home, ref.id)), schema_id=accepted.schema_id))
    return tuple(rows)


def _base(index: Index, job: Job) -> str:
    return "" if job.card.backend == "stub" else str(base_folder(index.config))


def _train(index: Index, job: Job, facts: Queued, values: dict[str, Any]) -> TrainTask:
    runs = index.home.runs(job.id)
    checkpoint = str(runs / facts.checkpoint) if facts.checkpoint and is_sealed(runs / facts.checkpoint) else None
    return TrainTask(
        job=job.id,
        backend=job.card.backend,
        base=_base(index, job),
        rows=_rows(index, job),
        settings=values,
        checkpoint=checkpoint,
        micro_batch=facts.micro_batch,
    )


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
        this_drop=job.card.drop,
        micro_batch=ranking.micro_batch,
    )


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
    )


def _probe(runs: Path, ranking: Ranking, best: str) -> str | None:
    """The probe was written by the run that scored the best candidate on the gate split."""
    score = ranking.scores.get(f"gate/{best}")
    path = runs / score.split("/")[0] / "probe.jsonl" if score else None
    return str(path) if path is not None and path.exists() else None
