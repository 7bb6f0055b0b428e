"""The chore "signals": files of another system become signals, one a line in the file that the daemon stores them from.

Names of users become keyed hashes here. What no importer understands is counted with the reason and left out.
"""

import hashlib
import hmac
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import msgspec

from core.errors import UsageError
from core.names import parse_adapter
from core.signals import Signal, SignalKind, signal_id
from feedback.importers import langfuse, openai, openwebui, plain
from feedback.importers.files import records_of
from feedback.importers.port import Importer, Judged, Record, Wish
from store.durable import replace_file
from store.keys import sign
from store.paths import Home

IMPORTERS: dict[str, Importer] = {one.NAME: one for one in cast(Sequence[Importer], (plain, openwebui, langfuse, openai))}
LOOKED_AT = 50  # records by which the format is told
HINT = f"say --as with one of {', '.join(IMPORTERS)}; see docs/howto/feedback.md"
AGAIN = "says what an earlier one says"


def chore_signals(home: Home, spec: Mapping[str, Any]) -> dict[str, Any]:
    """Read files and write their signals to `out`. `spec`: files, out, adapter, format and score (may be empty), consent, weight, at.

    Returns {format, signals, left_out {why: how many}}. It may be repeated. Raises UsageError IMPORT_FORMAT, IMPORT_SIZE,
    FILE_MISSING; StateError without the home's keys; OSError.
    """
    records = records_of([Path(str(file)) for file in spec["files"]])
    importer = importer_of(records, str(spec.get("format", "")))
    persona, _, domain = parse_adapter(str(spec["adapter"])).partition("/")
    blank = Signal(
        id="",
        kind=SignalKind.IMPORT,
        persona=persona,
        domain=domain,
        input=(),
        source=importer.NAME,
        weight=float(spec["weight"]),
        consent=bool(spec["consent"]),
        at=datetime.fromisoformat(str(spec["at"])),
    )
    key = hashlib.sha256(sign(home.keys, b"lorad users of imports").encode()).digest()
    found, left_out = dict[str, Signal](), Counter[str]()
    for one in importer.judged(records, Wish(score=str(spec.get("score", "")))):
        signal = one if isinstance(one, str) else _signal(one, blank, key)
        if isinstance(signal, str) or signal.id in found:
            left_out[signal if isinstance(signal, str) else AGAIN] += 1
        else:
            found[signal.id] = signal
    replace_file(Path(str(spec["out"])), b"".join(msgspec.json.encode(signal) + b"\n" for signal in found.values()), mode=0o600)
    return {"format": importer.NAME, "signals": len(found), "left_out": dict(left_out)}


def importer_of(records: Sequence[Record], name: str) -> Importer:
    """The importer of this name; without one, that which knows most of the first records. Raises UsageError IMPORT_FORMAT."""
    if name:
        if name not in IMPORTERS:
            raise UsageError(f"there is no format {name!r}", hint=HINT, code="IMPORT_FORMAT")
        return IMPORTERS[name]
    known = {each: sum(map(importer.matches, records[:LOOKED_AT])) for each, importer in IMPORTERS.items()}
    best = max(known, key=lambda each: known[each])
    if not known[best]:
        raise UsageError("the records are of no format that lorad knows", hint=HINT, code="IMPORT_FORMAT")
    return IMPORTERS[best]


def _signal(one: Judged, blank: Signal, key: bytes) -> Signal:
    said = replace(
        blank,
        kind=one.kind,
        input=tuple(one.asked),
        wrong_output=one.answer,
        correct_output=one.right,
        context=one.context,
        at=one.at or blank.at,
        response=one.reference,
        user=hmac.new(key, one.user.encode(), hashlib.sha256).hexdigest()[:32] if one.user else "",
        is_proposal=one.is_proposal,
        metadata=one.metadata,
    )
    return replace(said, id=signal_id(said))
