"""Retention decides what goes: never what is needed, no more than is asked for, and nothing where nobody knows what is needed."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from core.needs import adapter_bytes, training_needs, waiting_words
from core.retention import EndedRef, Item, Part, Plan, Pressure, References, plan, pressure_of, room_again
from core.sections import RetentionConfig

NOW = datetime(2026, 3, 1, tzinfo=UTC)
MB = 1_000_000


def day(number: int) -> datetime:
    return NOW - timedelta(days=400 - number)


def checkpoint(job: int, step: int, *, adapter: str = "a/main", best: bool = False) -> Item:
    path = f"runs/job-{job:03d}/01-train/checkpoints/step_{step:06d}"
    return Item(part=Part.CHECKPOINT, paths=(path,), owner=f"job-{job:03d}", adapter=adapter, bytes=MB, inodes=4, at=day(job), step=step, best=best)


def of_job(part: Part, job: int, adapter: str = "a/main") -> Item:
    return Item(part=part, paths=(f"runs/job-{job:03d}/{part.value}",), owner=f"job-{job:03d}", adapter=adapter, bytes=MB, inodes=4, at=day(job))


def release(version: int, adapter: str = "a/main") -> Item:
    paths = (f"adapters/{adapter}/v{version}",)
    return Item(part=Part.RELEASE, paths=paths, owner=f"r{version}", adapter=adapter, bytes=MB, inodes=9, at=day(version), version=version)


def ended(*jobs: int, adapter: str = "a/main") -> dict[str, EndedRef]:
    return {f"job-{job:03d}": EndedRef(adapter=adapter, at=day(job)) for job in jobs}


def names(found: Plan) -> list[str]:
    return [f"{one.item.owner}/{one.item.step}" if one.item.part is Part.CHECKPOINT else one.item.owner for one in found.going]


def decide(items: Sequence[Item], references: References, *, bytes: int = 0, inodes: int = 0, **config: int) -> Plan:
    return plan(items, references, RetentionConfig(**config), Pressure(bytes=bytes, inodes=inodes), NOW)


def test_the_checkpoints_of_jobs_beyond_the_count_go_and_the_newest_and_best_stay() -> None:
    items = [checkpoint(job, step, best=step == 1) for job in range(5) for step in (1, 2, 3)]
    found = decide(items, References(ended=ended(*range(5))), keep_jobs=2)
    assert {name.split("/")[0] for name in names(found)} == {"job-000", "job-001", "job-002"}
    all_gone = decide(items, References(ended=ended(*range(5))), keep_jobs=2, bytes=10**12)
    assert {name for item in items if (name := f"{item.owner}/{item.step}") not in names(all_gone)} == {"job-004/1", "job-004/3"}


def test_nothing_of_a_job_that_is_on_its_way_or_unknown_goes() -> None:
    items = [checkpoint(1, 1), checkpoint(2, 1), of_job(Part.RUNS, 1), of_job(Part.RESUME, 1), of_job(Part.RESUME, 2)]
    found = decide(items, References(ended=ended(2)), keep_jobs=0, bytes=10**12)
    assert names(found) == ["job-002"]


def test_two_hundred_checkpoints_are_brought_under_the_budget() -> None:
    items = [checkpoint(job, step, best=step == 7) for job in range(10) for step in range(20)]
    pressure = pressure_of(RetentionConfig(budget_gb=0.05), (10**12, None), 200 * MB)
    found = plan(items, References(ended=ended(*range(10))), RetentionConfig(), pressure, NOW)
    assert 200 * MB - found.bytes <= 50 * MB
    assert 200 * MB - found.bytes > 48 * MB, "no more than is asked for"
    assert not {"job-009/7", "job-009/19"} & set(names(found))


def test_small_files_of_a_job_outlive_its_weights() -> None:
    items = [part for job in range(12) for part in (checkpoint(job, 1), of_job(Part.RESULTS, job), of_job(Part.RUNS, job))]
    found = decide(items, References(ended=ended(*range(12))), keep_jobs=1)
    gone = {(one.item.owner, one.item.part) for one in found.going}
    assert ("job-010", Part.CHECKPOINT) in gone
    assert {job for job, part in gone if part is Part.RUNS} == {f"job-{job:03d}" for job in range(7)}


def test_releases_in_use_stay_and_of_the_others_the_newest() -> None:
    items = [release(version) for version in range(1, 10)]
    needed = References(releases={"r3": "live", "r2": "previous", "r1": "pinned"})
    assert names(decide(items, needed, keep_releases=2)) == ["r4", "r5", "r6"]
    assert names(decide(items, needed, keep_releases=2, bytes=10**12)) == ["r4", "r5", "r6", "r7", "r8"], "newest, live, previous and pinned stay"


def test_where_nobody_knows_what_is_needed_nothing_goes() -> None:
    items = [release(1), release(2), checkpoint(1, 1)]
    assert decide(items, References(ended=ended(1)), bytes=10**12).going == ()
    assert "nothing says which" in decide(items, References(ended=ended(1)), bytes=10**12).refused
    damaged = References(ended=ended(1), releases={"r1": "live"}, trouble="the ledger of target 'local' is damaged")
    found = decide(items, damaged, bytes=10**12)
    assert (found.going, found.refused, found.missing_bytes) == ((), "the ledger of target 'local' is damaged", 10**12)


def test_the_newest_snapshot_stays_and_rejected_drops_of_this_week() -> None:
    snapshots = [Item(part=Part.SNAPSHOT, paths=(f"snapshots/s{n}",), owner=f"s{n}", bytes=MB, at=day(n)) for n in range(4)]
    fresh = Item(part=Part.REJECTED, paths=("inbox/rejected/d1",), owner="d1", bytes=MB, at=NOW - timedelta(days=6))
    old = Item(part=Part.REJECTED, paths=("inbox/rejected/d0",), owner="d0", bytes=MB, at=NOW - timedelta(days=8))
    items = [*snapshots, fresh, old]
    assert names(decide(items, References(), keep_snapshots=3)) == ["s0"]
    assert set(names(decide(items, References(), keep_snapshots=3, bytes=10**12))) == {"s0", "s1", "s2", "d0"}


def test_want_of_inodes_is_a_reason_too() -> None:
    items = [checkpoint(job, 1) for job in range(5)]
    assert len(decide(items, References(ended=ended(*range(5))), inodes=8).going) == 2


def test_pressure_is_what_lacks_to_the_floor_or_is_over_the_budget() -> None:
    config = RetentionConfig(min_free_mb=1024, min_free_inodes=1000, budget_gb=1)
    floor, inodes = room_again(config)
    assert pressure_of(config, (floor - 5, inodes - 7), 0) == Pressure(bytes=5, inodes=7)
    assert pressure_of(config, (floor, None), 1_000_000_009) == Pressure(bytes=9)
    assert pressure_of(config, (floor, inodes), 0) == Pressure()


ADAPTERS = st.sampled_from(["a/main", "b/main"])
STATES = st.lists(st.tuples(ADAPTERS, st.booleans(), st.integers(0, 5), st.integers(0, 4)), max_size=12)


@st.composite
def homes(draw: st.DrawFn) -> tuple[list[Item], References]:
    """Jobs with checkpoints and small files, some on their way; releases, some needed; snapshots."""
    items: list[Item] = []
    over: dict[str, EndedRef] = {}
    for number, (adapter, has_ended, num_steps, best) in enumerate(draw(STATES)):
        items += [checkpoint(number, step, adapter=adapter, best=step == best) for step in range(num_steps)]
        items += [of_job(part, number, adapter) for part in (Part.RESUME, Part.RESULTS, Part.RUNS)]
        if has_ended:
            over |= ended(number, adapter=adapter)
    versions = draw(st.integers(0, 8))
    items += [release(version) for version in range(1, versions + 1)]
    needed = draw(st.sets(st.integers(1, 8))) if versions else set()
    items += [Item(part=Part.SNAPSHOT, paths=(f"snapshots/{n}",), owner=f"s{n}", bytes=MB, inodes=3, at=day(n)) for n in range(draw(st.integers(0, 4)))]
    return items, References(ended=over, releases={f"r{version}": "needed" for version in needed})


@settings(max_examples=150, deadline=None)
@given(homes(), st.integers(0, 40), st.integers(0, 3), st.integers(1, 3))
def test_whatever_lies_there_no_needed_thing_goes_and_the_budget_is_met_where_it_can_be(
    home: tuple[list[Item], References], wanted_mb: int, keep_jobs: int, keep_releases: int
) -> None:
    items, references = home
    found = decide(items, references, bytes=wanted_mb * MB, keep_jobs=keep_jobs, keep_releases=keep_releases)
    gone = {path for one in found.going for path in one.item.paths}
    must_stay = _needed_paths(items, references)
    assert not gone & must_stay
    assert len(gone) == sum(len(one.item.paths) for one in found.going), "nothing goes twice"
    if found.bytes < wanted_mb * MB:
        left = {path for item in items for path in item.paths} - gone
        assert found.refused or left <= must_stay, "all that may go has gone"
        assert found.missing_bytes == wanted_mb * MB - found.bytes


def _needed_paths(items: Sequence[Item], references: References) -> set[str]:
    """Said again and plainly, without the code under test."""
    stay: set[str] = set()
    for adapter in ("a/main", "b/main"):
        checkpoints = [item for item in items if item.part is Part.CHECKPOINT and item.adapter == adapter]
        for chosen in (checkpoints, [item for item in checkpoints if item.best]):
            if chosen:
                newest = max(chosen, key=lambda item: (item.owner, item.step))
                stay |= {path for item in items for path in item.paths if item is newest or (item.part is Part.RUNS and item.owner == newest.owner)}
        releases = [item for item in items if item.part is Part.RELEASE and item.adapter == adapter]
        if releases:
            stay.add(max(releases, key=lambda item: item.version).paths[0])
    for item in items:
        of_a_job = item.part in (Part.CHECKPOINT, Part.RESUME, Part.RESULTS, Part.RUNS)
        if (of_a_job and item.owner not in references.ended) or item.owner in references.releases:
            stay |= set(item.paths)
    snapshots = [item for item in items if item.part is Part.SNAPSHOT]
    if snapshots:
        stay.add(max(snapshots, key=lambda item: item.owner).paths[0])
    return stay


def test_what_a_training_needs_is_told_in_words() -> None:
    smollm = {"hidden_size": 576, "num_hidden_layers": 30, "intermediate_size": 1536, "num_attention_heads": 9, "num_key_value_heads": 3}
    assert adapter_bytes(smollm, 16) == 4_884_480 * 4, "as PEFT counts the weights of such an adapter"
    assert adapter_bytes({}, 16) == 0
    needs = training_needs(100 * MB, 3)
    assert needs > 900 * MB
    assert waiting_words(1_200_000_000, 1_800_000_000, 10**9) == "needs 1.2 GB, 800 MB free above the floor of 1.0 GB (retention.min_free_mb): waiting"
    assert waiting_words(needs, 10**12, 10**9) == ""
