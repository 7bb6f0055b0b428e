"""Tells the gate children what was accepted earlier: one file an adapter, to which a line is added for each drop.

A spec names the file and how many of its bytes count. What is in it never changes; where a drop has left, or one was
accepted after a later one, another file is begun, and the old one stays for those who may still read it. The files are
made from the index, so that a crash loses nothing.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from core.records import Accepted
from daemon.index import Index


@dataclass(slots=True)
class _File:
    """As far as a file tells: `num_drops` of the adapter's list, of which `last` is the newest."""

    path: Path
    num_bytes: int = 0
    num_drops: int = 0
    last: str = ""


class KnownFiles:
    """The files of all adapters that were asked about."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._files: dict[str, _File] = {}
        self._count = 0
        shutil.rmtree(index.home.known, ignore_errors=True)  # an earlier daemon's

    def told(self, adapter: str) -> tuple[str, int]:
        """(path, bytes) that tell of the adapter's accepted drops."""
        ids = self._index.shelf.accepted_of(adapter)
        file = self._files.get(adapter)
        if file is None or file.num_drops > len(ids) or (file.num_drops and ids[file.num_drops - 1] != file.last):
            file = self._files[adapter] = self._begin(adapter)
        if file.num_drops < len(ids):
            self._add(file, ids[file.num_drops :])
        return str(file.path), file.num_bytes

    def _begin(self, adapter: str) -> _File:
        self._count += 1
        path = self._index.home.known / f"{self._count}-{adapter.replace('/', '-')}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
        return _File(path)

    def _add(self, file: _File, ids: Sequence[str]) -> None:
        lines = []
        for id in ids:
            facts = self._index.drops[id].facts
            assert isinstance(facts, Accepted)
            lines.append(msgspec.json.encode((id, facts.schema_id, facts.sha256)) + b"\n")
        added = b"".join(lines)
        with open(file.path, "ab") as stream:
            stream.write(added)
        file.num_bytes += len(added)
        file.num_drops += len(ids)
        file.last = ids[-1]
