"""What the gate says of the drops that were made of signals: which drop a batch became, what came of it, which signals are to blame."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from core.gate import QUARANTINE
from core.names import DEFAULT_ADAPTER
from core.records import Accepted, Claim
from core.signals import Batch
from daemon.index import Index
from store.codec import read_if_whole
from store.drops import CLAIM, read_report, rows_folder
from store.feedback import Fault
from store.rowprints import lines_of

WHOLE = frozenset({"DUPLICATE", "FORGOTTEN"})  # said of the file as a whole: its rows are not to come again


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What came of a batch's drop. `refused`: the code of its worst finding; empty: it was accepted for good."""

    drop: str
    refused: str
    faults: Mapping[str, Fault]  # by signal: those whose rows were named
    message: str = ""


def verdict_of(index: Index, batch: Batch, drop: str) -> Verdict | None:
    """The gate's last word on the drop; None while it is on its way, or its deep check is open."""
    known = index.drops.get(drop)
    if known is not None:
        facts = known.facts
        return Verdict(drop=drop, refused="", faults=_put_aside(index, batch, drop)) if isinstance(facts, Accepted) and facts.is_proven else None
    report = read_report(index.home.rejected / drop)
    return None if report is None else _refused(batch, drop, report)


def drop_of(index: Index, batch: Batch, *, thorough: bool = False) -> str:
    """The drop that the batch's file became; empty: none yet. Newest first, up to the time of the batch unless `thorough`."""
    since = "" if thorough else f"drop-{batch.made_at:%Y%m%d-%H%M%S}"
    for drop in sorted(index.shelf.jobless, reverse=True):
        if _is_of(index.drops[drop].claim, batch):
            return drop
    for drop in reversed(index.shelf.accepted_of(batch.adapter)):
        if drop < since:
            break
        if _is_of(index.drops[drop].claim, batch):
            return drop
    return next(_rejected(index, batch, since), "")


def is_coming(index: Index, batch: Batch, folder: Path) -> bool:
    """Whether the batch's file has yet to be taken from the inbox, or to be put there."""
    inbox = index.home.inbox if batch.adapter == DEFAULT_ADAPTER else index.home.inbox / batch.adapter
    return (folder / f"{batch.id}.rows.jsonl").exists() or (inbox / batch.file).exists()


def _is_of(claim: Claim, batch: Batch) -> bool:
    return claim.file == batch.file and claim.adapter == batch.adapter


def _rejected(index: Index, batch: Batch, since: str) -> Iterator[str]:
    try:
        names = sorted((name for name in os.listdir(index.home.rejected) if name >= since), reverse=True)
    except FileNotFoundError:
        return
    for name in names:
        claim = read_if_whole(Claim, index.home.rejected / name / CLAIM)
        if claim is not None and _is_of(claim, batch):
            yield name


# ---------------------------------------------------------------- who is to blame


def _put_aside(index: Index, batch: Batch, drop: str) -> dict[str, Fault]:
    """The signals of the rows without which the drop was accepted."""
    aside: dict[int, str] = {}
    for line in lines_of(rows_folder(index.home, drop) / QUARANTINE):
        try:
            told = msgspec.json.decode(line)
            aside[int(told["line"])] = ", ".join(map(str, told["ids"]))
        except (msgspec.MsgspecError, KeyError, TypeError, ValueError):
            continue
    if not aside:
        return {}
    messages = {str(finding.get("id")): str(finding.get("message", "")) for finding in _findings(read_report(rows_folder(index.home, drop)) or {})}
    return {
        id: Fault(code=aside[line], message=messages.get(aside[line].split(", ")[0], "the gate put its row aside").removeprefix("put aside: "))
        for id, line in batch.rows.items()
        if line in aside
    }


def _refused(batch: Batch, drop: str, report: Mapping[str, Any]) -> Verdict:
    errors = [finding for finding in _findings(report) if finding.get("severity") == "error"]
    first: Mapping[str, Any] = errors[0] if errors else {}
    code, message = str(first.get("id", "REFUSED")), str(first.get("message", ""))
    if code in WHOLE:
        return Verdict(drop=drop, refused=code, faults={id: Fault(code=code, message=message, share=0.0) for id in batch.rows}, message=message)
    signals: dict[int, list[str]] = {}
    for id, line in batch.rows.items():
        signals.setdefault(line, []).append(id)
    faults: dict[str, Fault] = {}
    for finding in errors:
        named = [id for line in finding.get("lines", ()) for id in signals.get(int(line), ())]
        for id in named:
            share = max(1.0, int(finding.get("count", 1)) / len(named))  # a report names the first few of many
            if id not in faults or share > faults[id].share:
                faults[id] = Fault(code=str(finding["id"]), message=str(finding.get("message", "")), share=share)
    return Verdict(drop=drop, refused=code, faults=faults, message=message)


def _findings(report: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    found = report.get("findings", ())
    return [finding for finding in found if isinstance(finding, Mapping)] if isinstance(found, list) else []
