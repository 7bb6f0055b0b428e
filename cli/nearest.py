"""The training rows that lie nearest to an answer or its question.

A row's turns are compared one by one: an answer with answers, a question with questions, both by their mean. The sentence
model (a trainer child) says how near two texts are in meaning. It looks at `MOST_EMBEDDED` turns: those that share the most
words with what is asked for, rare words counting more; where it is not here, the words alone decide, and that is said.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from core.errors import LoradError
from core.tasks import RowsOf
from rendering.answers import words_of
from rendering.rows import Row, read_rows

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Embed = Callable[[Sequence[str]], NDArray[np.float32]]

MOST_EMBEDDED = 1000  # turns; a minute of one core at the most
BY_MEANING, BY_WORDS = "meaning", "words"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What rows are to be near to; at least one of both is there."""

    answer: str = ""
    question: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Near:
    """A row and how near one of its turns lies: 1 is the same, 0 has nothing to do with it."""

    drop: str
    line: int
    group: str
    nearness: float
    question: str
    answer: str
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The nearest rows, nearest first. `compared` of the `turns` that the release learnt from; `note` says why it was not done by meaning."""

    how: str
    rows: tuple[Near, ...]
    compared: int
    turns: int
    note: str = ""


@dataclass(frozen=True, slots=True)
class _Turn:
    row: Row
    question: str
    answer: str


def nearest(sources: Sequence[RowsOf], asked: Asked, embed: "Embed | None", most: int) -> Found:
    """The `most` rows of the train split that lie nearest. Reads the drops. Raises IntegrityError where one is damaged.

    Args: embed: texts to vectors of unit length, None where there is no sentence model.
    """
    turns = [turn for row in read_rows(sources) if row.split == "train" for turn in _turns(row)]
    by_words = _by_words(turns, asked)
    order = sorted(range(len(turns)), key=lambda place: (-by_words[place], turns[place].row.drop, turns[place].row.line))
    chosen, how, note, nearness = order[:MOST_EMBEDDED], BY_WORDS, "", by_words
    if embed is None:
        note = "no sentence model is here"
    elif chosen:
        try:
            meant = _by_meaning([turns[place] for place in chosen], asked, embed)
        except LoradError as error:
            note = f"{error.what}; {error.hint}"
        else:
            how, nearness = BY_MEANING, dict(zip(chosen, meant, strict=True))
    rows: dict[tuple[str, int], Near] = {}
    for place in sorted(chosen, key=lambda place: -nearness[place]):
        turn = turns[place]
        rows.setdefault((turn.row.drop, turn.row.line), _near(turn, nearness[place]))
    compared = len(chosen) if how == BY_MEANING else len(turns)
    return Found(how=how, rows=tuple(rows.values())[:most], compared=compared, turns=len(turns), note=note)


def _near(turn: _Turn, nearness: float) -> Near:
    row = turn.row
    return Near(
        drop=row.drop,
        line=row.line,
        group=row.group,
        nearness=round(nearness, 4),
        question=turn.question,
        answer=turn.answer,
        metadata=dict(row.metadata),
    )


def _turns(row: Row) -> Iterator[_Turn]:
    """Each answer with the turn before it that a person said."""
    question = ""
    for message in row.messages:
        if message.role == "user":
            question = message.content
        elif message.role == "assistant":
            yield _Turn(row, question, message.content)


def _by_words(turns: Sequence[_Turn], asked: Asked) -> dict[int, float]:
    """Cosine of the words of each turn, weighted by how few turns have them; place -> 0 to 1."""
    sides = [(asked.answer, [turn.answer for turn in turns])] if asked.answer else []
    sides += [(asked.question, [turn.question for turn in turns])] if asked.question else []
    sums = [0.0] * len(turns)
    for wanted, texts in sides:
        for place, value in enumerate(_cosines(wanted, texts)):
            sums[place] += value / len(sides)
    return dict(enumerate(sums))


def _cosines(wanted: str, texts: Sequence[str]) -> list[float]:
    counts = [Counter(words_of(text)) for text in texts]
    having = Counter(word for count in counts for word in count)
    weights = {word: math.log(1 + len(texts) / number) for word, number in having.items()}
    mine = {word: count * weights.get(word, 0.0) for word, count in Counter(words_of(wanted)).items()}
    length = math.sqrt(sum(value * value for value in mine.values()))
    found = []
    for count in counts:
        dot = sum(mine[word] * number * weights[word] for word, number in count.items() if word in mine)
        norm = math.sqrt(sum((number * weights[word]) ** 2 for word, number in count.items()))
        found.append(dot / (length * norm) if dot else 0.0)
    return found


def _by_meaning(turns: Sequence[_Turn], asked: Asked, embed: "Embed") -> list[float]:
    """Cosine of the meanings. Raises LoradError where the sentence model fails."""
    wanted = [text for text in (asked.answer, asked.question) if text]
    sides = ([turn.answer for turn in turns] if asked.answer else []) + ([turn.question for turn in turns] if asked.question else [])
    vectors = embed([*wanted, *sides])
    rows_SND = vectors[len(wanted) :].reshape(len(wanted), len(turns), -1)  # S: sides asked for, N: turns, D: dimensions
    nearness_SN = (rows_SND @ vectors[: len(wanted), :, None])[:, :, 0]
    return [float(value) for value in nearness_SN.mean(axis=0)]
