"""series/runs.jsonl: one line for each training that has ended whole. The daemon writes it, `lorad plan` learns from it.

Numbers, ids and hashes only. It is cut into parts by size; the oldest go.
"""

from pathlib import Path

from core.estimate import Ran
from store.codec import dump, parse
from store.durable import last_lines
from store.paths import Home
from store.rotation import line_log, parts_of

PART_BYTES = 1 << 20  # about 2,500 trainings
PARTS = 4
NEWEST_BYTES = 128 << 10  # about 300 trainings: more than any estimate looks at


def runs_file(home: Home) -> Path:
    """Where the lines lie."""
    return home.root / "series" / "runs.jsonl"


def remember(home: Home, ran: Ran) -> None:
    """Add a line. On a full disk it is dropped. Raises OSError for other trouble."""
    path = runs_file(home)
    path.parent.mkdir(exist_ok=True)
    line_log(path, PART_BYTES, PARTS).append(ran.at.isoformat(), dump(ran))


def remembered(home: Home) -> list[Ran]:
    """The newest trainings, oldest first; a line that is damaged or of another form is left out."""
    path = runs_file(home)
    earlier = [part for _, part in parts_of(path)][-1:]  # where a new part has just begun, the one before holds the newest
    found = []
    for line in (line for file in (*earlier, path) for line in last_lines(file, NEWEST_BYTES)):
        try:
            found.append(parse(Ran, line))
        except ValueError:
            continue
    return found
