"""The replies of a teacher's HTTP service, as both sides read them. Unknown keys are passed over, so that a service may say more.

    GET  /health     Health
    GET  /levels     Levels
    POST /generate   Wish  -> Generated
    POST /check      Questions -> Answers

An error is {"error": {"message": ...}} with a status of 4xx or 5xx.
"""

from typing import Annotated, Any

import msgspec

MOST_CHECKS = 1000  # in one request
Positive = Annotated[int, msgspec.Meta(ge=1)]
Natural = Annotated[int, msgspec.Meta(ge=0)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]


class Health(msgspec.Struct, frozen=True):
    """Who teaches, and what its rows are."""

    skill: Name
    generator: Name
    version: Name
    schema_id: Name


class LevelOffer(msgspec.Struct, frozen=True):
    """One level: how many rows a seed has at most, and how many seeds there are; 0 seeds: as many as are asked for."""

    level: Positive
    title: str
    per_seed: Positive
    seeds: Natural


class Levels(msgspec.Struct, frozen=True):
    """Every level, the easiest first."""

    levels: Annotated[list[LevelOffer], msgspec.Meta(min_length=1, max_length=1000)]


class Wish(msgspec.Struct, frozen=True):
    """`count` rows of a level. The same wish has the same rows; two seeds share none."""

    level: Positive
    count: Positive
    seed: Natural


class Generated(msgspec.Struct, frozen=True):
    """The rows, with the level and seed that they are of."""

    level: int
    seed: int
    rows: list[dict[str, Any]]


class Question(msgspec.Struct, frozen=True):
    """A row of the teacher, and an answer to it."""

    row: dict[str, Any]
    answer: str


class Questions(msgspec.Struct, frozen=True):
    """Answers that are to be checked."""

    answers: Annotated[list[Question], msgspec.Meta(max_length=MOST_CHECKS)]


class Result(msgspec.Struct, frozen=True):
    """Whether an answer is right, the level of the row as the checker reads it, and why it is wrong."""

    right: bool
    level: int
    why: str = ""


class Results(msgspec.Struct, frozen=True):
    """One result for each answer, in their order."""

    results: list[Result]
