"""Snapshots hold one moment; backups come back whole or not at all; an older home is brought up to date after a backup."""

import json
import os
import shutil
import tarfile
from datetime import timedelta
from pathlib import Path

import pytest
import zstandard
from homes import ADAPTER, START, add_drop, add_job, add_release, new_home, put_live

from core.errors import IntegrityError, LoradError, StateError, UsageError
from core.lifecycle import Event, step
from core.records import DropState, Ended, JobState
from core.wire import Observed, Wish
from store import codec, snapshots
from store.archives import back_up, restore
from store.durable import replace_file
from store.jobs import move_job, read_all
from store.keys import sign, verify
from store.locks import take_lock
from store.migration import migrate
from store.paths import FORMAT, Home
from store.releases import read_releases
from store.runs import candidates_of
from store.seals import check_seal
from store.snapshots import chore_snapshot, notes, place, snapshot_home
from store.targets import desired_of, set_wish

LATER = START + timedelta(days=1)
RECORDS = Path(__file__).parents[1] / "data" / "homes"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Three jobs (ended, held, queued), an accepted drop, two releases of which the second is live and wished for."""
    made = new_home(tmp_path / "home")
    add_drop(made)
    for number, state in enumerate((JobState.RELEASED, JobState.HELD, JobState.QUEUED)):
        add_job(made, number, state=state)
    releases = [add_release(made, version) for version in (1, 2)]
    for release, before in zip(releases, (None, *releases), strict=False):
        set_wish(made, "local", ADAPTER, Wish(release=release, replaces=before), START)
    put_live(made, *releases)
    return made


def backed_up(home: Home, folder: Path) -> Path:
    back_up(home, folder / "b.tar.zst", START, folder / "aside")
    return folder / "b.tar.zst"


def jobs_of(home: Home) -> dict[str, JobState]:
    found, damaged = read_all(home)
    assert not damaged
    return {job.id: job.state for job in found}


def test_a_backup_comes_back_as_it_was(home: Home, tmp_path: Path) -> None:
    file = backed_up(home, tmp_path)
    assert file.stat().st_mode & 0o777 == 0o600
    found = restore(file, tmp_path / "again", LATER)
    again = Home(tmp_path / "again")
    again.prepare()
    assert jobs_of(again) == jobs_of(home)
    assert [release.id for release in read_releases(again)] == [release.id for release in read_releases(home)]
    held = next(job for job, state in jobs_of(home).items() if state is JobState.HELD)
    assert candidates_of(again, held) == candidates_of(home, held), "a job on its way keeps its checkpoints"
    check_seal(again.drop(DropState.ACCEPTED, "drop-1") / "rows")
    assert (again.keys / "release.key").stat().st_mode & 0o777 == 0o600
    assert again.keys.stat().st_mode & 0o777 == 0o700
    verify(home.keys, b"text", sign(again.keys, b"text"))
    assert desired_of(again, "local") == desired_of(home, "local"), "the fence is not lost"
    assert "files that wait in inbox/ and inbox/rejected/" in found.left_out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "b.tar.zst", "home"], "nothing is left beside it"


def test_a_restored_home_wishes_for_nothing_before_it_knows_the_fence_of_the_far_side(home: Home, tmp_path: Path) -> None:
    restore(backed_up(home, tmp_path), tmp_path / "again", LATER)
    again = Home(tmp_path / "again")
    wish = Wish(release=None, replaces=None)
    with pytest.raises(StateError, match="has not answered since this home was restored"):
        set_wish(again, "local", ADAPTER, wish, LATER)
    codec.write(again.target("local") / "observed.json", Observed(target="local", at=LATER - timedelta(seconds=1), reachable=True))
    with pytest.raises(StateError, match="has not answered"):
        set_wish(again, "local", ADAPTER, wish, LATER)
    put_live(again, *(release.id for release in read_releases(again)), fence=41)  # the link has fetched what the box says now
    codec.write(again.target("local") / "observed.json", Observed(target="local", at=LATER + timedelta(seconds=1), reachable=True))
    assert set_wish(again, "local", ADAPTER, wish, LATER).fence == 42
    (again.target("local") / "observed.json").unlink()
    assert set_wish(again, "local", ADAPTER, wish, LATER).fence == 43, "known once, known for good"


def test_nothing_is_overwritten(home: Home, tmp_path: Path) -> None:
    file = backed_up(home, tmp_path)
    with pytest.raises(StateError, match="is not empty"):
        restore(file, home.root, LATER)
    (tmp_path / "empty").mkdir()
    restore(file, tmp_path / "empty", LATER)
    running = tmp_path / "running"
    lock = take_lock(Home(running).lock, "me", "home", hint="")
    with pytest.raises(StateError, match="a daemon runs"):
        restore(file, running, LATER)
    os.close(lock)
    with pytest.raises(UsageError, match="exists already"):
        back_up(home, file, LATER, tmp_path / "aside")


@pytest.mark.parametrize("damage", ["one byte", "cut short", "no archive", "another file inside", "one missing", "newer"])
def test_a_damaged_backup_is_refused_and_nothing_is_left(home: Home, tmp_path: Path, damage: str) -> None:
    if damage == "newer":
        replace_file(home.format_mark, json.dumps({"format": FORMAT + 1}))
    file = backed_up(home, tmp_path)
    raw = zstandard.ZstdDecompressor().stream_reader(file.read_bytes()).read()
    match damage:
        case "one byte":
            place = raw.index(b"\x01" * 1000) + 500
            file.write_bytes(zstandard.compress(raw[:place] + b"\x07" + raw[place + 1 :]))
        case "cut short":
            file.write_bytes(file.read_bytes()[:-2000])
        case "no archive":
            file.write_bytes(b"hello")
        case "another file inside" | "one missing":
            rebuild(file, raw, tmp_path / "work", add=damage == "another file inside")
    with pytest.raises(LoradError) as refused:
        restore(file, tmp_path / "again", LATER)
    assert refused.value.hint
    assert isinstance(refused.value, IntegrityError | StateError)
    assert not (tmp_path / "again").exists()
    assert not list(tmp_path.glob(".*.part"))


def rebuild(file: Path, raw: bytes, work: Path, *, add: bool) -> None:
    work.mkdir()
    (work / "raw.tar").write_bytes(raw)
    with tarfile.open(work / "raw.tar") as tar:
        tar.extractall(work / "all", filter="data")
    if add:
        (work / "all" / "home" / "jobs" / "queued" / "more.json").write_text("{}")
    else:
        next((work / "all" / "home" / "jobs").rglob("job.json")).unlink()
    with tarfile.open(work / "new.tar", "w") as tar:
        tar.add(work / "all", ".")
    file.write_bytes(zstandard.compress((work / "new.tar").read_bytes()))
    shutil.rmtree(work)


def test_a_member_that_leaves_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    with tarfile.open(tmp_path / "evil.tar", "w") as tar:
        tar.add(tmp_path / "secret", "../../evil")
    (tmp_path / "evil.tar.zst").write_bytes(zstandard.compress((tmp_path / "evil.tar").read_bytes()))
    with pytest.raises(IntegrityError, match="no whole backup"):
        restore(tmp_path / "evil.tar.zst", tmp_path / "again", LATER)


def test_sealed_files_are_linked_and_a_snapshot_is_sealed_as_a_whole(home: Home, tmp_path: Path) -> None:
    made = chore_snapshot(home, {"id": "20260301-home"})
    folder = place(home, made["id"])
    check_seal(folder)
    weights = "adapters/default/main/v1/adapter_model.safetensors"
    assert (folder / "home" / weights).samefile(home.root / weights)
    (job,) = home.root.glob("jobs/queued/*/job.json")
    assert not (folder / "home" / job.relative_to(home.root)).samefile(job), "what may be replaced is copied"
    assert [name for name, _ in notes(home)] == ["20260301-home"]
    restored = restore(folder, tmp_path / "again", LATER)
    assert restored.kind == "home"
    assert jobs_of(Home(tmp_path / "again")) == jobs_of(home)


def test_the_snapshot_of_a_checkpoint_is_that_of_the_best(home: Home, tmp_path: Path) -> None:
    job = next(job for job, state in jobs_of(home).items() if state is JobState.HELD)
    (home.runs(job) / "02-rank" / "ranking.json").write_text(json.dumps({"best": candidates_of(home, job)[1].id}))
    folder = place(home, chore_snapshot(home, {"id": "20260301-checkpoint", "job": job})["id"])
    check_seal(folder)
    found = restore(folder, tmp_path / "adapter", LATER)
    assert found.kind == "checkpoint"
    assert (tmp_path / "adapter" / "adapter_model.safetensors").read_bytes()[:1] == b"\x02"
    check_seal(tmp_path / "adapter")
    with pytest.raises(UsageError, match="no job 'job-unknown'"):
        chore_snapshot(home, {"id": "x", "job": "job-unknown"})


def test_a_job_that_moves_while_the_snapshot_is_made_is_there_once(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon goes on beside the chore: after the first look a job moves and another record is replaced."""
    (queued,) = [job for job in read_all(home)[0] if job.state is JobState.QUEUED]
    real, rounds = snapshots._records, [0]

    def look(home: Home) -> dict[str, snapshots.Mark]:
        found = real(home)
        rounds[0] += 1
        if rounds[0] == 1:
            after, _ = step(queued, Event.CANCEL, Ended(at=LATER, reason="cancelled"))
            move_job(home, queued, after)
        return found

    monkeypatch.setattr(snapshots, "_records", look)
    (tmp_path / "s").mkdir()
    snapshot_home(home, tmp_path / "s", LATER)
    assert rounds[0] == 3
    assert jobs_of(Home(tmp_path / "s" / "home")) == jobs_of(home)


