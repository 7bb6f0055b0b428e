"""What feedback says of the releases of this box, for the guard over a new one: an answer counts once, a user a few times.

The share of negative ratings takes a release back (`core.guarding`), so one person who presses a button again and again, or one
program that repeats itself, must not do it alone. Only what people said themselves counts, and only of answers whose ids this process
gave out: an id cannot be guessed, and whoever makes one up rates nothing.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection
from typing import Protocol

from core.fingerprints import BASE_MARK
from core.signals import Origin, Signal, SignalKind

MOST_OF_A_USER = 5  # ratings of one release that count, of each user who is named
REMEMBERED = 50_000  # answers that nobody has rated yet, and users


class Rate(Protocol):
    """`serving.witness.Witness.rate`."""

    def __call__(self, release: str | None, *, negative: bool) -> None:
        """Count a rating of a release, or of the base."""


class Ratings:
    """Ratings as they come. For one event loop. Args: releases: those of this box; ids of answers, and what they name, are anybody's words."""

    def __init__(self, rate: Rate, releases: Callable[[], Collection[str]]) -> None:
        self._rate = rate
        self._releases = releases
        self._given: OrderedDict[str, None] = OrderedDict()
        self._users: OrderedDict[tuple[str, str], int] = OrderedDict()

    def gave(self, response: str) -> None:
        """An answer with this id was given."""
        self._given[response] = None
        if len(self._given) > REMEMBERED:
            self._given.popitem(last=False)

    def hear(self, signal: Signal) -> None:
        """Count the signal where it rates an answer that was given by a release that is here; the first rating of an answer holds."""
        if signal.release != BASE_MARK and signal.release not in self._releases():
            return
        if signal.is_proposal or signal.origin is not Origin.HUMAN or signal.kind is SignalKind.IMPORT:
            return
        user = signal.release, signal.user
        if signal.response not in self._given or (signal.user and self._users.get(user, 0) >= MOST_OF_A_USER):
            return
        del self._given[signal.response]
        if signal.user:
            self._users[user] = self._users.get(user, 0) + 1
            if len(self._users) > REMEMBERED:
                self._users.popitem(last=False)
        self._rate(None if signal.release == BASE_MARK else signal.release, negative=signal.kind is not SignalKind.POSITIVE)
