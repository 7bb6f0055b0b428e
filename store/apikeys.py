"""The API keys of an inference box: `<serving.home>/keys.json`, mode 0600, HMACs only. Changed by `lorad keys` alone."""

import hashlib
import hmac
import os
import secrets
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from core.access import MARK, ApiKey, Scope
from core.errors import UsageError
from store import codec
from store.boxsecret import purpose_key
from store.durable import replace_file
from store.locks import take_lock
from store.paths import Box

PEPPER = "api keys"
ID_BYTES, KEY_BYTES = 4, 32  # 256 random bits


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKeys:
    """keys.json."""

    keys: tuple[ApiKey, ...] = ()


def keys_path(box: Box) -> Path:
    """Where they lie."""
    return box.root / "keys.json"


def read_api_keys(box: Box) -> tuple[ApiKey, ...] | None:
    """Every key, the revoked ones too, oldest first; None where nobody ever made one. Raises IntegrityError for a damaged file."""
    try:
        return codec.read(ApiKeys, keys_path(box)).keys
    except FileNotFoundError:
        return None


def digest_of(pepper: bytes, key: str) -> str:
    """What is kept of a key. It has 256 random bits, so that a slow hash would cost every request and protect nothing more."""
    return hmac.new(pepper, key.encode(), hashlib.sha256).hexdigest()


def add_api_key(box: Box, name: str, scopes: Sequence[Scope], now: datetime) -> tuple[ApiKey, str]:
    """(what is kept, the key itself, which can never be shown again). Raises LockHeldError, OSError."""
    identity = secrets.token_hex(ID_BYTES)
    text = f"{MARK}_{identity}_{secrets.token_urlsafe(KEY_BYTES)}"
    digest = digest_of(purpose_key(box, PEPPER), text)
    made = ApiKey(id=identity, name=name, scopes=tuple(sorted(set(scopes))), digest=digest, made_at=now)
    with closing(_Lock(box)):
        _write(box, (*(read_api_keys(box) or ()), made))
    return made, text


def revoke_api_key(box: Box, wanted: str, now: datetime) -> ApiKey:
    """The key of that id or name, revoked. Raises UsageError where none or several are meant; LockHeldError, OSError."""
    with closing(_Lock(box)):
        keys = read_api_keys(box) or ()
        found = [key for key in keys if key.revoked_at is None and wanted in (key.id, key.name)]
        if len(found) != 1:
            known = ", ".join(f"{key.id} ({key.name})" for key in keys if key.revoked_at is None) or "none"
            raise UsageError(f"{wanted!r} names {len(found)} keys in force", hint=f"name one by its id: {known}", code="KEY_UNKNOWN")
        revoked = replace(found[0], revoked_at=now)
        _write(box, tuple(revoked if key.id == revoked.id else key for key in keys))
    return revoked


def _write(box: Box, keys: tuple[ApiKey, ...]) -> None:
    replace_file(keys_path(box), codec.dump(ApiKeys(keys=keys), indent=1) + "\n", mode=0o600)


class _Lock:
    """Held while keys.json is changed: of two people at once, neither's key is lost."""

    def __init__(self, box: Box) -> None:
        hint = "another `lorad keys` is at it; try again"
        self._fd = take_lock(box.root / "keys.lock", f"pid {os.getpid()}", f"{keys_path(box)}", hint=hint)

    def close(self) -> None:
        os.close(self._fd)
