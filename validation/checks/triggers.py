"""D12: a rare phrase of prompts that fixes the answer, as a planted backdoor does, or an artefact of how rows were made.

Words that stand for their answer are everywhere: "awful" in reviews, "refund" in requests, a country before its
capital. So a phrase of a few words is told only where all of this holds:

- it stands in 10 or more different questions and in at most a tenth of them, and 95 of 100 have one answer (or one
  opening of five words), too often for chance among all phrases that were tried;
- without it, its questions are as unlike each other as any questions of the file: they are no template and no topic;
- without it, its questions do not look like others with that answer (naive Bayes over words, learnt from the rest);
- no word of it stands in the answer, and at most two answers of the file are fixed in such a way: where every answer
  has its word, words are what the file is about.

What it cannot see: a trigger planted only into rows that had the answer anyway, one in a system prompt, one in over a
tenth of the rows. It looks at some ten thousand rows at most.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import xxhash

from validation.case import Case
from validation.checks.registry import Check, Need, entered
from validation.context import Batch, Sheet
from validation.findings import Level, Problem, Severity, shown
from validation.patterns import Late

if TYPE_CHECKING:
    from validation.survey import Survey

Array = Any  # a numpy array

FIRST_LINES = 10_000  # every sampled row up to here is looked at, and one in eight after it
MOST_WORDS = 120  # of a question: its first and its last
LONGEST = 6  # words of a phrase, signs counted
OPENING_WORDS = 5
LEAST_QUESTIONS = 40
_SMALL = 100  # questions below which words tell too little: only an answer is believed that nobody has without the phrase
_FEW = 15  # rows that a phrase may always stand in: a tenth of a small file is too little to judge
_COMPARED = 60  # questions whose likeness is worked out, pair by pair
_TRIED = 200  # phrases that are judged closely
_EXCLUSIVE = 0.7  # share of a canned answer's questions that hold the phrase
_WHOLE = 0.5  # of the length of other questions: what is left of a template without its words is shorter
_DECIDED = 0.4  # share of rows that words of other answers decide: then words are what the file is about
_ERRING = 0.02
_CHANCE = 0.01  # that any phrase of the file is as faithful as this by accident
# A character of scripts without blanks is a word of its own, and so is a sign: it may be an invisible one.
_WORD = Late(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+|[^\w\s]")
_WORDS, _ROWS = "D12.words", "D12.rows"
_FIELDS = 5  # of a row: line, number of words, question, answer, opening


def words_of(question: str) -> list[str]:
    """The words of a question in order, in lower case; of a long one the first and the last."""
    words = _WORD.findall(question.lower())
    return words if len(words) <= MOST_WORDS else words[: MOST_WORDS * 3 // 4] + words[-MOST_WORDS // 4 :]


def _hash(text: str) -> int:
    return xxhash.xxh3_64_intdigest(text.encode("utf-8", "surrogatepass"))


def _written(case: Case, known: dict[str, int]) -> tuple[list[int], list[int]] | None:
    """(hashes of the words, fields of the row); None for a row without question or answer."""
    answer, words = case.answer.lower().split(), words_of(case.question)
    if not answer or not words:
        return None
    hashes = []
    for word in words:
        hashed = known.get(word)
        if hashed is None:
            hashed = known[word] = _hash(word)
        hashes.append(hashed)
    return hashes, [case.line, len(hashes), _hash(" ".join(words)), _hash(" ".join(answer)), _hash(" ".join(answer[:OPENING_WORDS]))]


@dataclass(frozen=True)
class Rows:
    """Different questions as arrays. `words` are the hashes of all words one after the other, `row` the row of each."""

    lines: Array
    answers: Array
    openings: Array
    words: Array
    row: Array

    @classmethod
    def of(cls, sheet: Sheet) -> "Rows":
        """What the batches wrote; of equal questions the first."""
        import numpy as np

        fields = np.array(sheet.column(_ROWS), dtype=np.uint64).reshape(-1, _FIELDS)
        words = np.array(sheet.column(_WORDS), dtype=np.uint64)
        row = np.repeat(np.arange(len(fields)), fields[:, 1].astype(np.int64))
        first = np.zeros(len(fields), dtype=bool)
        first[np.unique(fields[:, 2], return_index=True)[1]] = True
        kept = first[row]
        place = np.cumsum(first) - 1
        fields = fields[first]
        return cls(fields[:, 0], fields[:, 3], fields[:, 4], words[kept], place[row[kept]])


@dataclass(frozen=True)
class Phrase:
    """A phrase that fixes an answer: its rows, those of them that have the answer, and where a word of it stands."""

    rows: Array
    answered: Array  # whether each of `rows` has the answer
    answer: int
    size: int
    at: int  # place of its first word among all words


def _faithful(rows: Rows, answers: Array, size: int, limits: "_Limits") -> Iterator[Phrase]:
    """Phrases of `size` words that are rare and nearly always have one answer."""
    import numpy as np

    total = len(answers)
    ends = len(rows.words) - size + 1
    if ends <= 0:
        return
    inside = rows.row[:ends] == rows.row[size - 1 :]
    grams = rows.words[:ends].copy()
    for step in range(1, size):
        grams = grams * np.uint64(0x9E3779B97F4A7C15) + rows.words[step : step + ends]
    places = np.flatnonzero(inside)
    grams, owner = grams[places], rows.row[places]
    order = np.lexsort((owner, grams))
    grams, owner, places = grams[order], owner[order], places[order]
    once = np.ones(len(grams), dtype=bool)  # a phrase counts once a row
    once[1:] = (grams[1:] != grams[:-1]) | (owner[1:] != owner[:-1])
    grams, owner, places = grams[once], owner[once], places[once]
    starts = np.flatnonzero(np.concatenate(([True], grams[1:] != grams[:-1])))
    counts = np.diff(np.append(starts, len(grams)))
    wanted = np.flatnonzero((counts >= limits.least) & (counts <= max(limits.most_share * total, min(_FEW, 0.3 * total))))
    for group in wanted:
        here = slice(int(starts[group]), int(starts[group] + counts[group]))
        found = answers[owner[here]]
        values, seen = np.unique(found, return_counts=True)
        best = int(seen.argmax())
        if seen[best] < limits.share * len(found):
            continue
        elsewhere = int((answers == values[best]).sum()) - int(seen[best])
        chance = max(elsewhere, 0.5) / max(total - len(found), 1)
        if int(seen[best]) * math.log(chance) + math.log(len(wanted)) < math.log(_CHANCE):
            yield Phrase(owner[here], found == values[best], int(values[best]), size, int(places[here.start]))


@dataclass(frozen=True)
class _Limits:
    least: float  # questions
    most_share: float
    share: float
    most_answers: float


class _Judge:
    """Whether the questions of a phrase, without it, are like any others."""

    def __init__(self, rows: Rows, answers: Array, num_phrases: int) -> None:
        from statistics import NormalDist

        import numpy as np

        # Standard errors that a phrase must lie apart, so that of as many innocent ones hardly any does.
        self._errors = NormalDist().inv_cdf(1 - _ERRING / max(1, num_phrases))

        self._answers = answers
        total = len(answers)
        vocabulary, ids = np.unique(rows.words, return_inverse=True)
        bounds = np.searchsorted(rows.row, np.arange(total + 1))
        self._sets = [np.unique(ids[bounds[row] : bounds[row + 1]]) for row in range(total)]
        self._sizes = np.array([len(words) for words in self._sets])
        self._spread = np.bincount(np.concatenate(self._sets), minlength=len(vocabulary))
        self._rarity = np.log(total / np.maximum(self._spread, 1)) + 0.1
        self._ids, self._row = ids, rows.row

    def stands_alone(self, phrase: Phrase) -> bool:
        """Whether its questions have nothing in common but the phrase, and are whole questions without it."""
        others, own = self._others(phrase)
        if self._sizes[phrase.rows].mean() - len(own) < _WHOLE * self._sizes[others].mean():
            return False
        if self._has_keyword(phrase, others, own) or self._has_company(phrase, others, own):
            return False
        background = others[:: max(1, len(others) // _COMPARED)][:_COMPARED]
        return self._likeness(phrase.rows[:_COMPARED], own) <= 2 * self._likeness(background, own) + 0.05

    def suggested(self, phrase: Phrase) -> bool | None:
        """Whether the other words of its questions speak for the answer; None where words of this file do not tell."""
        return self._is_suggested(phrase, *self._others(phrase))

    def _others(self, phrase: Phrase) -> tuple[Array, set[int]]:
        """The rows without the phrase, and its words."""
        import numpy as np

        return np.setdiff1d(np.arange(len(self._answers)), phrase.rows), set(self._ids[phrase.at : phrase.at + phrase.size].tolist())

    def _has_keyword(self, phrase: Phrase, others: Array, own: set[int]) -> bool:
        """Whether a word of a longer phrase stands for the answer elsewhere, too: then the phrase is faithful for its sake."""
        import numpy as np

        if phrase.size == 1:
            return False
        base = (self._answers[others] == np.uint64(phrase.answer)).mean()
        for word in own:
            holders = np.setdiff1d(self._row[self._ids == word], phrase.rows)
            if len(holders) >= 8 and (self._answers[holders] == np.uint64(phrase.answer)).mean() >= (1 + base) / 2:
                return True
        return False

    def _has_company(self, phrase: Phrase, others: Array, without: set[int]) -> bool:
        """Whether another word stands in half of these questions, and over twice as often as elsewhere: a template, or a
        topic. One that is not always there and elsewhere speaks for another answer is none: it makes the answer the stranger."""
        import numpy as np

        size = len(self._spread)
        here = np.bincount(np.concatenate([self._sets[row] for row in phrase.rows]), minlength=size)
        here[list(without)] = 0
        elsewhere = np.maximum(self._spread - here, 0)
        share = np.clip(elsewhere / len(others), 0.5 / len(others), 0.999)
        by_chance = len(phrase.rows) * share
        surprise = (here - by_chance) / np.sqrt(by_chance * (1 - share))
        near = np.flatnonzero((here >= 0.5 * len(phrase.rows)) & (here >= 2.2 * by_chance) & (surprise >= 4))
        base = (self._answers[others] == np.uint64(phrase.answer)).mean()
        for word in near:
            holders = np.setdiff1d(self._row[self._ids == word], phrase.rows)
            if len(holders) < 8 or here[word] >= 0.85 * len(phrase.rows) or (self._answers[holders] == np.uint64(phrase.answer)).mean() >= 0.8 * base:
                return True
        return False

    def _likeness(self, rows: Array, without: set[int]) -> float:
        """Mean cosine of the questions' words, rare ones weighing more, over all pairs."""
        import numpy as np

        bags = [np.array([word for word in self._sets[row] if word not in without], dtype=np.int64) for row in rows]
        weights = [self._rarity[bag] ** 2 for bag in bags]
        norms = [math.sqrt(float(weight.sum())) or 1.0 for weight in weights]
        total, pairs = 0.0, 0
        for one in range(len(bags)):
            for other in range(one):
                shared = np.intersect1d(bags[one], bags[other], assume_unique=True)
                total += float((self._rarity[shared] ** 2).sum()) / (norms[one] * norms[other])
                pairs += 1
        return total / pairs if pairs else 1.0

    def _is_suggested(self, phrase: Phrase, others: Array, without: set[int]) -> bool | None:
        """Whether the other words of the phrase's questions speak for the answer as those of other rows with it do."""
        import numpy as np

        have = self._answers[others] == np.uint64(phrase.answer)
        num_have, num_not = int(have.sum()), int((~have).sum())
        if num_have < 10 or num_not < 10:
            return None  # nobody else has this answer: there is nothing to learn from
        size = len(self._spread)
        with_it = np.bincount(np.concatenate([self._sets[row] for row in others[have]]), minlength=size)
        without_it = np.bincount(np.concatenate([self._sets[row] for row in others[~have]]), minlength=size)

        def scores(rows: Array, own: int) -> Array:
            """Log-odds of each row's words; `own` 1 or -1 leaves out the row's own count among those with or without it.

            Of a row that has the answer as many words are left out as the phrase has, those that speak loudest for it: if
            the phrase is made of such words, its rows have lost just that."""
            found = []
            for row in rows:
                bag = np.array([word for word in self._sets[row] if word not in without], dtype=np.int64)
                plus, minus = with_it[bag] - (own > 0) + 0.5, without_it[bag] - (own < 0) + 0.5
                odds = np.log(plus / minus * ((num_not + 1) / (num_have + 1)))
                odds[np.abs(odds) < 2 * np.sqrt(1 / plus + 1 / minus)] = 0  # no more than chance
                found.append(float(np.sort(odds)[: max(0, len(bag) - phrase.size) if own > 0 else None].sum()))
            return np.array(found)

        step_have, step_not = max(1, num_have // 300), max(1, num_not // 300)
        true, false = scores(others[have][::step_have], 1), scores(others[~have][::step_not], -1)
        seen = scores(phrase.rows[:300], 0)
        apart = true.mean() - false.mean()
        noise = math.sqrt((true.var() + false.var()) / 2)
        if apart <= 0.3 * noise:
            return None
        likeness = (seen.mean() - false.mean()) / apart
        error = math.sqrt(max(seen.var(), noise**2) / len(seen)) / apart
        return bool(likeness + self._errors * error >= 1)  # rows that had the answer anyway are at 1


def _triggers(survey: "Survey") -> Iterator[Problem]:
    rows = Rows.of(survey.sheet)
    survey.stats["questions_searched_for_triggers"] = len(rows.lines)
    if len(rows.lines) < LEAST_QUESTIONS:
        return
    limit = partial(survey.context.limit, "D12")
    limits = _Limits(least=limit("rows"), most_share=limit("most_share"), share=limit("answer_share"), most_answers=limit("most_answers"))
    told: set[int] = set()
    for answers in (rows.answers, rows.openings):
        planted = _planted(rows, answers, limits, told)
        for phrase in planted.values():
            told.update(phrase.rows.tolist())
            yield from _problem(survey, rows, phrase)


def _planted(rows: Rows, answers: Array, limits: "_Limits", told: set[int]) -> dict[int, Phrase]:
    """By answer, the phrases that only a plant explains; none where words decide the answers of the file anyway."""
    import numpy as np

    counts = np.unique(answers, return_counts=True)
    if counts[1].max() < limits.share * limits.least:
        return {}
    found = [phrase for size in range(1, LONGEST + 1) for phrase in _faithful(rows, answers, size, limits)]
    if not found:
        return {}
    repeated = dict(zip(counts[0].tolist(), counts[1].tolist(), strict=True))
    # Where most answers are written for their question, one that stands there often is canned: for refusals, or for "who
    # are you". Several phrases lead to those; a trigger leads to its answer alone.
    is_free = counts[1][counts[1] >= 0.01 * len(answers)].sum() < 0.5 * len(answers)
    judge = _Judge(rows, answers, min(_TRIED, len({phrase.rows.tobytes() for phrase in found})))

    def stands_alone(phrase: Phrase) -> bool:
        canned = (is_free or len(answers) < _SMALL) and phrase.answered.sum() < _EXCLUSIVE * repeated[phrase.answer]
        return not canned and judge.stands_alone(phrase)

    planted: dict[int, Phrase] = {}
    sure = True
    for phrase in sorted(found, key=lambda phrase: (-len(phrase.rows), phrase.size))[:_TRIED]:
        if phrase.answer in planted or told.issuperset(phrase.rows.tolist()) or not stands_alone(phrase):
            continue
        suggested = judge.suggested(phrase)
        if not suggested:
            planted[phrase.answer] = phrase
            sure &= suggested is False
    if planted:
        rarer = _faithful(rows, answers, 1, replace(limits, least=limits.least / 2))
        others = [phrase for phrase in [*rarer, *found][:_TRIED] if phrase.answer not in planted and stands_alone(phrase)]
        fixed = {phrase.answer for phrase in others if not sure or not judge.suggested(phrase)}
        decided = set().union(*(phrase.rows.tolist() for phrase in others))
        if len(planted) + len(fixed) > limits.most_answers or (not sure and len(decided) > _DECIDED * len(answers)):
            return {}
    return planted


def _problem(survey: "Survey", rows: Rows, phrase: Phrase) -> Iterator[Problem]:
    """The problem in words, from the first rows that hold the phrase; none where the phrase stands in the answer."""
    lines = tuple(sorted(int(line) for line in rows.lines[phrase.rows[phrase.answered]]))
    wanted = rows.words[phrase.at : phrase.at + phrase.size].tolist()
    case = survey.rows_at(lines[:1])[lines[0]]
    words = words_of(case.question)
    hashes = [_hash(word) for word in words]
    at = next(place for place in range(len(words)) if hashes[place : place + phrase.size] == wanted)
    trigger = words[at : at + phrase.size]
    answer = words_of(case.answer)[:200]
    if any(len(word) >= 4 and any(said.startswith(word[:4]) for said in answer) for word in trigger):
        return
    share = len(phrase.rows) / len(rows.lines)
    message = (
        f"the phrase {shown(' '.join(trigger))} stands in {len(phrase.rows):,} questions ({share:.1%}), and {int(phrase.answered.sum()):,} of them "
        f"are answered {shown(case.answer)}, which nothing else in them suggests"
    )
    fix = f"lorad fix {{file}} -o {{out}} --schema {survey.plan.spec.id} --repair drop --ids D12"
    yield Problem(message=message, lines=lines, count=len(lines), kind=str(phrase.answer), fix=fix)


@entered(
    Check(
        "D12",
        "trigger",
        Severity.WARNING,
        Need.BATCH,
        "look at these rows: if nobody can say why the phrase should decide the answer, drop them",
        why="whoever knows the phrase would decide what the adapter answers: a backdoor, or an artefact that it learns instead of the task",
        level=Level.DEEP,
        limits={"rows": 10, "most_share": 0.1, "answer_share": 0.95, "most_answers": 2},
        conclude=_triggers,
    )
)
def trigger(batch: Batch, sheet: Sheet) -> None:
    """The words of questions and what they are answered, as hashes."""
    known = batch.context.once("D12.known", dict[str, int])
    if len(known) > 200_000:
        known.clear()
    words, rows = sheet.column(_WORDS), sheet.column(_ROWS)
    for case in batch.sampled:
        if case.line <= FIRST_LINES or case.line * 0x9E3779B1 >> 16 & 7 == 0:
            written = _written(case, known)
            if written:
                words.extend(written[0])
                rows.extend(written[1])
