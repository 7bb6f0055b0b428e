"""The home: folders, locks, jobs as folders, drops taken by rename."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from core.errors import IntegrityError, LockHeldError, StateError, UsageError
from core.lifecycle import Event, step
from core.records import Accepted, Claim, Deep, Drop, DropRef, DropState, Ended, Gating, Job, JobCard, JobState, Queued, Settling
from store import drops, jobs
from store.locks import is_locked, take_lock
from store.paths import Home
from store.seals import check_seal, is_sealed, seal

NOW = datetime(2026, 5, 6, 7, 8, 9, tzinfo=UTC)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path / "home")
    made.prepare()
    return made


def card(job: str = "job-1") -> JobCard:
    return JobCard(
        id=job,
        adapter="a/main",
        drop="drop-1",
        file="x.jsonl",
        sha256="0",
        identity="1",
        created_at=NOW,
        drops=(),
        base_sha256="b",
        backend="stub",
    )


def test_a_home_of_a_newer_format_is_refused(home: Home) -> None:
    (home.root / "format.json").write_text('{"format": 99}')
    with pytest.raises(StateError, match="format 99"):
        home.prepare()


def test_the_folder_is_the_state_and_a_state_file_of_another_state_is_ignored(home: Home) -> None:
    job = jobs.create_job(home, card(), Queued(since=NOW), {"values": {}})
    assert os.listdir(home.root / "jobs" / "queued") == ["job-1"]
    after, _ = step(job, Event.CANCEL, Ended(at=NOW, reason="cancelled"))
    # a crash after the state file and before the rename: the job is still queued
    jobs.write(jobs.job_folder(home, job) / "cancelled.json", after.facts)
    assert [(found.id, found.state) for found in jobs.read_all(home)[0]] == [("job-1", JobState.QUEUED)]
    jobs.move_job(home, job, after)
    assert (home.root / "jobs" / "cancelled" / "2026-05" / "job-1").is_dir()
    assert [(found.id, found.state) for found in jobs.read_all(home)[0]] == [("job-1", JobState.CANCELLED)]


def test_making_a_job_twice_makes_it_once(home: Home) -> None:
    first = jobs.create_job(home, card(), Queued(since=NOW), {})
    again = jobs.create_job(home, card(), Queued(since=NOW, reason="other"), {})
    assert again == first


def test_the_card_of_a_queued_job_may_lose_a_drop(home: Home) -> None:
    job = jobs.create_job(home, replace(card(), drops=(DropRef(id="drop-1", sha256="0"), DropRef(id="drop-2", sha256="0"))), Queued(since=NOW), {})
    after = replace(job, card=replace(job.card, drops=job.card.drops[1:]))
    jobs.replace_card(home, after)
    assert jobs.read_all(home)[0] == [after]


def test_a_damaged_record_is_named_and_left_alone(home: Home) -> None:
    job = jobs.create_job(home, card(), Queued(since=NOW), {})
    (jobs.job_folder(home, job) / "queued.json").write_text('{"since": "2026')
    found, damaged = jobs.read_all(home)
    assert found == []
    assert "queued.json" in damaged[0]
    assert (home.root / "jobs" / "queued" / "job-1" / "job.json").exists()


def test_a_record_of_an_older_or_newer_lorad_keeps_its_known_keys(home: Home) -> None:
    job = jobs.create_job(home, card(), Queued(since=NOW), {})
    path = jobs.job_folder(home, job) / "queued.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"from_the_future": 1}))
    assert jobs.read_all(home)[0] == [job]


def _claim(home: Home, name: str = "x.jsonl", sidecar: str | None = None) -> Claim:
    path = home.inbox / name
    path.write_text('{"a": 1}\n')
    found = path.stat()
    return Claim(
        drop="drop-1",
        adapter="a/main",
        source=name,
        device=found.st_dev,
        inode=found.st_ino,
        size_bytes=found.st_size,
        mtime_ns=found.st_mtime_ns,
        file=name,
        sidecar=sidecar,
        claimed_at=NOW,
    )


def test_a_claim_that_was_broken_off_before_the_rename_is_finished(home: Home) -> None:
    (home.inbox / "x.job.json").write_text("{}")
    drop = drops.begin_claim(home, _claim(home, sidecar="x.job.json"), Settling(since=NOW))
    assert drops.is_at_source(home, drop.claim)
    [found] = drops.read_drops(home)
    drops.finish_claim(home, found)
    drops.finish_claim(home, found)  # a repeat changes nothing
    assert not drops.is_at_source(home, drop.claim)
    assert {entry.name for entry in drops.drop_folder(home, drop).iterdir()} == {"claim.json", "original", "original.job.json"}


def test_a_namesake_that_came_later_is_not_taken_for_the_claimed_file(home: Home) -> None:
    drop = drops.begin_claim(home, _claim(home), Settling(since=NOW))
    (home.inbox / "x.jsonl").rename(home.inbox / "kept")
    (home.inbox / "x.jsonl").write_text("another")
    assert not drops.is_at_source(home, drop.claim)


def test_a_file_that_changed_after_the_claim_is_seen(home: Home) -> None:
    drop = drops.begin_claim(home, _claim(home), Settling(since=NOW))
    drops.finish_claim(home, drop)
    assert drops.is_unchanged(home, drop)
    with open(drops.drop_folder(home, drop) / drops.ORIGINAL, "a") as file:
        file.write("more")
    assert not drops.is_unchanged(home, drop)


def test_a_rejected_drop_keeps_its_file_under_the_name_it_came_with(home: Home) -> None:
    drop = drops.begin_claim(home, _claim(home), Settling(since=NOW))
    drops.finish_claim(home, drop)
    folder = drops.reject_drop(home, drop, {"report.json": "{}", "report.md": "#"})
    assert folder == home.drop(DropState.REJECTED, "drop-1")
    assert (folder / "x.jsonl").read_text() == '{"a": 1}\n'
    assert list(drops.read_drops(home)) == []


def test_a_rejection_that_was_broken_off_keeps_the_file_and_is_finished(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    drop = drops.begin_claim(home, _claim(home), Settling(since=NOW))
    drops.finish_claim(home, drop)

    def killed(folder: Path, claim: Claim) -> None:
        raise OSError("killed after the deciding rename")

    with monkeypatch.context() as context:
        context.setattr(drops, "name_as_dropped", killed)
        drops.reject_drop(home, drop, {"report.json": "{}"})
    assert list(drops.read_drops(home)) == []
    drops.finish_rejections(home)
    drops.finish_rejections(home)
    assert (home.drop(DropState.REJECTED, "drop-1") / "x.jsonl").read_text() == '{"a": 1}\n'


def test_a_claim_whose_file_vanished_gives_its_sidecar_back(home: Home) -> None:
    (home.inbox / "x.job.json").write_text('{"priority": 3}')
    drop = drops.begin_claim(home, _claim(home, sidecar="x.job.json"), Settling(since=NOW))
    (home.inbox / "x.jsonl").unlink()
    drops.finish_claim(home, drop)
    drops.forget_claim(home, drop)
    assert (home.inbox / "x.job.json").read_text() == '{"priority": 3}'
    assert list(drops.read_drops(home)) == []


def test_rows_that_were_placed_before_a_failed_acceptance_are_kept(home: Home) -> None:
    drop = drops.begin_claim(home, _claim(home), Settling(since=NOW))
    checked = home.tmp / "gate" / "drop"
    checked.mkdir(parents=True)
    (checked / "index.jsonl").write_text("{}")
    seal(checked)
    drops.place_rows(home, drop, checked)
    drops.place_rows(home, drop, checked)
    assert (drops.drop_folder(home, drop) / "rows" / "index.jsonl").read_text() == "{}"


def _accepted(home: Home) -> Drop:
    """A drop that is accepted, with sealed rows; what was dropped lies beside them."""
    drop = drops.begin_claim(home, _claim(home), Settling(since=NOW))
    drops.finish_claim(home, drop)
    checked = home.tmp / "gate" / "drop"
    checked.mkdir(parents=True)
    for name in ("rows.jsonl.zst", "index.jsonl", "report.json"):
        (checked / name).write_text("first")
    seal(checked)
    drops.place_rows(home, drop, checked)
    facts = Accepted(at=NOW, job="job-1", sha256="0", identity="1", rows=1, schema_id="chat_sft_v1", deep=Deep())
    after = replace(drop, state=DropState.ACCEPTED, facts=facts)
    drops.move_drop(home, drop, after)
    return after


def test_a_later_result_of_the_gate_takes_the_place_of_the_first_and_the_seal_holds(home: Home) -> None:
    drop = _accepted(home)
    later = home.tmp / "deep" / "drop"
    later.mkdir(parents=True)
    for name in ("report.json", "signatures.npz"):
        (later / name).write_text("second")
    seal(later)
    for _ in range(2):  # a repeat changes nothing
        drops.take_over(home, drop, later)
    rows = drops.rows_folder(home, "drop-1")
    check_seal(rows)
    assert {path.name: path.read_text() for path in rows.iterdir() if path.name != "SEALED"} == {
        "rows.jsonl.zst": "first",
        "index.jsonl": "first",
        "report.json": "second",
        "signatures.npz": "second",
    }


def test_a_record_of_an_accepted_drop_from_before_the_deep_check_reads_back(home: Home) -> None:
    drop = _accepted(home)
    path = drops.drop_folder(home, drop) / "accepted.json"
    old = {key: value for key, value in json.loads(path.read_text()).items() if key not in ("deep", "level", "quarantined")}
    path.write_text(json.dumps(old))
    [found] = drops.read_drops(home)
    assert isinstance(found.facts, Accepted)
    assert found.facts.is_proven


def test_an_accepted_drop_that_is_refused_after_all_leaves_under_its_own_name(home: Home) -> None:
    drop = _accepted(home)
    drops.keep_reports(home, drop, {"report.json": "{}"})
    folder = drops.reject_drop(home, drop, {"report.json": "{}", "report.md": "#"})
    assert (folder / "x.jsonl").read_text() == '{"a": 1}\n'
    assert not (folder / "rows").exists()
    assert list(drops.read_drops(home)) == []


def test_rows_that_are_the_only_copy_are_never_deleted(home: Home) -> None:
    drop = _accepted(home)
    drops.discard_original(home, drop)
    folder = drops.reject_drop(home, drop, {"report.json": "{}"})
    assert (folder / "rows" / "rows.jsonl.zst").read_text() == "first"


def _folder_claim(home: Home, *sidecars: str) -> Claim:
    folder = home.inbox / "x.drop"
    (folder / "images").mkdir(parents=True)
    (folder / "rows.jsonl").write_text("{}\n")
    for name in sidecars:
        (folder / name).write_text('{"priority": 2}')
    found = folder.stat()
    return replace(_claim(home), source="x.drop", file="x.drop", inode=found.st_ino, size_bytes=found.st_size, mtime_ns=found.st_mtime_ns)


def test_a_folder_is_claimed_rejected_and_discarded_whole(home: Home) -> None:
    drop = drops.begin_claim(home, _folder_claim(home), Settling(since=NOW))
    drops.finish_claim(home, drop)
    assert drops.is_unchanged(home, drop), "a rename changes nothing of it"
    assert (drops.drop_folder(home, drop) / drops.ORIGINAL / "rows.jsonl").exists()
    folder = drops.reject_drop(home, drop, {"report.json": "{}"})
    assert (folder / "x.drop" / "images").is_dir()


@pytest.mark.parametrize("how", ["killed", "a full disk"])
def test_a_folder_whose_rejection_was_broken_off_is_found_again(home: Home, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    drop = drops.begin_claim(home, _folder_claim(home), Settling(since=NOW))
    drops.finish_claim(home, drop)

    def broken_off(source: Path, destination: Path) -> None:
        raise KeyboardInterrupt if how == "killed" else OSError("no space left")

    monkeypatch.setattr(drops, "move", broken_off)
    with pytest.raises((KeyboardInterrupt, OSError)):
        drops.reject_drop(home, drop, {"report.json": "{}"})
    monkeypatch.undo()
    for _ in range(2):
        drops.finish_rejections(home)
    assert drops.is_unchanged(home, drop)
    assert (drops.reject_drop(home, drop, {"report.json": "{}"}) / "x.drop" / "rows.jsonl").exists()


def test_a_folder_whose_rows_are_safe_is_discarded(home: Home) -> None:
    drop = _accepted(home)
    original = drops.drop_folder(home, drop) / drops.ORIGINAL
    original.unlink()
    original.mkdir()
    (original / "outside").symlink_to(home.root)
    drops.discard_original(home, drop)
    assert not original.exists()
    assert home.root.exists()


@pytest.mark.parametrize("inside", [("rows.job.json",), ("any.job.json",)])
def test_a_sidecar_may_lie_in_the_folder(home: Home, inside: tuple[str, ...]) -> None:
    drop = drops.begin_claim(home, _folder_claim(home, *inside), Settling(since=NOW))
    drops.finish_claim(home, drop)
    folder = drops.drop_folder(home, drop)
    assert drops.read_sidecar(folder) == {"priority": 2}
    (folder / drops.SIDECAR).write_text("{}")
    with pytest.raises(UsageError, match="2 sidecars"):
        drops.read_sidecar(folder)


def test_a_lock_is_held_by_one_process_and_freed_by_its_death(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    code = f"import sys, time; from pathlib import Path; from store.locks import take_lock\ntake_lock(Path({str(path)!r}), 'pid 1', 'x', hint='')\n"
    code += "print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert is_locked(path)
        with pytest.raises(LockHeldError, match="pid 1"):
            take_lock(path, "me", "x", hint="")
        holder.kill()
    assert not is_locked(path)
    os.close(take_lock(path, "me", "x", hint=""))


def test_a_lock_file_that_somebody_deleted_does_not_give_two_locks(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    first = take_lock(path, "first", "x", hint="")
    path.unlink()
    second = take_lock(path, "second", "x", hint="")  # a new inode: the old holder must notice by itself
    assert os.fstat(second).st_ino == path.stat().st_ino
    assert os.fstat(first).st_ino != path.stat().st_ino
    os.close(first)
    os.close(second)


def test_ended_facts_carry_their_month(home: Home) -> None:
    ended = Job(card=card(), state=JobState.FAILED, facts=Ended(at=NOW))
    assert jobs.job_folder(home, replace(ended)).parent.name == "2026-05"
    with pytest.raises(IntegrityError):
        jobs.read_job(home.root, JobState.QUEUED)


# ---------------------------------------------------------------- many at once


def _claims(home: Home, count: int) -> list[Claim]:
    return [replace(_claim(home, f"{number}.jsonl"), drop=f"drop-{number}") for number in range(count)]


def test_claims_and_jobs_that_are_made_together_are_what_they_are_one_by_one(home: Home) -> None:
    claimed = drops.begin_claims(home, _claims(home, 5))
    assert all(drops.is_at_source(home, drop.claim) for drop in claimed)
    drops.finish_claims(home, claimed)
    assert sorted(drops.read_drops(home), key=lambda drop: drop.id) == claimed
    wanted = [(replace(card(), id=f"job-{number}"), Queued(since=NOW), {"values": {}}) for number in range(5)]
    made = jobs.create_jobs(home, wanted)
    assert jobs.read_all(home) == (made, [])
    assert jobs.create_jobs(home, wanted) == made, "a repeat changes nothing"
    jobs.move_job(home, made[0], replace(made[0], facts=Queued(since=NOW, attempts=1)))
    assert list(home.tmp.iterdir()) == []


def test_jobs_of_one_config_share_its_file_and_another_config_has_its_own(home: Home) -> None:
    wanted = [(replace(card(), id=f"job-{number}"), Queued(since=NOW), {"values": {"seed": number // 2}}) for number in range(4)]
    made = jobs.create_jobs(home, wanted)
    assert [jobs.read_config(home, job) for job in made] == [config for _, _, config in wanted]
    inodes = [(jobs.job_folder(home, job) / jobs.CONFIG).stat().st_ino for job in made]
    assert (inodes[0] == inodes[1], inodes[1] == inodes[2]) == (True, False)


def test_acceptances_that_break_off_are_told_as_far_as_they_went(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    claimed = drops.begin_claims(home, _claims(home, 3))
    drops.finish_claims(home, claimed)
    moves = []
    for drop in claimed:
        gating = replace(drop, state=DropState.GATING, facts=Gating(since=NOW))
        drops.to_gate(home, drop, gating)
        checked = home.tmp / f"gate-{drop.id}" / "drop"
        checked.mkdir(parents=True)
        (checked / "rows.jsonl.zst").write_bytes(b"rows")
        seal(checked)
        accepted = Accepted(at=NOW, job=f"job-{drop.id}", sha256="0", identity="0", rows=1, schema_id="s")
        moves.append((gating, replace(drop, state=DropState.ACCEPTED, facts=accepted), checked))
    real, moved = os.rename, []

    def rename(source: Path, destination: Path) -> None:
        if destination == home.drop(DropState.ACCEPTED, "drop-1"):
            raise OSError(5, "no")
        real(source, destination)

    with monkeypatch.context() as context:
        context.setattr("store.drops.os.rename", rename)
        with pytest.raises(OSError, match="no"):
            drops.accept_drops(home, moves, moved.append)
    assert [drop.id for drop in moved] == ["drop-0"]
    drops.accept_drops(home, moves[1:], moved.append)  # the rows lie where they are to lie: it goes on
    found = {drop.id: drop for drop in drops.read_drops(home)}
    assert found == {after.id: after for _, after, _ in moves}
    assert all(is_sealed(drops.rows_folder(home, drop)) for drop in found)


def test_a_job_is_found_by_its_whole_name_alone(home: Home) -> None:
    job = jobs.create_job(home, card(), Queued(since=NOW), {})
    assert jobs.find_folder(home, job.id) == (JobState.QUEUED, home.job(JobState.QUEUED, job.id))
    for name in ("", ".", "..", f"../queued/{job.id}", job.id[:-1]):
        assert jobs.find_folder(home, name) is None
