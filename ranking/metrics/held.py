"""The held-out rows of a ranking as metrics see them: rows under the job's profile, answers and losses of each model, the kit.

Read once and lazily: a verdict without a task metric reads no row.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from core.config import Config
from core.errors import IntegrityError, LoradError
from core.evaluation import RankingConfig
from core.names import SENTENCE_MODEL
from core.tasks import RankTask
from ranking.metrics.answered import Answers, read_answers
from ranking.metrics.metric import Kit, Metric, Need, Place, Reply, Values, Vectors
from ranking.metrics.values import metric_values, weights
from ranking.scores import EvidenceError, missing, path_of, read_scores
from rendering.answers import folded, question_of
from rendering.profiles.preparation import prepare
from rendering.profiles.registry import profile_of
from rendering.rows import Row, read_rows
from store.bases import models_dir
from store.embedding import Embedder
from store.seals import is_sealed

BASE = "base"
MOST_TEXTS = 500  # of the persona and of others each: more say little new about a manner, and cost time


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Values of one metric for one model: row i is `places[i]` of conversation `groups[i]`; NaN where it says nothing about one."""

    places: tuple[Place, ...]
    groups: tuple[str, ...]
    values: Values
    weights: Values

    def known(self) -> "Measured":
        """Only the rows that have a value."""
        kept = np.flatnonzero(~np.isnan(self.values) & (self.weights > 0))
        return Measured(
            places=tuple(self.places[i] for i in kept), groups=tuple(self.groups[i] for i in kept), values=self.values[kept], weights=self.weights[kept]
        )


class Held:
    """Rows, answers and losses of one ranking. Reading raises EvidenceError where a file that is asked for is not whole."""

    def __init__(self, task: RankTask) -> None:
        self.task = task
        self.against: Mapping[Place, float] = {}
        """The judge's result for the candidate `task.best`, by row; set once a judge was asked."""
        self._answers: dict[str, Answers] = {}

    @cached_property
    def config(self) -> Config:
        """The job's frozen config. Raises EvidenceError where it cannot be read."""
        try:
            return Config.model_validate(self.task.settings)
        except ValidationError as error:
            missing(f"the job's settings cannot be read, so neither can its rows: {error.errors()[0]['msg']}")

    @cached_property
    def ranking(self) -> RankingConfig:
        """Its section `ranking`; the child has read it before."""
        return RankingConfig.model_validate(self.task.settings.get("ranking", {}))

    @cached_property
    def rows(self) -> Mapping[Place, Row]:
        """Every row of the job's drops, as it is learnt and judged. Raises EvidenceError where a drop is not what the job names."""
        try:
            rows = prepare(read_rows(self.task.rows), profile_of(self.config.profile, self.config.profiles))
        except IntegrityError as error:
            raise EvidenceError(error.what, hint=error.hint, code="EVIDENCE_MISSING") from None
        return {(row.drop, row.line): row for row in rows}

    def row(self, place: Place) -> Row:
        """The row at a place. Raises EvidenceError where the drops no longer hold it."""
        if place not in self.rows:
            missing(f"line {place[1]} of {place[0]!r} was scored and is not among the rows of the job")
        return self.rows[place]

    def answers(self, split: str, model: str) -> Answers:
        """What a model answered. Raises EvidenceError."""
        key = f"answers/{split}/{model}"
        if key not in self._answers:
            self._answers[key] = read_answers(key, path_of(self.task.scores, key))
        return self._answers[key]

    def kit(self, model: str) -> Kit:
        """What metrics may use beside the rows of one model: the sentence model, how the persona and others speak, the judge's results."""
        # The judge compared the candidate with the incumbent: by the same rule the incumbent ties with itself.
        return replace(self._kit, against=self.against if model == self.task.best else dict.fromkeys(self.against, 0.5))

    @cached_property
    def _kit(self) -> Kit:
        folder = models_dir(self.config) / SENTENCE_MODEL
        trained = [question for row in self.rows.values() if row.split == "train" and (question := question_of(row)) is not None][-MOST_TEXTS:]
        base = [text for split in ("dev", "gate") if f"answers/{split}/{BASE}" in self.task.scores for text in self.answers(split, BASE).texts.values()]
        return Kit(
            embed=self._embedder(folder) if is_sealed(folder) else None,
            own=[question.expected.content for question in trained if question.expected.content],
            others=[*base, *(question.asked for question in trained if question.asked)][:MOST_TEXTS],
        )

    def _embedder(self, folder: Path) -> Callable[[Sequence[str]], Vectors]:
        """A sentence model that is started once: at its first word it is asked for all that metrics will ask for."""
        embed, started, failed = Embedder(folder), False, list[LoradError]()

        def embedded(texts: Sequence[str]) -> Vectors:
            nonlocal started
            if failed:  # one failure is told, and not waited for again
                raise failed[0]
            try:
                if not started:
                    started = True
                    embed(self._all_texts())
                return embed(texts)
            except LoradError as error:
                failed.append(error)
                raise

        return embedded

    def _all_texts(self) -> list[str]:
        split = "dev" if self.task.purpose == "order" else "gate"
        answers = [self.answers(split, key.split("/", 2)[2]) for key in sorted(self.task.scores) if key.startswith(f"answers/{split}/")]
        questions = [question for place in {place for found in answers for place in found.texts} if (question := question_of(self.row(place))) is not None]
        said = [text for found in answers for text in found.texts.values()]
        return [*self._kit.own, *self._kit.others, *said, *(folded(one.asked) for one in questions), *(one.expected.content for one in questions)]

    def measured(self, metric: Metric, split: str, model: str) -> Measured:
        """The metric on every row of the split that the model answered (or that was scored, where it needs losses alone).

        Raises EvidenceError, MetricError, and LoradError where the sentence model fails.
        """
        if Need.ANSWERS in metric.needs:
            answers = self.answers(split, model)
            groups = answers.groups
            replies: Mapping[Place, Reply] = {place: Reply(answer=text) for place, text in answers.texts.items()}
        else:
            groups, replies = self._scored(split, model)
        rows = [self.row(place) for place in replies]
        values = metric_values(metric, rows, replies, self.kit(model))
        return Measured(places=tuple(replies), groups=tuple(groups[place] for place in replies), values=values, weights=weights(metric, rows, replies))

    def _scored(self, split: str, model: str) -> tuple[Mapping[Place, str], Mapping[Place, Reply]]:
        key = f"{split}/{model}"
        scores = read_scores(key, path_of(self.task.scores, key))
        correct = scores.correct
        replies = {
            place: Reply(tokens=int(scores.tokens[i]), loss=float(scores.loss[i]), correct=None if correct is None else int(correct[i]))
            for i, place in enumerate(scores.rows)
        }
        return dict(zip(scores.rows, scores.groups, strict=True)), replies
