"""The secret of an inference box: 32 random bytes in `<serving.home>/secret`, mode 0600, made when it is first needed.

Keys for single purposes are derived from it (HKDF-SHA-256): the pepper of the API keys, the key of what is captured, that of
histories. Who loses the file loses those: keys must be made anew, captured texts cannot be read. It leaves the box in no backup.
"""

import os
import stat
from pathlib import Path

from core.errors import StateError
from store.durable import create_file
from store.paths import Box

SECRET_BYTES = 32


def secret_path(box: Box) -> Path:
    """Where the secret lies."""
    return box.root / "secret"


def purpose_key(box: Box, purpose: str) -> bytes:
    """32 bytes for one purpose, always the same on this box. Makes the secret where there is none.

    Raises StateError BOX_SECRET_OPEN, BOX_SECRET_DAMAGED; OSError where it cannot be made.
    """
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(SHA256(), SECRET_BYTES, None, f"lorad {purpose}".encode()).derive(_secret(box))


def _secret(box: Box) -> bytes:
    path = secret_path(box)
    if not path.exists():
        box.root.mkdir(parents=True, exist_ok=True)
        create_file(path, os.urandom(SECRET_BYTES), mode=0o600)  # of two at once, both use what the first one made
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise StateError(f"{path} may be read by others", hint=f"chmod 600 {path}", code="BOX_SECRET_OPEN")
    secret = path.read_bytes()
    if len(secret) != SECRET_BYTES:
        what = f"{path} has {len(secret)} bytes, not {SECRET_BYTES}"
        raise StateError(what, hint="move it away; API keys must then be made anew with `lorad keys add`", code="BOX_SECRET_DAMAGED")
    return secret
