"""Where a signal lies when it comes, and after a person gave its right answer: rules without a file of their own."""

from collections.abc import Container, Iterator
from dataclasses import replace
from datetime import datetime

from core.learning import FeedbackConfig
from core.names import is_part
from core.signals import Origin, Signal, SignalKind, Standing
from store.caps import SOURCE_HELD, Manifest
from store.signallog import Note

MOST_ID = 128  # characters

__all__ = ["SOURCE_HELD", "arrived", "corrected", "first_note", "objection", "standing_of"]


def objection(signal: Signal) -> str:
    """Why the signal can be stored nowhere; empty: it can."""
    if not signal.id or len(signal.id) > MOST_ID or not signal.id.isprintable():
        return f"an id has 1 to {MOST_ID} printable characters"
    if not is_part(signal.persona) or not is_part(signal.domain):
        return f"{signal.adapter!r} is no name of an adapter"
    return ""


def first_note(manifest: Manifest, signal: Signal, now: datetime, limits: FeedbackConfig) -> Note:
    """The line of a signal that was not there before."""
    cap = manifest.day.over(signal.source, signal.user, limits)
    standing = Standing.CAPPED if cap else standing_of(manifest.held, signal.source, is_proposal=signal.is_proposal, is_whole=signal.is_whole)
    code = cap or (SOURCE_HELD if standing is Standing.QUARANTINED else "")
    message = manifest.held[signal.source] if code == SOURCE_HELD else ""
    return Note(id=signal.id, standing=standing, since=now, stored_at=now, code=code, message=message, signal=signal)


def standing_of(held: Container[str], source: str, *, is_proposal: bool, is_whole: bool) -> Standing:
    """Where it lies where no cap stands in the way: what nobody knows the right answer of, and what is a mere proposal, waits for a person."""
    if source in held:
        return Standing.QUARANTINED
    return Standing.REVIEW if is_proposal or not is_whole else Standing.PENDING


def arrived(numbers: Iterator[int], note: Note, is_whole: bool, before: int = 0) -> Note:
    """The line with its number among the signals that ever became pending rows, where this makes it one.

    Args: numbers: those that are free. before: the number that it has already.
    """
    if before or note.standing is not Standing.PENDING or not is_whole:
        return replace(note, arrival=before) if before else note
    return replace(note, arrival=next(numbers))


def corrected(signal: Signal, right: str, limits: FeedbackConfig) -> Signal:
    """The signal with the right answer that a person gave: it counts as a person's now."""
    kind = signal.kind if signal.kind in (SignalKind.CORRECTION, SignalKind.IMPORT) else SignalKind.CORRECTION
    wrong = signal.wrong_output or (signal.correct_output if signal.kind is SignalKind.POSITIVE else "")
    human = {"origin": Origin.HUMAN, "weight": limits.human_weight, "confidence": 1.0}
    return replace(signal, kind=kind, correct_output=right, wrong_output=wrong, is_proposal=False, **human)  # type: ignore[arg-type]
