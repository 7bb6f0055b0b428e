"""What was found in the folders of jobs and drops when they were last read, so that a start need not open each file again.

    caches/recall-jobs.json    {folder under jobs/: [its time of change in ns, the job]}
    caches/recall-drops.json   the same of accepted drops

Every change of a record renames a file into its folder, and so changes the folder's own time of change: an entry counts
only where that is still the same. What was changed shortly before it was read is left out: a second change within the
same tick of the file system's clock could not be told from it. The files are written by a chore, and may be deleted.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field

from core.records import Drop, DropState, Job, JobCard, JobState, StateFacts
from store.codec import dump_as, parse
from store.durable import replace_file
from store.paths import Home

T = TypeVar("T")

SETTLED = timedelta(seconds=3)  # since the last change of a folder: far above the grain of any file system's clock

Entries = dict[str, tuple[int, T]]


@dataclass(frozen=True, slots=True)
class _JobRow:
    """A job as it is read back: told by its kind, a state's facts are parsed twice as fast as by trying each."""

    card: JobCard
    state: JobState
    facts: Annotated[StateFacts, Field(discriminator="kind")]


def jobs_file(home: Home) -> Path:
    """Where jobs are remembered."""
    return home.root / "caches" / "recall-jobs.json"


def drops_file(home: Home) -> Path:
    """Where accepted drops are remembered."""
    return home.root / "caches" / "recall-drops.json"


def recall_jobs(home: Home) -> Entries[Job]:
    """What is remembered of jobs; nothing where the file is missing or not whole."""
    found: dict[str, tuple[int, _JobRow]] = _recall(jobs_file(home), dict[str, tuple[int, _JobRow]])
    return {key: (mark, Job(card=row.card, state=row.state, facts=row.facts)) for key, (mark, row) in found.items()}


def recall_drops(home: Home) -> Entries[Drop]:
    """What is remembered of accepted drops."""
    found: Entries[Drop] = _recall(drops_file(home), dict[str, tuple[int, Drop]])
    return found


def _recall(path: Path, kind: Any) -> Any:
    try:
        return parse(kind, path.read_bytes())
    except (OSError, ValueError):
        return {}


def changed_ns(folder: str) -> int:
    """The folder's time of change; 0 where it is gone, which no entry has."""
    try:
        return os.stat(folder).st_mtime_ns
    except OSError:
        return 0


def names_in(folder: Path) -> list[str]:
    """The names in a folder, in order; none where it is gone."""
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []


def chore_recall(home: Home, spec: Mapping[str, Any]) -> dict[str, Any]:
    """Read everything and remember it. `spec`: now_s, seconds since the epoch."""
    from store.drops import drops_with_marks
    from store.jobs import jobs_with_marks

    before_ns = int((float(spec["now_s"]) - SETTLED.total_seconds()) * 1e9)
    known = {key: (mark, job) for key, mark, job in jobs_with_marks(home) if isinstance(job, Job)}
    jobs = {key: found for key, found in known.items() if found[0] <= before_ns}
    _write(jobs_file(home), jobs, dict[str, tuple[int, Job]])
    accepted = (found for found in drops_with_marks(home) if found[2].state is DropState.ACCEPTED)
    drops = {key: (mark, drop) for key, mark, drop in _settled(accepted, before_ns)}
    _write(drops_file(home), drops, dict[str, tuple[int, Drop]])
    return {"jobs": len(jobs), "drops": len(drops)}


def _settled(found: Iterable[tuple[str, int, T]], before_ns: int) -> Iterator[tuple[str, int, T]]:
    return (one for one in found if one[1] <= before_ns)


def _write(path: Path, entries: object, kind: Any) -> None:
    replace_file(path, dump_as(kind, entries), durable=False)
