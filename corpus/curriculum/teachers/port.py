"""What a teacher is. A row is numbered: seed and place lead to exactly one puzzle of the level, so that no two seeds share one."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

PER_SEED = 100  # rows of one seed; small, so that even the smallest level has many seeds
GOLDEN = (math.sqrt(5) - 1) / 2

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherLevel:
    """One level. `num_rows` is how many different puzzles it has."""

    level: int
    title: str
    num_rows: int

    @property
    def num_seeds(self) -> int:
        """How many seeds it has; they are counted from 0."""
        return self.num_rows // PER_SEED


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What the checker says of an answer. `level` is that of the puzzle, read from its text; 0: the row is no puzzle of this teacher."""

    right: bool
    level: int
    why: str = ""


class Teacher(Protocol):
    """Makes rows of chat messages and checks answers. Changes nothing; a repeat is harmless. Safe in threads."""

    name: str
    generator: str
    version: str
    schema_id: str
    port: int

    @property
    def levels(self) -> tuple[TeacherLevel, ...]:
        """Every level, the easiest first."""
        ...

    def row(self, level: int, number: int) -> Row:
        """The puzzle of this number, 0 ≤ number < num_rows, with its right answer as the last message."""
        ...

    def check(self, row: Mapping[str, Any], answer: str) -> Checked:
        """Whether `answer` solves the puzzle of the row's first user message. The row's own answer is not looked at."""
        ...


def rows_of(teacher: Teacher, level: int, count: int, seed: int) -> Iterator[Row]:
    """The first `count` rows of a seed. Raises ValueError for a level, count or seed that is not there."""
    known = {each.level: each for each in teacher.levels}
    if level not in known:
        raise ValueError(f"{teacher.name} has levels {min(known)} to {max(known)}, not {level}")
    found = known[level]
    if not 0 < count <= PER_SEED:
        raise ValueError(f"a seed has {PER_SEED} rows, not {count}")
    if not 0 <= seed < found.num_seeds:
        raise ValueError(f"level {level} of {teacher.name} has {found.num_seeds} seeds from 0 on, not {seed}")
    return (teacher.row(level, scattered(seed * PER_SEED + place, found.num_rows)) for place in range(count))


def scattered(place: int, total: int) -> int:
    """Another number below `total` for each place: multiplied by a step that has no divisor in common with it.

    The step is near the golden section of `total`, by which neighbours land far from one another (Knuth, TAOCP 3, 6.4).
    """
    step = max(1, int(total * GOLDEN))
    while math.gcd(step, total) != 1:
        step += 1
    return place * step % total


def prompt_of(row: Mapping[str, Any]) -> str:
    """The text of the first user message; empty where there is none."""
    messages = row.get("messages")
    for message in messages if isinstance(messages, list) else ():
        if isinstance(message, Mapping) and message.get("role") == "user" and isinstance(message.get("content"), str):
            return str(message["content"])
    return ""


def chat_row(prompt: str, answer: str, **metadata: object) -> Row:
    """A row of one question and its answer."""
    return {"messages": [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}], "metadata": metadata}
