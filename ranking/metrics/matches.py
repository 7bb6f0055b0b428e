"""Metrics that read an answer: exact, number, option, JSON, tool calls, shared words, facts; length, repetition, refusals."""

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ranking.metrics.metric import Case, Kind, Kit, Metric, MetricError
from rendering import answers

NAME = re.compile(r"[^\W\d_][\w'\u2019-]*")
SENTENCE_END = re.compile(r"(?:^|[.!?:;\n\"\u201c(*#-])\s*$")


def _each(score: Callable[[Case], float | bool | None]) -> Callable[[Sequence[Case], Kit], list[float]]:
    def scored(cases: Sequence[Case], kit: Kit) -> list[float]:
        return [math.nan if (value := score(case)) is None else float(value) for case in cases]

    return scored


def _said(score: Callable[[str, str], float | bool | None]) -> Callable[[Sequence[Case], Kit], list[float]]:
    """For rows whose own answer says something: a bare tool call has no text to compare with."""
    return _each(lambda case: score(case.answer, case.expected) if case.expected.strip() else None)


def _option(case: Case) -> bool | None:
    options = answers.options_of(case.asked)
    wanted = answers.option_in(case.expected, options) if options else None
    return None if wanted is None else answers.option_in(case.answer, options) == wanted


def _wants_json(case: Case) -> bool:
    value = answers.json_in(case.expected)
    return isinstance(value, dict | list) and case.expected.lstrip().startswith(("{", "[", "```"))


def _json_valid(case: Case) -> bool | None:
    return isinstance(answers.json_in(case.answer), dict | list) if _wants_json(case) else None


def _json_match(case: Case) -> bool | None:
    return answers.same_json(answers.json_in(case.answer), answers.json_in(case.expected)) if _wants_json(case) else None


def _schema_of(case: Case) -> Mapping[str, Any] | None:
    """The JSON schema in the row's `metadata.schema`."""
    schema = case.row.metadata.get("schema")
    return schema if isinstance(schema, dict) else None


def _json_schema(case: Case) -> bool | None:
    schema = _schema_of(case)
    if schema is None:
        return None
    value = answers.json_in(case.answer)
    if value is answers.NOTHING:
        return False
    try:
        errors = answers.schema_errors(value, schema)
    except ValueError as error:
        raise MetricError(f"metadata.schema of line {case.row.line} of {case.row.drop!r} is {error}", hint="correct the row", code="METRIC_FAILED") from None
    if errors is None:
        raise MetricError("the package jsonschema-rs is not installed", hint="pip install 'lorad[gate]'", code="METRIC_NOT_RUN")
    return not errors


def _calls(case: Case) -> bool | None:
    wanted = case.question.expected.tool_calls or tuple(answers.tool_calls_in(case.expected))
    if not wanted and not case.row.tools:
        return None  # a row without tools says nothing about calls; one that has them and calls none, that none is to be called
    return answers.same_calls(answers.tool_calls_in(case.answer), wanted)


def _length(case: Case) -> float:
    return float(len(answers.words_of(case.answer)))


def _facts(cases: Sequence[Case], kit: Kit) -> list[float]:
    """Share of the facts of each row's own answer that the model's answer gives again; NaN for a row without facts."""
    found = []
    for case in cases:
        facts = facts_of(case.asked, case.expected)
        said = _words_and_numbers(case.answer)
        found.append(sum(fact in said for fact in facts) / len(facts) if facts else math.nan)
    return found


def facts_of(question: str, answer: str) -> list[str]:
    """What an answer says that can be right or wrong, as answers to its question: numbers, and names that do not open a sentence.

    What the question says already is left out: to say it again is no recall.
    """
    known = _words_and_numbers(question)
    names = [match[0] for match in NAME.finditer(answer) if match[0][0].isupper() and not SENTENCE_END.search(answer[: match.start()])]
    facts = [*(str(number.normalize()) for number in answers.numbers_in(answer)), *(answers.folded(name) for name in names if len(name) > 1)]
    return [fact for fact in dict.fromkeys(facts) if fact not in known]


def _words_and_numbers(text: str) -> set[str]:
    return {answers.folded(match[0]) for match in NAME.finditer(text)} | {str(number.normalize()) for number in answers.numbers_in(text)}


def _similar_length(cases: Sequence[Case], kit: Kit) -> list[float]:
    sizes = [(len(answers.words_of(case.answer)), len(answers.words_of(case.expected))) for case in cases]
    return [min(said, wanted) / max(said, wanted) if wanted and said else float(said == wanted) for said, wanted in sizes]


def most_common(texts: Sequence[str], number: int) -> list[str]:
    """The words that stand in most of the texts, most first: the function words of whatever language they are in."""
    counted = Counter(word for text in texts for word in set(answers.words_of(text)))
    return [word for word, _ in sorted(counted.items(), key=lambda item: (-item[1], item[0]))[:number]]


METRICS = (
    Metric(
        name="exact_match",
        about="the answer is the row's, but for case, blanks and punctuation",
        kind=Kind.BINARY,
        score=_said(answers.same_text),
    ),
    Metric(name="number_match", about="the answer ends in the row's number: behind ####, else the last", kind=Kind.BINARY, score=_said(answers.same_number)),
    Metric(name="multiple_choice", about="the answer chooses the row's option; options stand in the question as A) …", kind=Kind.BINARY, score=_each(_option)),
    Metric(name="json_valid", about="the answer holds JSON, on rows whose own answer is JSON", kind=Kind.BINARY, score=_each(_json_valid)),
    Metric(name="json_match", about="the answer's JSON equals the row's, whatever the order of keys", kind=Kind.BINARY, score=_each(_json_match)),
    Metric(
        name="json_schema", about="the answer's JSON fits the schema in metadata.schema", kind=Kind.BINARY, score=_each(_json_schema), library="jsonschema-rs"
    ),
    Metric(name="tool_call_match", about="the same tools are called with the same arguments, or none as in the row", kind=Kind.BINARY, score=_each(_calls)),
    Metric(name="f1", about="F1 of the words of the answer against the row's", kind=Kind.SHARE, score=_said(answers.shared_words)),
    Metric(name="factual_recall", about="share of the numbers and names of the row's answer that the answer gives", kind=Kind.SHARE, score=_facts),
    Metric(name="length", about="words of the answer", kind=Kind.OPEN, score=_each(_length)),
    Metric(name="length_match", about="shorter over longer of the answer's and the row's number of words", kind=Kind.SHARE, score=_similar_length),
    Metric(
        name="repetition",
        about="share of runs of four words that the answer has said before",
        kind=Kind.SHARE,
        score=_each(lambda case: answers.repeated_share(case.answer)),
        higher_is_better=False,
    ),
    Metric(
        name="refusal_rate",
        about="the answer declines, where the row's does not",
        kind=Kind.BINARY,
        score=_each(lambda case: None if answers.is_refusal(case.expected) else answers.is_refusal(case.answer)),
        higher_is_better=False,
    ),
)
