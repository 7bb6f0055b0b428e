"""What is told of a signal at every step of its way, by what lies on disk."""

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
from feedbackhome import SPLITS, accept, home_with, make_job, release, want
from said import ADAPTER, NOON, corrections, signal

from core.lifecycle import FACTS
from core.records import Accepted, ChildRef, Drop, Ended, Held, Job, JobState, Kind, Ranking, Training
from core.signals import Batch, Signal, Standing
from feedback.batch import batches_of, chore_batch, queued
from feedback.fate import Fate, Fates, Word
from store.feedback import Shelf
from store.jobs import move_job
from store.paths import Home

COUNT = 10


def batch_in(home: Home, id: str = "batch-1") -> Batch:
    chore_batch(home, want(home, id))
    return next(batch for batch in batches_of(home, ADAPTER) if batch.id.startswith(id))


def fates(home: Home) -> dict[str, Fate]:
    """Signal -> its fate, by the shelf's word of where it stands."""
    found = Fates(home, ADAPTER)
    return {note.id: found.of(note.id, note.standing, note.message) for note in Shelf(home).notes(ADAPTER)}


def words(home: Home) -> Counter[str]:
    return Counter(fate.word.value for fate in fates(home).values())


def sha_of(drop: Drop) -> str:
    assert isinstance(drop.facts, Accepted)
    return drop.facts.sha256


def test_the_way_of_a_signal_from_the_shelf_to_what_is_served(tmp_path: Path) -> None:
    home = home_with(tmp_path, corrections(COUNT))
    assert words(home) == {"pending": COUNT}
    batch = batch_in(home)
    assert {fate.why for fate in fates(home).values()} == {f"{batch.file} is on its way to the gate"}
    drop = accept(home, batch, aside=1)
    told = fates(home)
    assert words(home) == {"queued": COUNT - 1, "refused": 1}
    assert next(fate.why for fate in told.values() if fate.word is Word.REFUSED) == "the gate put its row aside: D07"
    job = make_job(home, drop)
    assert {fate.why for fate in fates(home).values() if fate.word is Word.QUEUED} == {"job job-1 waits for its training"}
    id = release(home, job, 1, [sha_of(drop)])
    told = fates(home)
    held = (COUNT - 1) - sum(split == "train" for split in (SPLITS * 2)[: COUNT - 1])
    assert words(home) == {"live": COUNT - 1 - held, "held out": held, "refused": 1}
    live = next(fate for fate in told.values() if fate.word is Word.LIVE)
    assert (live.release, live.version, live.run, live.job) == (id, 1, "01-train", "job-1")
    assert live.why == f"trained in run 01-train of job-1; live in {ADAPTER}@v1"
    gate = next(fate for fate in told.values() if fate.split == "gate")
    assert gate.why == f"held out for the verdict; {live.why}"
    assert Fates(home, ADAPTER).counted(batch.id) == dict(words(home))


@pytest.mark.parametrize("state", [JobState.TRAINING, JobState.RANKING, JobState.HELD])
def test_a_job_on_its_way_is_told_with_its_state(tmp_path: Path, state: JobState) -> None:
    home = home_with(tmp_path, corrections(COUNT))
    job = make_job(home, accept(home, batch_in(home)))
    child = ChildRef(run="01-train", kind=Kind.TRAIN, instance="i", started_at=NOON)
    ranking = Ranking(since=NOON, candidates=())
    (home.runs(job.id) / "01-train").mkdir(parents=True)
    facts = {JobState.TRAINING: Training(since=NOON, child=child), JobState.RANKING: ranking}
    after = facts.get(state) or Held(since=NOON, ranking=ranking, reason="too few rows")
    assert isinstance(after, FACTS[state])
    move_job(home, job, Job(card=job.card, state=state, facts=after))
    trained = {fate.word for fate in fates(home).values() if fate.split == "train"}
    assert trained == {Word.TRAINING if state is JobState.TRAINING else Word.TRAINED}
    assert {fate.word for fate in fates(home).values() if fate.split != "train"} == {Word.HELD_OUT}
    if state is JobState.HELD:
        assert any(fate.why.endswith("the job is held: too few rows") for fate in fates(home).values())


def test_a_job_that_failed_and_was_asked_for_again_is_told_by_the_later_one(tmp_path: Path) -> None:
    home = home_with(tmp_path, corrections(COUNT))
    drop = accept(home, batch_in(home))
    job = make_job(home, drop)
    move_job(home, job, Job(card=job.card, state=JobState.FAILED, facts=Ended(at=NOON, reason="out of memory")))
    assert {fate.why for fate in fates(home).values() if fate.split == "train"} == {"job-1; the job is failed: out of memory"}
    make_job(home, drop, "job-2")
    assert {(fate.word, fate.job) for fate in fates(home).values() if fate.split == "train"} == {(Word.QUEUED, "job-2")}


