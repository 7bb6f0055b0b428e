"""Rows as a job learns them and is judged by them: what the gate accepted, under the job's profile."""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import msgspec

from rendering.profiles.profile import DataProfile
from rendering.rows import Row
from rendering.specs import Message


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What a profile did to one turn; an empty `before` is a turn that it added, an empty `after` one that it took away."""

    turn: int  # its place in the changed conversation
    role: str
    before: str
    after: str


def prepare(rows: Iterable[Row], profile: DataProfile, *, last_turn_only: bool = False) -> list[Row]:
    """The rows under a profile, in order, each changed once; with `last_turn_only` the last answer alone is learnt.

    Raises LoradError PROFILE_FAILED for a row that the profile fails on.
    """
    changed = [profile.apply(row) for row in rows]
    return [only_last_turn(row) for row in changed] if last_turn_only else changed


def only_last_turn(row: Row) -> Row:
    """The row with every assistant turn but the last as context alone. A last turn of weight 0 stays so: nothing is learnt then."""
    return replace(row, messages=_only_last(row.messages), rejected=_only_last(row.rejected) if row.rejected is not None else None)


def _only_last(messages: Sequence[Message]) -> list[Message]:
    last = max((index for index, message in enumerate(messages) if message.role == "assistant"), default=-1)
    return [
        msgspec.structs.replace(message, weight=0.0) if message.role == "assistant" and index != last else message for index, message in enumerate(messages)
    ]


def changes(before: Sequence[Message], after: Sequence[Message]) -> list[Change]:
    """What differs between a conversation and its changed form, turn by turn."""
    found = []
    roles = difflib.SequenceMatcher(None, [message.role for message in before], [message.role for message in after], autojunk=False)
    for kind, start, stop, new_start, new_stop in roles.get_opcodes():
        if kind == "equal":
            pairs: Iterable[tuple[Message | None, Message | None, int]] = (
                (before[start + step], after[new_start + step], new_start + step) for step in range(stop - start)
            )
        else:
            taken = [(message, None, new_start) for message in before[start:stop]]
            pairs = [*taken, *((None, after[place], place) for place in range(new_start, new_stop))]
        found += [_change(old, new, place) for old, new, place in pairs if old is None or new is None or old.content != new.content]
    return found


def _change(old: Message | None, new: Message | None, place: int) -> Change:
    shown = new or old
    assert shown is not None
    return Change(turn=place, role=shown.role, before=old.content if old else "", after=new.content if new else "")
