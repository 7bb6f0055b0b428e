"""Reads `in/desired.json`: what is new about it, and why it is not to be trusted."""

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path

from core.errors import IntegrityError, LoradError, StateError
from core.wire import Desired
from store.wire import read_desired

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreign:
    """Bytes that lie still and are no wish of the training box that this one trusts."""

    raw: bytes
    code: str
    why: str


@dataclass(slots=True)
class WishFile:
    """The wish as one thread reads it again and again."""

    path: Path
    keys: Path
    _raw: bytes | None = None  # what was acted on
    _suspect: bytes | None = None  # bytes that did not verify; reported when they are still there a tick later
    _trouble: str = ""

    def read(self, *, again: bool) -> tuple[bytes, Desired] | Foreign | None:
        """The wish where it is new, or in any case with `again`; None: nothing to do. Raises OSError."""
        try:
            raw = self.path.read_bytes()
        except FileNotFoundError:
            return None
        if raw == self._raw and not again:
            return None
        try:
            desired = read_desired(self.path, self.keys)
        except StateError as error:
            self._tell(error)
            return None
        except IntegrityError as error:
            return self._distrust(raw, error)
        self._suspect, self._trouble = None, ""
        return (raw, desired) if desired is not None else None

    def last(self) -> Desired | None:
        """The wish as it lies there, for a start; None where it cannot be trusted."""
        try:
            return read_desired(self.path, self.keys)
        except (LoradError, OSError):
            return None  # `read` says why

    def done(self, raw: bytes) -> None:
        """It was acted on: only now, as what an error cut off is done again."""
        self._raw, self._suspect = raw, None

    def _distrust(self, raw: bytes, error: IntegrityError) -> Foreign | None:
        """Bytes that are still being written must not be called foreign: only what lies still for a tick is reported."""
        if raw != self._suspect:
            self._suspect = raw
            return None
        return Foreign(raw=raw, code=error.code, why=error.what)

    def _tell(self, error: LoradError) -> None:
        if error.what != self._trouble:
            self._trouble = error.what
            log.error("wishes cannot be checked: %s; %s", error.what, error.hint, extra={"action": "wish_unreadable"})


def mark_of(raw: bytes) -> str:
    """What a wish is called in the ledger."""
    return f"wish {hashlib.sha256(raw).hexdigest()[:12]}"
