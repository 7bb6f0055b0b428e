"""Signals for tests, by few words."""

from datetime import UTC, datetime, timedelta
from typing import Any

from core.signals import Signal, SignalKind, signal_id

NOON = datetime(2026, 1, 6, 12, 0, tzinfo=UTC)
ADAPTER = "acme/support"


def signal(question: str, *, right: str = "", wrong: str = "", kind: str = "correction", minute: int = 0, **rest: Any) -> Signal:
    """A signal of acme/support about one question, with consent, `minute` minutes after noon."""
    asked = rest.pop("input", ({"role": "user", "content": question},))
    known: dict[str, Any] = {"persona": "acme", "domain": "support", "consent": True, "source": "api"} | rest
    at = NOON + timedelta(minutes=minute)
    made = Signal(id="", kind=SignalKind(kind), input=asked, correct_output=right, wrong_output=wrong, at=at, **known)
    from dataclasses import replace

    return replace(made, id=signal_id(made))


def corrections(count: int, start: int = 0) -> list[Signal]:
    """Corrections of so many different questions."""
    return [
        signal(TOPICS[number % len(TOPICS)].format(number), wrong=f"It is {number}.", right=f"In the house style: the answer to {number} is {number * 7}.")
        for number in range(start, start + count)
    ]


TOPICS = ("How many boxes are in order {}?", "When does parcel {} arrive at our depot?", "Which colour has article {} in the new catalogue?")
