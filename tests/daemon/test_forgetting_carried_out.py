"""An order to forget, carried out on a real home: to its end, and on from wherever a kill came between."""

import gzip
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from forgotten_home import ADAPTER, AT, Ground, add_drop, row

from core.forgets import Stage
from core.names import stamp_after
from core.records import Ended, Job, JobState
from daemon import forgetting
from daemon.forgetting import successor
from store import forgets, jobs, rebuilding
from store.forgets import read_record
from store.rowprints import fingerprint, lines_of
from store.seals import check_seal
from store.snapshots import chore_snapshot, place

CANARY = row("canary")


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    """Two drops, the second with the canary; a release that learnt from both is live; a run, caches, a snapshot, a refused copy."""
    ground = Ground(tmp_path)
    add_drop(ground.home, 1, [row("a"), row("b")])
    ground.restart()
    clean = ground.make_job("job-20260301-000001-000-000001", "drop-20260301-000001-000-000001")
    ground.release(clean, 1)
    add_drop(ground.home, 2, [row("c"), CANARY, row("d"), row("e")])
    ground.restart()
    job = ground.make_job("job-20260301-000002-000-000002", "drop-20260301-000002-000-000002")
    ground.release(job, 2)
    run = ground.home.runs(job.id) / "01-train"
    (run / "samples").mkdir(parents=True)
    (run / "samples" / "answers.jsonl").write_bytes(CANARY)
    (run / "log.txt").write_bytes(CANARY)
    (run / "exit.json").write_text("{}")
    tokens = ground.home.tokens
    for name, drop in (("mine", "drop-20260301-000002-000-000002"), ("other", "drop-9")):
        (tokens / name).mkdir(parents=True)
        (tokens / name / "ids.bin").write_bytes(CANARY)
        (tokens / name / "source.json").write_text(json.dumps({"drop": drop}))
    (ground.home.root / "caches" / "judge").mkdir()
    (ground.home.root / "caches" / "judge" / "votes.gz").write_bytes(gzip.compress(CANARY))
    refused = ground.home.rejected / "drop-7"
    refused.mkdir()
    (refused / "copy.jsonl").write_bytes(row("x") + CANARY + row("y"))
    (refused / "report.md").write_bytes(CANARY)
    chore_snapshot(ground.home, {"id": "20260301-000000-000-home"})
    place(ground.home, "20260301-000000-000-home")
    ground.restart()
    return ground


def canaries(ground: Ground) -> list[str]:
    """Where the text still lies, packed or not, but for the cache of a drop that never held it."""
    found = []
    for path in ground.home.root.rglob("*"):
        raw = path.read_bytes() if path.is_file() else b""
        raw = b"".join(lines_of(path)) if path.suffix == ".zst" else gzip.decompress(raw) if path.suffix == ".gz" else raw
        if b"canary" in raw and "other" not in path.parts:
            found.append(str(path.relative_to(ground.home.root)))
    return found


def to_the_end(ground: Ground, ticks: int = 40) -> None:
    for _ in range(ticks):
        if ground.order.stage is Stage.DONE:
            return
        ground.tick()
        ground.let_retraining_win()
    raise AssertionError(f"stuck in {ground.order.stage}: {ground.order.waits}")


def assert_forgotten(ground: Ground) -> None:
    assert canaries(ground) == []
    record = read_record(ground.home, ground.order.id)
    assert record["state"] == "done"
    after = ground.home.root / "drops" / "accepted" / "drop-20260301-000002-000-000002.1"
    check_seal(after / "rows")
    assert [(part["replaced_by"], part["forgotten"], part["left"]) for part in record["parts"]] == [(after.name, 1, 3)]
    assert list(lines_of(after / "rows" / "rows.jsonl.zst")) == [row("c"), row("d"), row("e")]
    index = [json.loads(line) for line in (after / "rows" / "index.jsonl").read_text().splitlines()]
    assert [(entry["line"], entry["split"]) for entry in index] == [(1, "dev"), (2, "train"), (3, "dev")], "splits as they were recorded for lines 1, 3, 4"
    assert json.loads((after / "original.job.json").read_text()) == {"learning_rate": 1e-4}
    assert sorted(path.name for path in ground.home.root.glob("drops/accepted/*")) == ["drop-20260301-000001-000-000001", after.name]
    assert (ground.home.rejected / "drop-7" / "copy.jsonl").read_bytes() == row("x") + row("y")
    assert sorted(path.name for path in ground.home.root.glob(f"adapters/{ADAPTER}/*")) == ["v1", "v2.gone.json", "v3"]
    (job,) = ground.order.retraining.values()
    (folder,) = ground.home.root.glob(f"jobs/released/*/{job}")
    assert json.loads((folder / "job.json").read_text())["rows_of"]["count"] == 2
    assert len(list(ground.home.root.glob("jobs/*/*/job-*"))) == 3, "one retraining, however often it was killed"


