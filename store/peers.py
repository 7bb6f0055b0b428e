"""Which mistakes a peer model was asked about: `feedback/peers.json`, ids alone. So nobody pays twice for one answer."""

import json
from collections.abc import Mapping, Sequence

from store.durable import replace_file
from store.paths import Home

MOST = 10_000  # of one adapter; the oldest leave first, and would be asked about again if they still waited


def read_asked(home: Home) -> dict[str, list[str]]:
    """Adapter -> ids of signals, oldest first. A file that nobody can read is an empty one: what it costs is asking again."""
    try:
        found = json.loads((home.root / "feedback" / "peers.json").read_text())
        return {str(adapter): [str(id) for id in ids] for adapter, ids in found.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def write_asked(home: Home, asked: Mapping[str, Sequence[str]]) -> None:
    """Replace the file. Raises OSError."""
    path = home.root / "feedback" / "peers.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, json.dumps({adapter: list(ids)[-MOST:] for adapter, ids in asked.items()}))
