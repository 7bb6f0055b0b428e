"""What was said in each session, encrypted on the box: one file a session below `<serving.home>/histories/`.

A session's id is a secret of 128 random bits: who knows it may read and delete the session, if the same API key asks. The
file's name is a hash of the id, so that a listing opens nothing. Its bytes are a 12-byte nonce and AES-256-GCM of the JSON
record with the name as associated data; the key is derived from the box's secret. A file is replaced as a whole after each
exchange, by rename and fsync: a crash loses at most the exchange that nobody was told is kept.
"""

import hashlib
import logging
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from core.errors import IntegrityError, LoradError
from store import codec
from store.boxsecret import purpose_key
from store.durable import replace_file, sync_dir
from store.paths import Box

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

log = logging.getLogger(__name__)

FOLDER = "histories"
PURPOSE = "histories"
SUFFIX = ".talk"
NONCE_BYTES = 12
SWEEP = timedelta(hours=1)
MOST_MESSAGES = 1000  # kept of one session; the oldest leave first


class SessionUnknown(LoradError):
    """No such session here: never was, deleted, expired, or another key's."""

    def __init__(self) -> None:
        super().__init__("no such session", hint="leave session_id out to begin a new one; sessions expire", code="SESSION_UNKNOWN")


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """One message of a session. An answer carries where it came from."""

    role: Literal["user", "assistant"]
    content: str
    at: datetime
    response_id: str = ""
    model: str = ""
    release: str = ""  # or base
    finish_reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """A session. Messages before `context_from` are history only: they go with no new message."""

    owner: str  # id of the API key that began it; empty without keys
    model: str
    began_at: datetime
    messages: tuple[Said, ...] = ()
    context_from: int = 0


class Histories:
    """The sessions of a box. Blocks on the disk: from an event loop, call it in a thread."""

    def __init__(self, box: Box, keep_days: float, now: Callable[[], datetime]) -> None:
        self._box = box
        self._folder = box.root / FOLDER
        self._keep = timedelta(days=keep_days)
        self._now = now
        self._swept_at: datetime | None = None

    def begin(self, owner: str, model: str) -> tuple[str, History]:
        """The id of a new session, and the session. Nothing is written until something was said."""
        return secrets.token_urlsafe(16), History(owner=owner, model=model, began_at=self._now())

    def read(self, session: str, owner: str) -> History:
        """A session. Raises SessionUnknown; IntegrityError HISTORY_DAMAGED."""
        path = self._path(session)
        try:
            raw = path.read_bytes()
        except FileNotFoundError:
            raise SessionUnknown from None
        history = self._decrypted(path, raw)
        if history.owner != owner or self._is_over(history):
            raise SessionUnknown
        return history

    def write(self, session: str, history: History) -> None:
        """Replace a session's file; of more than 1,000 messages the oldest are left out. Durable. Raises OSError."""
        if extra := max(0, len(history.messages) - MOST_MESSAGES):
            history = replace(history, messages=history.messages[extra:], context_from=max(0, history.context_from - extra))
        path = self._path(session)
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        nonce = os.urandom(NONCE_BYTES)
        replace_file(path, nonce + self._cipher().encrypt(nonce, codec.dump(history).encode(), path.name.encode()), mode=0o600)

    def delete(self, session: str, owner: str) -> None:
        """Delete a session for good. Raises SessionUnknown, IntegrityError."""
        self.read(session, owner)
        self._path(session).unlink(missing_ok=True)
        sync_dir(self._folder)

    def sweep(self) -> int:
        """Delete the sessions whose last message is older than `serving.conversation.keep_days`, by the files' times; how many went.

        May be called often: it looks once an hour.
        """
        if self._swept_at is not None and self._now() - self._swept_at < SWEEP:
            return 0
        self._swept_at = self._now()
        before = (self._now() - self._keep).timestamp()
        gone = 0
        for path in self._folder.glob(f"*{SUFFIX}"):
            try:
                if path.stat().st_mtime < before:
                    path.unlink()
                    gone += 1
            except FileNotFoundError:
                continue
            except OSError as error:
                log.warning("%s: %s", path, error.strerror, extra={"action": "history_unswept"})
        return gone

    def _is_over(self, history: History) -> bool:
        last = history.messages[-1].at if history.messages else history.began_at
        return self._now() - last > self._keep

    def _path(self, session: str) -> Path:
        return self._folder / f"{hashlib.sha256(session.encode()).hexdigest()[:32]}{SUFFIX}"

    def _decrypted(self, path: Path, raw: bytes) -> History:
        from cryptography.exceptions import InvalidTag

        try:
            return codec.parse(History, self._cipher().decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], path.name.encode()))
        except (InvalidTag, ValueError):
            hint = "delete it: nobody can read it without the secret that the box had then"
            raise IntegrityError(f"{path} was changed, or belongs to another box", hint=hint, code="HISTORY_DAMAGED") from None

    def _cipher(self) -> "AESGCM":
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        return AESGCM(purpose_key(self._box, PURPOSE))
