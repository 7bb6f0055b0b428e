"""What sampled rows say, as vectors of a sentence model that a trainer child computes (store.embedding asks it)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from core.errors import LoradError
from store.embedding import PULL
from validation.context import Pair
from validation.references import sampled_questions

if TYPE_CHECKING:
    from store.embedding import Vectors
    from validation.survey import Survey


@dataclass(frozen=True, slots=True)
class Meaning:
    """What the sampled rows and the items of references say, as vectors of unit length."""

    pairs: Sequence[Pair]
    questions: "Vectors"  # of pairs
    answers: "Vectors"  # of pairs
    items: "Vectors"  # of references.sampled_questions


def meaning_of(survey: "Survey", check: str) -> Meaning | None:
    """The vectors of the sampled pairs and references; None where no row has both texts, or where no model is here, with a note under the check's id.

    The first call works all of them out, so that one child does it.
    """
    if not survey.pairs:
        return None
    if survey.embedder is None:
        survey.notes.setdefault(check, f"no sentence model is here: {PULL}")
        return None
    pairs = survey.pairs
    items = sampled_questions(survey.context)
    try:
        vectors = survey.embedder([*(pair.question for pair in pairs), *(pair.answer for pair in pairs), *(text for _, _, text in items)])
    except LoradError as error:
        survey.notes[check] = f"{error.what}: {error.hint}"
        survey.embedder = None  # one failure is told, and not waited for again
        return None
    return Meaning(pairs, vectors[: len(pairs)], vectors[len(pairs) : 2 * len(pairs)], vectors[2 * len(pairs) :])