def test_the_row_goes_everywhere_and_the_others_stay(ground: Ground) -> None:
    assert len(canaries(ground)) >= 6
    ground.begin(rows=[fingerprint(CANARY)])
    to_the_end(ground)
    assert_forgotten(ground)
    assert (ground.home.tokens / "other").is_dir()
    assert not (ground.home.root / "forgets" / ground.order.id / "rows.txt").exists()
    assert ground.order.rows == ()
    told = {one.what for one in ground.order.removed}
    assert told == {"release", "refused copy", "runs", "tokens", "cache", "trash", "snapshot"}


class Killed(Exception):
    """The daemon is gone."""


ACTS = (
    (forgetting, ("write_order", "entomb", "place_drop", "sync_tree", "throw_away", "set_purge", "set_pin", "write_entry")),
    (rebuilding, ("delete", "seal", "replace_file")),
    (forgets, ("write", "replace_file")),
)


@contextmanager
def killed_at(number: int, monkeypatch: pytest.MonkeyPatch, *, after: bool) -> Iterator[list[str]]:
    """The daemon is killed right before (or after) the act of this number."""
    done: list[str] = []

    def breaking(act: Any, name: str) -> Any:
        def do(*words: Any, **more: Any) -> Any:
            done.append(name)
            mine = len(done)  # an act may have others inside
            if mine == number and not after:
                raise Killed(name)
            found = act(*words, **more)
            if mine == number:
                raise Killed(name)
            return found

        return do

    with monkeypatch.context() as patch:
        for module, names in ACTS:
            for name in names:
                patch.setattr(module, name, breaking(getattr(module, name), name))
        yield done


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("first", range(1, 49, 2))
def test_a_kill_at_any_act_is_gone_on_from(ground: Ground, monkeypatch: pytest.MonkeyPatch, first: int, *, after: bool) -> None:
    """Killed at one act, started again, killed at the next but one, and so on: each act is cut off in one of these."""
    killed = 0
    with killed_at(first, monkeypatch, after=after) as acts:
        try:
            ground.begin(rows=[fingerprint(CANARY)])
            to_the_end(ground)
        except Killed:
            killed += 1
            ground.restart()
    assert killed or len(acts) < first
    ground.begin(rows=[fingerprint(CANARY)]) if not list(ground.home.root.glob("forgets/*/order.json")) else None
    to_the_end(ground)
    assert_forgotten(ground)


def test_it_says_pending_until_the_far_side_has_confirmed(ground: Ground) -> None:
    ground.box_up = False
    live = ground.live[ADAPTER]
    ground.begin(rows=[fingerprint(CANARY)], at_once=True)
    for _ in range(20):
        ground.tick()
    assert ground.order.stage is Stage.QUEUED, "nobody knows that the old release is off"
    assert ground.home.release(ADAPTER, 2).is_dir()
    ground.box_up = True
    ground.tick()
    ground.box_up = False  # it has changed over, and says nothing of the purge
    for _ in range(20):
        ground.tick()
    assert ground.order.stage is Stage.PURGED
    assert "local confirms" in ground.order.waits
    assert read_record(ground.home, ground.order.id)["state"] == "pending"
    assert not ground.home.release(ADAPTER, 2).is_dir()
    assert canaries(ground) == []
    ground.box_up = True
    to_the_end(ground)
    assert live in ground.purged


