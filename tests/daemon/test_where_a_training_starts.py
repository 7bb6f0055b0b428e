"""Which adapter a training goes on from, as its spec says it: the live one, or none, and why."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from filled_index import AT, drop, ended, index_of, queued

from core.config import resolve
from core.records import Accepted, DropRef, Job, Kind, Queued
from core.steps import StartChild
from core.tasks import TrainTask
from core.wire import Manifest
from daemon.index import Index
from daemon.tasks import make_task
from store import codec
from store.jobs import create_job, move_job
from store.releases import Release
from store.seals import seal

LIVE, OTHER = "f" * 64, "e" * 64
SHA = {number: f"{number:064x}" for number in range(3)}
INCUMBENT = {"training": {"start": "incumbent"}}
LAYERS = {"stages": [{"name": "a", "layer": "skill"}]}


def put_job(index: Index, number: int, drops: tuple[int, ...], config: dict[str, Any]) -> Job:
    """A job on these drops, of 10 rows each, with its frozen config on the disk."""
    for each in drops:
        one = drop(each)
        assert isinstance(one.facts, Accepted)
        index.keep_drop(replace(one, facts=replace(one.facts, sha256=SHA[each], rows=10)))
    made = queued(number)
    card = replace(
        made.card, adapter="a/main", drop=drop(drops[-1]).id, drops=tuple(DropRef(id=drop(each).id, sha256=SHA[each]) for each in drops), rows_of=None
    )
    assert isinstance(made.facts, Queued)
    job = create_job(index.home, card, made.facts, resolve({"config.json": config}).record())
    index.keep_job(job)
    return job


def put_live(index: Index, release: str, made_by: Job, drops: tuple[int, ...], base: str = "stub") -> None:
    """A release that this job left, which has ended."""
    gone = ended(made_by)
    move_job(index.home, made_by, gone)
    index.keep_job(gone)
    told: dict[str, Any] = {"format": 1, "adapter": "a/main", "version": 1, "job": made_by.id, "backend": "stub", "base_sha256": base}
    told |= dict.fromkeys(("tokenizer_sha256", "template_sha256", "checkpoint_sha256", "verdict_sha256"), "") | {"parent": None, "created_at": AT, "files": {}}
    manifest = Manifest(**told, drops=tuple(SHA[each] for each in drops))
    index.releases[release] = Release(id=release, adapter="a/main", version=1, folder=index.home.release("a/main", 1), manifest=manifest)


def spec_of(index: Index, job: Job, incumbent: str | None = LIVE) -> TrainTask:
    task = make_task(index, job, StartChild(job=job.id, kind=Kind.TRAIN, slot=0, incumbent=incumbent))
    assert isinstance(task, TrainTask)
    return task


def second(folder: Path, wanted: dict[str, Any], made_with: dict[str, Any] | None = None, base: str = "stub", learnt: tuple[int, ...] = (0,)) -> TrainTask:
    """The spec of a job on two drops, the live release being of a job on the first."""
    index = index_of(folder)
    put_live(index, LIVE, put_job(index, 0, learnt, made_with or {}), learnt, base)
    return spec_of(index, put_job(index, 1, (0, 1), wanted))


def test_a_second_drop_goes_on_from_the_live_adapter(tmp_path: Path) -> None:
    task = second(tmp_path, INCUMBENT)
    assert task.start is not None
    assert Path(task.start).relative_to(tmp_path / "home").parts[0] == "adapters"
    assert task.learnt == (drop(0).id,)
    assert len(task.rows) == 2, "all rows are named; the trainer repeats a few of those that are learnt"
    assert task.start_reason == "goes on from the live adapter: 10 rows are learnt, 10 are new"


@pytest.mark.parametrize(
    ("wanted", "more", "why"),
    [
        ({}, {}, "few beside 10 new ones"),
        ({"training": {"start": "base"}}, {}, "says base"),
        (INCUMBENT, {"base": "another"}, "the base is another one"),
        (INCUMBENT, {"learnt": (0, 2)}, "1 drop(s) that are set aside since"),
        (INCUMBENT | LAYERS, {}, "the stages train layers"),
        (INCUMBENT, {"made_with": {"lora": {"targets": "q_proj"}}}, "made with lora.targets = 'q_proj', and 'all-linear' is asked for"),
        (INCUMBENT, {"made_with": {"lora": {"use_rslora": True}}}, "lora.use_rslora = True"),
        (INCUMBENT, {"made_with": {"lora": {"use_dora": True}}}, "lora.use_dora = True"),
        (INCUMBENT, {"made_with": {"profile": {"name": "emoji_think"}}}, "profile.name = 'emoji_think'"),
    ],
)
def test_where_it_cannot_go_on_it_starts_from_the_base_and_says_why(wanted: dict[str, Any], more: dict[str, Any], why: str, tmp_path: Path) -> None:
    task = second(tmp_path, wanted, **more)
    assert (task.start, task.learnt) == (None, ())
    assert why in task.start_reason


def test_stages_without_layers_go_on_from_the_live_adapter(tmp_path: Path) -> None:
    assert second(tmp_path, INCUMBENT | {"stages": [{"name": "a", "share": 0.5}, {"name": "b"}]}).start is not None


def test_a_release_whose_job_is_gone_is_no_start(tmp_path: Path) -> None:
    index = index_of(tmp_path)
    put_live(index, LIVE, made := put_job(index, 0, (0,), {}), (0,))
    del index.ended[made.id]
    task = spec_of(index, put_job(index, 1, (0, 1), INCUMBENT))
    assert task.start is None
    assert "not known here" in task.start_reason


def test_a_resumed_run_keeps_its_start_though_another_adapter_is_live_now(tmp_path: Path) -> None:
    index = index_of(tmp_path)
    put_live(index, LIVE, put_job(index, 0, (0,), {}), (0,))
    job = put_job(index, 1, (0, 1), INCUMBENT)
    first = spec_of(index, job)
    run = index.home.runs(job.id) / "01-train"
    (run / "resume" / "step_000003").mkdir(parents=True)
    codec.write(run / "spec.json", first)
    seal(run / "resume" / "step_000003")
    put_live(index, OTHER, put_job(index, 2, (0, 1), {}), (0, 1))
    assert isinstance(job.facts, Queued)
    resumed = replace(job, facts=replace(job.facts, checkpoint="01-train/resume/step_000003"))
    again = spec_of(index, resumed, OTHER)
    assert (again.start, again.learnt, again.start_reason) == (first.start, first.learnt, first.start_reason)
    assert again.checkpoint is not None
    assert spec_of(index, job, OTHER).start is None, "one that begins anew looks at what is live: it has learnt from all of these drops"
