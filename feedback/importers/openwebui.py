"""Open WebUI: the export of feedbacks (Admin Panel, Evaluations, Feedbacks), a JSON array of records with a snapshot of the chat.

A record's `data.rating` is 1 or -1, `data.reason` and `data.comment` say why, `meta.message_id` names the answer within
`snapshot.chat`, whose `history.messages` is a tree: the question is what lies on the way from the answer up to its root.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from core.signals import SignalKind
from feedback.importers.port import NO_TEXT, NOT_JUDGED, NOTHING_ASKED, Judged, Record, Wish, text_of, time_of, verdict_of

NAME = "openwebui"
MOST_TURNS = 10_000


def matches(record: Record) -> bool:
    """Whether it is a record of feedback."""
    return isinstance(record.get("snapshot"), Mapping) and isinstance(record.get("data"), Mapping) and "rating" in record["data"]


def judged(records: Sequence[Record], wish: Wish) -> Iterator[Judged | str]:
    """One for each record."""
    del wish
    for record in records:
        yield _judged(record) if matches(record) else "is no record of feedback"


def _judged(record: Record) -> Judged | str:
    data, meta = record["data"], record.get("meta")
    meta = meta if isinstance(meta, Mapping) else {}
    kind = verdict_of(data.get("rating"))
    if kind is None:
        return NOT_JUDGED
    turns = _talk(record["snapshot"], str(meta.get("message_id") or ""))
    if not turns or not turns[-1]["content"].strip():
        return NO_TEXT
    if len(turns) < 2:
        return NOTHING_ASKED
    answer = turns[-1]["content"]
    told = {"model": str(data.get("model_id") or ""), "reason": str(data.get("reason") or "")}
    return Judged(
        kind=kind,
        asked=tuple(turns[:-1]),
        answer="" if kind is SignalKind.POSITIVE else answer,
        right=answer if kind is SignalKind.POSITIVE else "",
        user=str(record.get("user_id") or ""),
        at=time_of(record.get("updated_at") or record.get("created_at")),
        reference=str(record.get("id") or ""),
        context=str(data.get("comment") or data.get("reason") or ""),
        metadata={key: value for key, value in told.items() if value},
    )


def _talk(snapshot: Record, message: str) -> list[dict[str, str]]:
    """The turns up to the judged answer; empty where it is not there."""
    history = _history(snapshot)
    messages = history.get("messages")
    if isinstance(messages, Sequence):
        messages = {str(one.get("id")): one for one in messages if isinstance(one, Mapping)}
    if not isinstance(messages, Mapping):
        return []
    at: Any = message or history.get("currentId")
    turns: list[dict[str, str]] = []
    while isinstance(found := messages.get(at), Mapping) and len(turns) < MOST_TURNS:
        turns.append({"role": str(found.get("role")), "content": text_of(found.get("content"))})
        at = found.get("parentId")
    turns = [turn for turn in reversed(turns) if turn["role"] in ("system", "user", "assistant")]
    return turns if turns and turns[-1]["role"] == "assistant" else []


def _history(snapshot: Record) -> Record:
    """The history, as deep in the snapshot as the version puts it."""
    at: Any = snapshot
    for _ in range(4):
        if not isinstance(at, Mapping):
            break
        if isinstance(found := at.get("history"), Mapping):
            return found
        at = at.get("chat")
    return {}
