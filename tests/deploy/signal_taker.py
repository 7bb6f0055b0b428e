"""The daemon's half of the road of signals, as small as it can be: store once, remember how far, acknowledge."""

import shutil
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from core.signals import Ack, Signal, SignalKind
from store import codec
from store.paths import Home
from store.spool import spooled_after
from store.targets import ACK, mirror


def signal(name: str, text: str = "Berne") -> Signal:
    """A correction."""
    question = ({"role": "user", "content": "The capital of Switzerland?"},)
    at = datetime(2026, 1, 1, tzinfo=UTC)
    return Signal(id=name, kind=SignalKind.CORRECTION, persona="p", domain="d", input=question, correct_output=text, at=at)


@dataclass(slots=True)
class Taker:
    """Stores what the link brought."""

    home: Home
    box_id: str = ""
    number: int = 0
    stored: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)

    @property
    def mirror(self) -> Path:
        return mirror(self.home, "near") / "spool"

    def take(self, most: int = 1000) -> int:
        """Store the lines behind the last one; how many they were."""
        found = spooled_after(self.mirror, self.number, most)
        known = set(self.stored)
        for one in found:
            (self.doubled if one.signal.id in known else self.stored).append(one.signal.id)
            self.number = one.number
        return len(found)

    def acknowledge(self) -> None:
        codec.write(self.home.target("near") / ACK, Ack(box=self.box_id, number=self.number))

    def forget_the_mirror(self) -> None:
        """As after a power cut of this box."""
        shutil.rmtree(self.mirror, ignore_errors=True)
