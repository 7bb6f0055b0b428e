"""What a metric is, and what it looks at: rows of the held-out splits with the answers and losses of one model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from core.errors import LoradError
from rendering.answers import Question
from rendering.rows import Row

Values = NDArray[np.float64]
Vectors = NDArray[np.float32]
Place = tuple[str, int]
"""Drop and line of a row."""


class MetricError(LoradError):
    """A metric cannot be worked out here: a library or a model is missing, or the metric itself fails."""


class Kind(StrEnum):
    """What the values of a metric are."""

    BINARY = "binary"  # 0 or 1
    SHARE = "share"  # from 0 to 1
    OPEN = "open"  # any number: fit to be shown and compared, no quality


class Need(StrEnum):
    """What a metric looks at beside the rows."""

    ANSWERS = "answers"
    LOSSES = "losses"
    EMBEDDINGS = "embeddings"
    JUDGE = "judge"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What one model did on one row: the answer it gave, and its loss on the row's own answer. None: nobody asked for it."""

    answer: str | None = None
    tokens: int = 0  # of the row's supervised tokens
    loss: float | None = None  # nats over these tokens
    correct: int | None = None  # how many of them were the model's first choice


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One row as a metric sees it."""

    row: Row
    question: Question
    reply: Reply

    @property
    def asked(self) -> str:
        """The last thing that the user said."""
        return self.question.asked

    @property
    def expected(self) -> str:
        """The text of the row's own answer; empty where it is a tool call alone."""
        return self.question.expected.content

    @property
    def answer(self) -> str:
        """The model's answer."""
        assert self.reply.answer is not None, "a metric that needs answers gets them"
        return self.reply.answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Kit:
    """What metrics may use beside the cases. `embed` gives float32 [texts, dimensions], of unit length."""

    embed: Callable[[Sequence[str]], Vectors] | None = None
    why_not: str = "no sentence model is here"
    own: Sequence[str] = ()
    """Answers of the training rows: how the persona speaks."""
    others: Sequence[str] = ()
    """Texts of other speakers: users of the same rows, and the base model."""
    against: Mapping[Place, float] = field(default_factory=dict)
    """The judge's result for each row: 1 where this model's answer is the better one, 0.5 a tie, 0 the incumbent's."""

    def vectors(self, texts: Sequence[str]) -> Vectors:
        """The vectors of texts. Raises MetricError where no sentence model is here, LoradError where it fails."""
        if self.embed is None:
            raise MetricError(self.why_not, hint="lorad models pull all-minilm-l6-v2", code="METRIC_NOT_RUN")
        return self.embed(texts)


def same(value: float) -> float:
    """The value itself: most means are shown as they are."""
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A number for each row, found by name.

    `score` gets cases and kit and gives a number a case, NaN where it says nothing about one. The mean over rows counts, by
    tokens where `per_token`; `shown` is what mean and ends of its interval go through to be read (a rising function).
    """

    name: str
    about: str
    kind: Kind | str
    score: Callable[[Sequence[Case], Kit], Sequence[float] | Values]
    higher_is_better: bool = True
    needs: tuple[Need | str, ...] = (Need.ANSWERS,)
    library: str = ""  # distribution that it is worked out by
    per_token: bool = False
    shown: Callable[[float], float] = same

    def __post_init__(self) -> None:
        """Raises ValueError for an unknown kind or need."""
        object.__setattr__(self, "kind", Kind(self.kind))
        object.__setattr__(self, "needs", tuple(Need(need) for need in self.needs))

    @property
    def is_quality(self) -> bool:
        """Whether it can be ranking.metric: from 0 to 1, more is better."""
        return self.kind is not Kind.OPEN and self.higher_is_better
