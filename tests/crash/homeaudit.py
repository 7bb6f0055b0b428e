"""What must hold of a home at every moment, read from the disk alone."""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import zstandard

from core.errors import IntegrityError
from core.records import Ended, Job, JobState
from daemon.index import Index
from store.config import ConfigLoader
from store.drops import CLAIM, ORIGINAL, ROWS
from store.jobs import folders, read_job
from store.paths import Home
from store.seals import check_seal, is_sealed
from store.targets import ledger_of


def jobs_on_disk(home: Home) -> list[Job]:
    """Every job as its own folder says it. Fails where one is torn or lies in two places."""
    found = [(folder.name, state) for state, folder in folders(home)]
    twice = [job for job, count in Counter(job for job, _ in found).items() if count > 1]
    assert not twice, f"in two states at once: {[(job, state.value) for job, state in found if job in twice]}"
    jobs = []
    for state, folder in folders(home):
        try:
            jobs.append(read_job(folder, state))
        except IntegrityError as error:
            raise AssertionError(f"torn: {error.what}") from None
        assert jobs[-1].id == folder.name
    return jobs


def states(home: Home) -> dict[str, JobState]:
    """Job id -> state."""
    return {job.id: job.state for job in jobs_on_disk(home)}


def lies_at(home: Home, content: bytes) -> list[str]:
    """Where a dropped file lies: `inbox`, or the ids of the drops that hold it."""
    waiting = (path for path in home.inbox.rglob("*.jsonl") if home.rejected not in path.parents)
    found = ["inbox" for path in waiting if path.read_bytes() == content]
    folders_of_drops = (*home.root.glob("drops/*/*"), *home.rejected.iterdir())
    return found + [folder.name for folder in folders_of_drops if any(_holds(path, content) for path in _copies(folder))]


def _copies(folder: Path) -> tuple[Path, ...]:
    """Where in a drop's folder the file may lie: as dropped, under its name once rejected, among the rows once accepted."""
    return (*folder.glob(f"{ORIGINAL}*"), *folder.glob("*.jsonl"), folder / ROWS / "rows.jsonl.zst")


def _holds(path: Path, content: bytes) -> bool:
    if not path.is_file():
        return False
    raw = path.read_bytes()
    return (zstandard.ZstdDecompressor().decompress(raw, max_output_size=1 << 20) if path.suffix == ".zst" else raw) == content


def check(home: Home, files: Mapping[str, bytes], acknowledged: Iterable[str]) -> dict[str, JobState]:
    """Nothing lost, nothing twice, each job in one state. Returns the states.

    Args: files: what people dropped, by name. acknowledged: jobs whose "queued" a reader has seen.
    """
    found = states(home)
    lost = set(acknowledged) - found.keys()
    assert not lost, f"acknowledged and lost: {sorted(lost)}"
    for name, content in files.items():
        places = lies_at(home, content)
        assert len(places) == 1, f"{name} lies at {places or 'no place at all'}"
    for folder in home.root.glob("drops/accepted/*"):
        assert (folder / CLAIM).is_file()
        check_seal(folder / ROWS)
    claims = Counter(folder.name for folder in (*home.root.glob("drops/*/*"), *home.rejected.iterdir()))
    assert not [drop for drop, count in claims.items() if count > 1], f"a drop in two states: {claims}"
    live = [line.release for line in ledger_of(home, "local") if line.event == "live"]
    assert len(live) == len(set(live)), f"a release went live twice: {live}"
    for folder in home.root.glob("runs/*/*/checkpoints/*"):
        assert is_sealed(folder)
    return found


def check_memory(index: Index) -> None:
    """What the daemon remembers is what lies on the disk, and what it would know after another start."""
    assert {**index.jobs, **index.ended} == {job.id: job for job in jobs_on_disk(index.home)}
    fresh = Index.load(index.home, ConfigLoader(index.loader.path))
    for name in ("jobs", "ended", "drops", "releases"):
        held, lies = getattr(index, name), getattr(fresh, name)
        assert held.keys() == lies.keys(), f"{name}: in memory {sorted(held)}, on disk {sorted(lies)}"
        for key in held:
            if name != "drops" or held[key].state.value == "accepted":  # the facts of the others are not all written
                assert held[key] == lies[key], f"{key}: in memory {held[key]}, on disk {lies[key]}"


def outcome(home: Home) -> dict[str, object]:
    """How things stand, without ids and times: what two ways to the same end must agree on."""
    jobs = jobs_on_disk(home)
    return {
        "jobs": sorted((job.state.value, job.card.file, job.facts.code if isinstance(job.facts, Ended) else "") for job in jobs),
        "drops": sorted(folder.parent.name for folder in home.root.glob("drops/*/*")),
        "rejected": len(list(home.rejected.iterdir())),
        "inbox": sorted(path.name for path in home.inbox.iterdir()),
        "originals": len(list(home.root.glob(f"drops/*/*/{ORIGINAL}*"))),
        "released": len([line for line in ledger_of(home, "local") if line.event == "live"]),
        "versions": sorted(path.name for path in home.root.glob("adapters/*/*/*")),
        "commands": sorted(path.suffix for path in home.commands.iterdir() if not path.name.startswith(".")),
        "half-made": sorted(path.name for path in home.tmp.iterdir() if not path.name.startswith(("known-", "trash"))),
    }
