"""lorad's own form: JSON Lines of {kind, messages, answer?, correction?, user?, time?, context?, metadata?}, one judged answer a line.

`messages` is the conversation up to the answer; where no `answer` is given, it ends with it. `kind` is positive, mistake,
correction, or import, an answer to learn whoever gave it.
"""

from collections.abc import Iterator, Mapping, Sequence

from core.signals import SignalKind
from feedback.importers.port import NO_TEXT, NOTHING_ASKED, Judged, Record, Wish, text_of, time_of, turns_of

NAME = "lorad"


def matches(record: Record) -> bool:
    """Whether a line says its kind."""
    return record.get("kind") in list(SignalKind) and ("messages" in record or "input" in record)


def judged(records: Sequence[Record], wish: Wish) -> Iterator[Judged | str]:
    """One for each line."""
    del wish
    for record in records:
        yield _judged(record) if matches(record) else "has no kind, or no messages"


def _judged(record: Record) -> Judged | str:
    kind, turns = SignalKind(record["kind"]), turns_of(record.get("messages", record.get("input")))
    answer = text_of(record.get("answer", record.get("wrong_output", "")))
    if not answer and turns and turns[-1].get("role") == "assistant":
        answer, turns = text_of(turns[-1].get("content")), turns[:-1]
    right = text_of(record.get("correction", record.get("correct_output", "")))
    if not turns:
        return NOTHING_ASKED
    if kind in (SignalKind.POSITIVE, SignalKind.IMPORT):
        answer, right = "", right or answer
    if not right.strip() and (kind is not SignalKind.MISTAKE or not answer.strip()):
        return NO_TEXT
    metadata = record.get("metadata")
    return Judged(
        kind=kind,
        asked=tuple(turns),
        answer=answer,
        right=right,
        user=str(record.get("user") or ""),
        at=time_of(record.get("time")),
        reference=str(record.get("response_id") or record.get("id") or ""),
        context=str(record.get("context") or ""),
        metadata={str(key): str(value) for key, value in metadata.items()} if isinstance(metadata, Mapping) else {},
    )