def test_a_home_that_never_holds_still_gives_no_snapshot(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = iter(range(1000))
    monkeypatch.setattr(snapshots, "_records", lambda home: {"jobs/queued/x": (next(count), 0, 0)})
    (tmp_path / "s").mkdir()
    with pytest.raises(StateError, match="changed all the while"):
        snapshot_home(home, tmp_path / "s", LATER)


# ---------------------------------------------------------------- formats


def test_every_released_format_of_a_home_is_still_read(tmp_path: Path) -> None:
    """One record set of each format lies in tests/data/homes: jobs in every state, drops, a wish, pins."""
    sets = sorted(RECORDS.iterdir())
    assert [folder.name for folder in sets] == [f"format-{number}" for number in range(1, FORMAT + 1)]
    for folder in sets:
        home = Home(tmp_path / folder.name)
        shutil.copytree(folder, home.root)
        home.prepare()
        migrate(home, LATER)
        found, damaged = read_all(home)
        assert not damaged
        assert {job.state for job in found} == set(JobState), "a job in each state"
        assert desired_of(home, "local")
        assert json.loads(home.format_mark.read_text()) == {"format": FORMAT}


def test_an_older_home_is_backed_up_then_brought_up_to_date(home: Home, tmp_path: Path) -> None:
    def renames(home: Home) -> None:
        home.pins.write_text("{}")

    name = migrate(home, LATER, steps={FORMAT: renames}, target=FORMAT + 1)
    assert json.loads(home.format_mark.read_text()) == {"format": FORMAT + 1}
    assert home.pins.exists()
    restore(home.snapshots / name, tmp_path / "before", LATER)
    assert json.loads((tmp_path / "before" / "format.json").read_text()) == {"format": FORMAT}
    assert not (tmp_path / "before" / "pins.json").exists(), "the backup is of before"
    assert migrate(home, LATER, steps={FORMAT: renames}, target=FORMAT + 1) == "", "a second time there is nothing to do"


def test_a_migration_that_is_broken_off_is_done_again_and_a_home_nobody_knows_is_refused(home: Home) -> None:
    tries = []

    def breaks(home: Home) -> None:
        tries.append(1)
        if len(tries) == 1:
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        migrate(home, LATER, steps={FORMAT: breaks}, target=FORMAT + 1)
    assert json.loads(home.format_mark.read_text()) == {"format": FORMAT}
    assert migrate(home, LATER, steps={FORMAT: breaks}, target=FORMAT + 1)
    assert len(tries) == 2
    with pytest.raises(StateError, match="this lorad knows up to"):
        migrate(home, LATER)
    replace_file(home.format_mark, '{"format": 0}')
    with pytest.raises(StateError, match="cannot read it"):
        migrate(home, LATER)
    replace_file(home.format_mark, "?")
    with pytest.raises(StateError, match="cannot be read"):
        migrate(home, LATER)
