"""A person's blind rating of a candidate against what was live: counts and hashes, no text of rows."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

RATING = "rating.json"  # below runs/<job>/
COUNTS = ("better", "worse", "ties", "skipped")
DIGITS = 64  # of a SHA-256


@dataclass(frozen=True, slots=True, kw_only=True)
class Rating:
    """`rating.json`: how often a person preferred the candidate's answer (`better`), the incumbent's (`worse`), or neither (`ties`).

    `candidate` and `incumbent` are ids as in the verdict; where one of both has changed since, the rating says nothing about the job.
    """

    job: str
    candidate: str  # Candidate.id
    incumbent: str  # release id, or base
    better: int
    worse: int
    ties: int
    skipped: int = 0
    pairs_sha256: str  # over the hashes of the pairs that were rated, in order
    seed: int
    by: str = ""
    at: datetime


def rating_of(job: str, details: Mapping[str, str], by: str, at: datetime) -> Rating:
    """The rating that a RATE command brings. Raises ValueError for words that are none."""
    counts = {name: int(details.get(name, "0")) for name in COUNTS}
    if min(counts.values()) < 0 or not sum(counts.values()):
        raise ValueError("a rating counts at least one pair")
    pairs = details.get("pairs_sha256", "")
    if len(pairs) != DIGITS or set(pairs) - set("0123456789abcdef"):
        raise ValueError(f"pairs_sha256 is {pairs!r:.80}, no SHA-256")
    return Rating(
        job=job,
        candidate=details.get("candidate", ""),
        incumbent=details.get("incumbent", ""),
        pairs_sha256=pairs,
        seed=int(details.get("seed", "0")),
        by=by,
        at=at,
        **counts,
    )


def details_of(rating: Rating) -> dict[str, str]:
    """The words of a RATE command that bring `rating`."""
    names = ("candidate", "incumbent", *COUNTS, "pairs_sha256", "seed")
    return {name: str(getattr(rating, name)) for name in names}


def key_of(candidate: str) -> str:
    """Under which key of `Ranking.scores` the rating of a candidate stands."""
    return f"rating/{candidate}"
