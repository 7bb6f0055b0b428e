"""The identity of a drop: the same bytes for the same adapter under the same rows-changing keys and base."""

import hashlib
import json

from core.config import Config, identity_of


def drop_identity(sha256: str, adapter: str, config: Config, base_sha256: str) -> str:
    """SHA-256 over bytes hash, adapter, identity keys of the config, and base hash."""
    parts = {"sha256": sha256, "adapter": adapter, "base": base_sha256, "config": identity_of(config)}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