def test_a_later_release_that_learnt_from_the_drop_too_is_the_one_that_is_told(tmp_path: Path) -> None:
    home = home_with(tmp_path, corrections(COUNT))
    first = accept(home, batch_in(home))
    release(home, make_job(home, first), 1, [sha_of(first)])
    shelf = Shelf(home)
    shelf.add(corrections(5, start=50), NOON, shelf.limits)
    second = accept(home, batch_in(home, "batch-2"), number=2)
    release(home, make_job(home, second), 2, [sha_of(first), sha_of(second)])
    assert {fate.version for fate in fates(home).values()} == {2}
    release(home, make_job(home, accept_another(home, shelf)), 3, ["other bytes"])
    told = fates(home)
    assert {fate.word for fate in told.values() if fate.split == "train"} == {Word.TRAINED}
    assert any("released as v1, which is not live now" in fate.why for fate in told.values())


def accept_another(home: Home, shelf: Shelf) -> Drop:
    shelf.add(corrections(1, start=90), NOON, shelf.limits)
    return accept(home, batch_in(home, "batch-3"), number=3)


def test_a_later_correction_of_the_same_conversation_replaces_the_row(tmp_path: Path) -> None:
    home = home_with(tmp_path, [signal("Who?", wrong="Bob.", right="Alice.")])
    accept(home, batch_in(home), groups="g")
    later = signal("Who?", wrong="Alice.", right="Carol.", minute=30)
    shelf = Shelf(home)
    shelf.add([later], NOON, shelf.limits)
    drop = accept(home, batch_in(home, "batch-2"), number=2, groups="g")
    told = fates(home)
    assert told[later.id].word is Word.QUEUED
    (replaced,) = (fate for id, fate in told.items() if id != later.id)
    assert (replaced.word, drop.id in replaced.why) == (Word.REPLACED, True)


def test_who_says_the_same_as_another_shares_its_fate_and_hears_whose(tmp_path: Path) -> None:
    said = [signal("Who?", wrong="Bob.", right="Alice.", user="one"), signal("Who?", wrong="Bob.", right="Alice.", user="two", minute=1)]
    home = home_with(tmp_path, [*said, signal("Who?", wrong="Bob.", right="Bob!", user="three", minute=-9)])
    accept(home, batch_in(home))
    told = fates(home)
    assert told[said[1].id].word is Word.DUPLICATE
    assert told[said[1].id].why.startswith(f"says the same as {said[0].id}: ")
    assert sorted(fate.word.value for fate in told.values()) == ["duplicate", "left out", "queued"]


def test_a_refused_file_and_one_that_somebody_took_away_are_told(tmp_path: Path) -> None:
    home = home_with(tmp_path, corrections(3))
    batch = batch_in(home)
    rejected = home.rejected / "drop-1"
    rejected.mkdir()
    drop = accept(home, batch)
    shutil.copy(home.root / "drops" / "accepted" / drop.id / "claim.json", rejected)
    shutil.rmtree(home.root / "drops" / "accepted" / drop.id)
    assert {fate.why for fate in fates(home).values()} == {f"the gate refused {batch.file}: read {rejected / 'report.md'}"}
    shutil.rmtree(rejected)
    assert words(home) == {"gone": 3}


def test_after_rows_were_forgotten_each_signal_is_still_found_by_its_row(tmp_path: Path) -> None:
    home = home_with(tmp_path, corrections(4))
    batch = batch_in(home)
    drop = accept(home, batch)
    rows = home.root / "drops" / "accepted" / drop.id / "rows"
    import zstandard

    lines = zstandard.decompress((rows / "rows.jsonl.zst").read_bytes()).splitlines(keepends=True)
    gone = json.loads(lines[0])["id"]
    (rows / "rows.jsonl.zst").write_bytes(zstandard.compress(b"".join(lines[1:])))
    (rows / "index.jsonl").write_text("".join(json.dumps({"line": n, "group": str(n), "split": "train"}) + "\n" for n in (1, 2, 3)))
    (rows / "report.json").write_text('{"rebuilt": "rows were forgotten"}')
    told = fates(home)
    assert told[gone].word is Word.FORGOTTEN
    assert {told[json.loads(line)["id"]].line for line in lines[1:]} == {1, 2, 3}


def test_a_bad_answer_that_was_taught_tells_so_and_a_quarantined_signal_why(tmp_path: Path) -> None:
    home = home_with(tmp_path, [signal("Why?", wrong="Nonsense.", kind="mistake")])
    (told,) = fates(home).values()
    assert (told.word, told.why) == (Word.REVIEW, "waits for a person: lorad feedback review")
    found = Fates(home, ADAPTER).of("x", Standing.QUARANTINED, "a key stands in it")
    assert (found.word, found.why) == (Word.QUARANTINED, "a key stands in it")


def test_a_batch_keeps_its_signals_beside_it_also_those_without_a_row(tmp_path: Path) -> None:
    said: list[Signal] = [*corrections(3), signal("Who?", wrong="Bob", right="Bob")]
    home = home_with(tmp_path, said)
    batch = batch_in(home)
    kept = [json.loads(line)["id"] for line in (queued(home, ADAPTER) / f"{batch.id}.jsonl").read_text().splitlines()]
    assert sorted(kept) == sorted(one.id for one in said)
