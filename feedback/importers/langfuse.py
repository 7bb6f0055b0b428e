"""Langfuse: exported traces or observations with their scores, as JSON or JSON Lines.

Scores come as a list of objects (a trace's download, the public API), or as a column of its own for each name of a score
(the export of a table). A corrected output is a score of the data type CORRECTION. In the export to blob storage names are
written with underscores and scores are rows of their own, in another file: both files together are one import.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from core.signals import SignalKind
from feedback.importers.port import NO_TEXT, NOT_JUDGED, NOTHING_ASKED, Judged, Record, Wish, parsed, text_of, time_of, turns_of, verdict_of

NAME = "langfuse"
FEEDBACK = re.compile(r"feedback|thumb|satisf|user.?rating|like", re.IGNORECASE)  # names of scores by which users judge
COLUMNS = frozenset({"traceId", "trace_id", "observations", "scores", "sessionId", "session_id", "bookmarked", "startTime", "start_time", "htmlPath"})


def matches(record: Record) -> bool:
    """Whether it is a trace, an observation, or a score."""
    return _is_score(record) or ("input" in record and "output" in record and bool(COLUMNS & set(record)))


def judged(records: Sequence[Record], wish: Wish) -> Iterator[Judged | str]:
    """One for each trace or observation; the judged observations of a trace come in its place."""
    scores: dict[str, list[Record]] = {}
    for record in records:
        if _is_score(record):
            about = _at(record, "observationId", "observation_id") or _at(record, "traceId", "trace_id")
            scores.setdefault(str(about), []).append(record)
    for record in records:
        if _is_score(record):
            continue
        inner = [one for one in _list(record.get("observations")) if "input" in one]
        found = [_judged(one, [*_own(record, one), *scores.get(str(one.get("id")), ())], wish, record) for one in inner]
        told = [one for one in found if isinstance(one, Judged)]
        if told:
            yield from told
        else:
            yield _judged(record, [*_of_trace(record, wish), *scores.get(str(record.get("id")), ())], wish, record)


def _is_score(record: Record) -> bool:
    return "name" in record and "input" not in record and bool({"dataType", "data_type"} & set(record))


def _own(trace: Record, observation: Record) -> list[Record]:
    """The scores of a trace's list that are about one of its observations."""
    return [score for score in _list(trace.get("scores")) if _at(score, "observationId", "observation_id") == observation.get("id") and observation.get("id")]


def _of_trace(record: Record, wish: Wish) -> list[Record]:
    """The scores about the record as a whole: its list, its mapping by name, or its columns."""
    scores = parsed(record.get("scores"))
    if isinstance(scores, Mapping):
        return [{"name": name, "value": value} for name, value in scores.items()]
    listed = [score for score in _list(scores) if not _at(score, "observationId", "observation_id")]
    return listed or [{"name": name, "value": value} for name, value in record.items() if _judges(name, wish)]


def _judged(record: Record, scores: Sequence[Record], wish: Wish, trace: Record) -> Judged | str:
    turns, answer = turns_of(record.get("input")), text_of(record.get("output"))
    if not turns:
        return NOTHING_ASKED
    if not answer.strip():
        return NO_TEXT
    right = next((text for score in scores if (text := _correction(score))), "")
    verdicts = [verdict_of(_value(score)) for score in scores if _judges(str(score.get("name")), wish)]
    kind = SignalKind.CORRECTION if right else next((one for one in reversed(verdicts) if one is not None), None)
    if kind is None:
        return NOT_JUDGED
    comments = [str(score["comment"]) for score in scores if score.get("comment")]
    told = {"trace": str(_at(record, "traceId", "trace_id") or trace.get("id") or ""), "model": str(_at(record, "model", "provided_model_name") or "")}
    return Judged(
        kind=kind,
        asked=tuple(turns),
        answer="" if kind is SignalKind.POSITIVE else answer,
        right=right or (answer if kind is SignalKind.POSITIVE else ""),
        user=str(_at(record, "userId", "user_id") or _at(trace, "userId", "user_id") or ""),
        at=time_of(_at(record, "timestamp", "startTime", "start_time") or _at(trace, "timestamp")),
        reference=str(record.get("id") or ""),
        context="; ".join(comments),
        metadata={key: value for key, value in told.items() if value},
    )


def _correction(score: Record) -> str:
    if str(_at(score, "dataType", "data_type")).upper() != "CORRECTION":
        return ""
    return text_of(next((score[key] for key in ("longStringValue", "long_string_value", "stringValue", "string_value", "value") if score.get(key)), ""))


def _judges(name: str, wish: Wish) -> bool:
    """Whether a score of this name says what users think of the answer."""
    return name == wish.score if wish.score else bool(FEEDBACK.search(name))


def _value(score: Record) -> Any:
    """What was scored; of several values in a column the last."""
    kind = str(_at(score, "dataType", "data_type")).upper()
    value = _at(score, "stringValue", "string_value") if kind == "CATEGORICAL" else score.get("value")
    value = parsed(value)
    return value[-1] if isinstance(value, Sequence) and not isinstance(value, str) and value else value


def _at(record: Record, *keys: str) -> Any:
    return next((record[key] for key in keys if record.get(key) is not None), None)


def _list(value: Any) -> list[Record]:
    value = parsed(value)
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, Sequence) and not isinstance(value, str) else []
