"""What a box keeps of conversations where `serving.capture` is on: `capture/<day>/<response id>`, each encrypted by itself.

Feedback that names a response id finds prompt and answer here. AES-256-GCM (12 random bytes of nonce in front) under a key
derived from the box's secret; the associated data is day and name, so that no file can stand for another. A day's folder goes
as a whole when its time is over.
"""

import os
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from core.errors import IntegrityError
from core.fingerprints import mark_in, mark_of
from store import codec
from store.boxsecret import purpose_key
from store.durable import replace_file
from store.paths import Box

NONCE_BYTES = 12
_NAME = re.compile(r"[A-Za-z0-9-]{1,128}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """One answer, and what was asked: (role, text); the role of a bare prompt is empty."""

    release: str
    asked: tuple[tuple[str, str], ...]
    answer: str
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Captured:
    """One response."""

    response: str
    at: datetime
    key: str  # id of the API key that asked; empty without keys
    answers: tuple[Said, ...]
    model: str = ""  # as the request named it; a lorad before there was feedback left it out


class Captures:
    """The captured responses of a box. Safe in threads: every response has a file of its own."""

    def __init__(self, box: Box) -> None:
        """Raises StateError for the box's secret."""
        self._root = box.root / "capture"
        self._key = purpose_key(box, "capture")

    def put(self, captured: Captured) -> None:
        """Keep it; nothing where its id is no response id. Raises OSError."""
        if not _NAME.fullmatch(captured.response):
            return
        folder = self._root / captured.at.date().isoformat()
        folder.mkdir(parents=True, mode=0o700, exist_ok=True)
        path = folder / captured.response
        nonce = os.urandom(NONCE_BYTES)
        replace_file(path, nonce + AESGCM(self._key).encrypt(nonce, codec.dump(captured).encode(), _place(path)), mode=0o600, durable=False)

    def find(self, response: str) -> Captured | None:
        """What was captured under that id; None for none. Raises IntegrityError CAPTURE_DAMAGED."""
        for path in self._paths(response):
            raw = path.read_bytes()
            try:
                return codec.parse(Captured, AESGCM(self._key).decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], _place(path)))
            except (InvalidTag, ValueError):
                hint = "it was changed, moved, or the box's secret is another; delete it"
                raise IntegrityError(f"{path} cannot be decrypted", hint=hint, code="CAPTURE_DAMAGED") from None
        return None

    def delete(self, response: str) -> bool:
        """Whether there was one. Raises OSError."""
        paths = list(self._paths(response))
        for path in paths:
            path.unlink(missing_ok=True)
        return bool(paths)

    def sweep(self, today: date, days: float) -> None:
        """Delete the days whose newest text is older than `days`. Raises OSError."""
        for folder in self._root.glob("????-??-??"):
            try:
                day = date.fromisoformat(folder.name)
            except ValueError:
                continue
            if day + timedelta(days=days) < today:
                shutil.rmtree(folder)

    def _paths(self, response: str) -> Iterator[Path]:
        return iter(sorted(self._root.glob(f"*/{response}"))) if _NAME.fullmatch(response) else iter(())


def purge_captures(box: Box, releases: Iterable[str]) -> None:
    """Delete what these releases answered: who wants them gone does not want their words kept. Raises OSError."""
    marks = {mark_of(release) for release in releases}
    for path in (box.root / "capture").glob("*/*") if marks else ():
        if mark_in(path.name) in marks:
            path.unlink(missing_ok=True)


def _place(path: Path) -> bytes:
    return f"{path.parent.name}/{path.name}".encode()
