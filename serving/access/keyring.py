"""The API keys of the box as the server knows them: read again when keys.json changes, so that a revoked key ends at once."""

import hmac
import logging
import threading
from dataclasses import dataclass

from core.access import ApiKey, Door, Scope, id_of
from core.errors import IntegrityError
from store.apikeys import PEPPER, digest_of, keys_path, read_api_keys
from store.boxsecret import purpose_key
from store.paths import Box

log = logging.getLogger(__name__)

Stamp = tuple[int, int, int]  # mtime, size, inode


@dataclass(frozen=True, slots=True)
class Known:
    """keys.json at one moment."""

    stamp: Stamp | None
    keys: dict[str, ApiKey]
    pepper: bytes = b""


class KeyRing:
    """Safe in threads. Where nobody ever made a key, none is needed, except for what only an admin may do.

    A file that vanished or cannot be read opens nothing: the last keys that were read stay in force.
    """

    def __init__(self, box: Box) -> None:
        """Raises IntegrityError for a damaged keys.json, StateError for the box's secret."""
        self._box = box
        self._lock = threading.Lock()
        self._known = self._read(self._stamp())
        self._was_made = self._known.stamp is not None

    @property
    def num_keys(self) -> int:
        """Keys in force."""
        return sum(key.revoked_at is None for key in self._fresh().keys.values())

    @property
    def is_keyless(self) -> bool:
        """Whether requests need no key."""
        self._fresh()
        return not self._was_made

    def needs_key(self, door: Door) -> bool:
        """Whether a request of that door must show a key."""
        return not door.is_open and (not self.is_keyless or door.scope is Scope.ADMIN)

    def has_scope(self, identity: str, scope: Scope) -> bool:
        """Whether the key of that id is in force and has the scope."""
        key = self._fresh().keys.get(identity)
        return key is not None and key.revoked_at is None and scope in key.scopes

    def find(self, authorization: str) -> ApiKey | None:
        """The key of an Authorization header; None for none, an unknown, a wrong or a revoked one, all in the same time."""
        known = self._fresh()
        scheme, _, given = authorization.partition(" ")
        text = given.strip()
        key = known.keys.get(id_of(text))
        digest = digest_of(known.pepper, text)
        is_right = hmac.compare_digest(digest, key.digest if key else digest[::-1])
        return key if key and is_right and scheme.lower() == "bearer" and key.revoked_at is None else None

    def _stamp(self) -> Stamp | None:
        try:
            found = keys_path(self._box).stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino

    def _fresh(self) -> Known:
        stamp = self._stamp()
        if stamp == self._known.stamp or stamp is None:
            return self._known
        with self._lock:
            try:
                self._known = self._read(stamp)
                self._was_made = True
            except (IntegrityError, OSError) as error:
                self._known = Known(stamp, self._known.keys, self._known.pepper)
                self._was_made = True
                log.error("keys.json: %s; the keys that were read before stay in force", error, extra={"action": "keys_unreadable"})
        return self._known

    def _read(self, stamp: Stamp | None) -> Known:
        keys = read_api_keys(self._box)
        if keys is None:
            return Known(None, {})
        return Known(stamp, {key.id: key for key in keys}, purpose_key(self._box, PEPPER))
