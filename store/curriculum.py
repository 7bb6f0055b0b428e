"""`curriculum/<skill>.json`, where the learner of a skill stands, and `curriculum/history/<skill>.jsonl`, how it came there. The daemon writes both.

The first is the truth. A line of the history that a crash lost is added at the next start; one that stands twice is shown once.
"""

from collections.abc import Sequence

from core.curriculum import Course, Evaluation, Move
from store.codec import dump, parse, read, write
from store.paths import Home
from store.rotation import all_lines, line_log

PART_BYTES = 1 << 20  # about 2,500 evaluations
PARTS = 8

Entry = Evaluation | Move


def read_course(home: Home, skill: str) -> Course | None:
    """Where the learner stands; None where there was never a daemon that teaches it. Raises IntegrityError for a damaged file."""
    try:
        return read(Course, home.course(skill))
    except FileNotFoundError:
        return None


def write_course(home: Home, course: Course) -> None:
    """Replace it durably. Raises OSError."""
    home.course(course.skill).parent.mkdir(parents=True, exist_ok=True)
    write(home.course(course.skill), course)


def add_history(home: Home, skill: str, entries: Sequence[Entry]) -> None:
    """Add lines. On a full disk they are dropped. Raises OSError for other trouble."""
    path = home.course_history(skill)
    path.parent.mkdir(parents=True, exist_ok=True)
    for entry in entries:
        line_log(path, PART_BYTES, PARTS).append(entry.at.isoformat(), dump(entry))


def course_history(home: Home, skill: str) -> list[Entry]:
    """What has happened, oldest first; a line that is damaged or of another form is left out."""
    found: dict[Entry, None] = {}
    for line in all_lines(home.course_history(skill)):
        try:
            found[parse(Evaluation | Move, line)] = None  # type: ignore[arg-type]
        except ValueError:
            continue
    return list(found)