def test_at_once_the_newest_release_that_did_not_learn_from_it_answers(ground: Ground) -> None:
    clean = next(one.id for one in ground.index.releases.values() if one.version == 1)
    ground.begin(rows=[fingerprint(CANARY)], at_once=True)
    for _ in range(20):
        ground.tick()
    assert ground.live[ADAPTER] == clean
    assert ground.order.stage is Stage.DONE
    assert [job.state for job in ground.index.jobs.values()] == [JobState.QUEUED], "the retraining comes when it comes"


def test_a_whole_drop_goes_and_an_adapter_without_rows_is_answered_by_the_base(ground: Ground) -> None:
    drops = ["drop-20260301-000001-000-000001", "drop-20260301-000002-000-000002"]
    ground.begin(drops=drops)
    to_the_end(ground)
    assert ground.live[ADAPTER] is None
    assert list(ground.home.root.glob("drops/accepted/*")) == []
    assert ground.order.retraining == {}
    assert canaries(ground) == [], "also the refused copy of one of its rows"
    assert {stone.stem for stone in ground.home.root.glob("drops/forgotten/*")} == set(drops)


def test_a_job_that_trains_on_the_row_ends_and_one_job_takes_over(ground: Ground) -> None:
    waiting = ground.make_job("job-20260301-000009-000-000009", "drop-20260301-000002-000-000002")
    ground.begin(rows=[fingerprint(CANARY)])
    to_the_end(ground)
    ended = ground.index.job(waiting.id)
    assert ended.state is JobState.CANCELLED
    assert isinstance(ended.facts, Ended)
    assert "forgotten" in ended.facts.reason
    (job,) = ground.order.retraining.values()
    assert not ground.index.job(job).card.trains_on("drop-20260301-000002-000-000002", ADAPTER)
    assert ground.index.job(job).card.trains_on("drop-20260301-000002-000-000002.1", ADAPTER)


def test_a_refused_retraining_waits_for_a_person_who_may_say_now(ground: Ground) -> None:
    ground.begin(rows=[fingerprint(CANARY)])
    for _ in range(12):
        ground.tick()
    (job,) = [ground.index.job(one) for one in ground.order.retraining.values()]
    ended = Job(card=job.card, state=JobState.REFUSED, facts=Ended(at=AT, reason="worse"))
    jobs.move_job(ground.home, job, ended)
    ground.restart()
    ground.tick()
    assert "ended refused (worse); `lorad forget now" in ground.order.waits
    ground.forgets.apply(forgetting.RecordForget(order=forgetting.replace(ground.order, at_once=True)), ground.now)
    to_the_end(ground)
    assert canaries(ground) == []


def test_a_row_that_comes_in_again_meanwhile_goes_too(ground: Ground) -> None:
    ground.box_up = False
    ground.begin(rows=[fingerprint(CANARY)])
    for _ in range(12):
        ground.tick()
    add_drop(ground.home, 3, [row("f"), CANARY])
    ground.restart()
    ground.box_up = True
    to_the_end(ground, 80)
    assert canaries(ground) == []
    assert [part.drop for part in ground.order.parts] == ["drop-20260301-000002-000-000002", "drop-20260301-000003-000-000003"]


def test_a_file_that_waits_in_the_inbox_holds_the_order_open(ground: Ground) -> None:
    (ground.home.inbox / "late.jsonl").write_bytes(CANARY)
    ground.begin(rows=[fingerprint(CANARY)])
    for _ in range(30):
        ground.tick()
        ground.let_retraining_win()
    assert ground.order.stage is Stage.PURGED
    assert "inbox/late.jsonl holds the rows again" in ground.order.waits
    (ground.home.inbox / "late.jsonl").unlink()
    to_the_end(ground)


def test_a_successor_stands_right_behind_what_it_replaces() -> None:
    drop = "drop-20260301-120000-000-f12345"
    assert successor(drop) == f"{drop}.1"
    assert successor(successor(drop)) == f"{drop}.2"
    assert drop < successor(drop) < f"drop-{stamp_after(successor(drop), AT, '000000')}"
