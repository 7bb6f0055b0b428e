"""Drops without the rows that are forgotten, and the removal of what else holds them: the chore of an order to forget.

A drop is never changed. What takes its place is made from its own bytes, line for line, and not sent through the gate: each
row that stays was judged already, keeps its group and split as they were recorded, and a check that looks at a file as a
whole (its size, its doubles) must not lose other people's rows because one row was forgotten.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import zstandard

from core.forgets import Forget, Part, Place, Rebuilt, Removed
from core.gate import ROWS_FOLDER as ROWS
from store.child import clock
from store.codec import read, to_plain
from store.drops import ORIGINAL, SIDECAR
from store.durable import replace_file
from store.forgets import ORDER, order_folder, read_rows, write_rows
from store.holdings import holder
from store.paths import Home
from store.rowprints import is_wanted, lines_of
from store.seals import SEAL, is_sealed, seal
from store.traces import KEPT, PACKED_ROWS, PENDING, Search, rows_of_drops
from store.trash import delete

INDEX, QUARANTINE = "index.jsonl", "quarantine.jsonl"
LEVEL = 3
REPORTS = ("report.json", "report.md")
FORGOTTEN = "report withdrawn: rows of this file were forgotten\n"


def chore_forget(home: Home, spec: Mapping[str, Any]) -> dict[str, Any]:
    """The chore "forget": search, rebuild or sweep for an order. `spec`: order, does. It may be repeated."""
    order = read(Forget, order_folder(home, str(spec["order"])) / ORDER)
    if order.drops and read_rows(home, order.id) is None:
        write_rows(home, order.id, sorted(set(rows_of_drops(home, order.drops))))
    search = Search.of(home, order)
    match spec["does"]:
        case "search":
            return {"traces": to_plain(search.run())}
        case "rebuild":
            return {"made": {part.drop: to_plain(rebuild(search, part)) for part in order.open_parts}}
        case _:
            signals = sorted(pending_with(search))  # first: what is swept is found by the rows
            return {"swept": [to_plain(one) for one in sweep(search)], "signals": signals}


def made_folder(home: Home, order: str, drop: str) -> Path:
    """Where the rows of a drop without those that are forgotten are made; emptied when a daemon starts."""
    return home.tmp / order / drop / ROWS


# ---------------------------------------------------------------- a drop without the rows


def rebuild(search: Search, part: Part) -> Rebuilt:
    """Make the sealed rows folder of what stays of a drop. Nothing of it stays: nothing is made."""
    before = search.home.root / "drops" / "accepted" / part.drop / ROWS
    after = made_folder(search.home, search.order.id, part.drop)
    shutil.rmtree(after.parent, ignore_errors=True)
    if part.drop in search.order.drops or not before.is_dir():
        return Rebuilt()
    after.mkdir(parents=True)
    places = _write_rows(before / PACKED_ROWS, after / PACKED_ROWS, search.rows)
    rows = _renumber(before / INDEX, after / INDEX, places)
    quarantined = _renumber(before / QUARANTINE, after / QUARANTINE, places) if (before / QUARANTINE).exists() else 0
    if not rows:
        shutil.rmtree(after.parent)
        return Rebuilt()
    for name in ("spec.json", "spec.py"):
        if (before / name).exists():
            shutil.copyfile(before / name, after / name)
    _write_report(before / "report.json", after, rows)
    seal(after)
    return Rebuilt(sha256=_sha256_of(after / PACKED_ROWS), rows=rows, quarantined=quarantined)


def _write_rows(source: Path, destination: Path, wanted: frozenset[str]) -> dict[int, int]:
    """Copy the lines that stay. Returns their old numbers -> their new ones."""
    places: dict[int, int] = {}
    with open(destination, "wb") as file, zstandard.ZstdCompressor(level=LEVEL).stream_writer(file, closefd=False) as packed:
        for number, line in enumerate(lines_of(source), 1):
            if not is_wanted(line, wanted):
                places[number] = len(places) + 1
                packed.write(line)
    return places


def _renumber(source: Path, destination: Path, places: Mapping[int, int]) -> int:
    """Copy the entries (JSON Lines with `line`) of lines that stay, under their new numbers: groups and splits are as they were."""
    kept = []
    for line in lines_of(source):
        entry = msgspec.json.decode(line) if line.strip() else {}
        if entry.get("line") in places:
            kept.append(msgspec.json.encode(entry | {"line": places[entry["line"]]}) + b"\n")
    destination.write_bytes(b"".join(kept))
    return len(kept)


def _write_report(before: Path, folder: Path, rows: int) -> None:
    """A report that says only what is true of every part of the file: what was found in single rows is left out."""
    try:
        told = json.loads(before.read_text())
    except (OSError, ValueError):
        told = {}
    kept = {key: told[key] for key in ("file", "schema", "level", "verdict") if key in told}
    report = kept | {"sha256": _sha256_of(folder / PACKED_ROWS), "rows": rows, "findings": [], "stats": {}, "seconds": 0.0, "rebuilt": "rows were forgotten"}
    (folder / "report.json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    (folder / "report.md").write_text(FORGOTTEN)


def _sha256_of(packed: Path) -> str:
    """SHA-256 of the unpacked bytes."""
    import hashlib

    digest = hashlib.sha256()
    for line in lines_of(packed):
        digest.update(line)
    return digest.hexdigest()


# ---------------------------------------------------------------- what goes


def sweep(search: Search) -> list[Removed]:
    """Remove everything under home that was made from the rows, and cut them out of what is not lorad's own. A repeat removes the rest."""
    home, removed = search.home, []
    for place in search.run().places:
        path = home.root / place.path
        if place.what == PENDING:
            pass  # by the daemon, before the order goes on
        elif place.cut:
            _cut(path, search.rows)
        elif place.what == "runs":
            _strip_runs(path)
        else:
            delete(path)
        removed.append(Removed(what=place.what, name=_name_of(place), at=clock()))
    shutil.rmtree(home.tmp / search.order.id, ignore_errors=True)
    return removed


def pending_with(search: Search) -> Iterator[str]:
    """Ids of the signals in the log that say the same as the rows."""
    for path in holder(search.home, "feedback").paths():
        for line in lines_of(path) if path.parent.name == "pending" else ():
            if is_wanted(line, search.rows) and (found := msgspec.json.decode(line).get("id")):
                yield str(found)


def _name_of(place: Place) -> str:
    return f"{place.path} ({place.rows} rows cut out)" if place.cut else place.path


def _strip_runs(runs: Path) -> None:
    """Leave of a job's runs what tells how they ended: no weights, scores, samples, answers, pages or logs."""
    for run in sorted(runs.iterdir()):
        for entry in sorted(run.iterdir()) if run.is_dir() else ():
            if entry.name not in KEPT:
                delete(entry)


def _cut(path: Path, wanted: frozenset[str]) -> None:
    """Take the rows out of the files of a refused drop, or out of one file. Its reports are withdrawn: they may quote them."""
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file() and not file.is_symlink())
    files.sort(key=lambda file: file.name not in REPORTS)  # the rows last: by them a repeat finds the folder again
    for file in files:
        if file.name in REPORTS:
            replace_file(file, _withdrawn(file) if file.suffix == ".json" else FORGOTTEN)
        elif file.suffix == ".zst" or file.name in ("signatures.npz", SEAL):
            file.unlink()  # beside the file as it was dropped
        elif any(is_wanted(line, wanted) for line in lines_of(file)):
            _rewrite(file, wanted)


def _rewrite(file: Path, wanted: frozenset[str]) -> None:
    aside = file.with_name(f".{file.name}.{os.getpid()}.part")
    with open(aside, "wb") as out:
        out.writelines(line for line in lines_of(file) if not is_wanted(line, wanted))
        out.flush()
        os.fsync(out.fileno())
    os.replace(aside, file)


def _withdrawn(report: Path) -> str:
    """The report of a refused drop without anything that quotes its rows."""
    try:
        told = json.loads(report.read_text())
    except (OSError, ValueError):
        told = {}
    kept = {key: told[key] for key in ("file", "schema", "level", "verdict", "rows") if key in told}
    findings = [{key: one[key] for key in ("id", "severity", "count") if key in one} for one in told.get("findings", ())]
    return json.dumps(kept | {"findings": findings, "withdrawn": FORGOTTEN.strip()}, indent=1) + "\n"


# ---------------------------------------------------------------- in place of the old one


def place_drop(home: Home, folder: Path, accepted: Path) -> None:
    """Rename a drop that is whole (claim, facts, rows) into the accepted ones. A repeat finds it there."""
    if not is_sealed(accepted / ROWS):
        os.rename(folder, accepted)


def take_sidecar(old: Path, folder: Path) -> None:
    """Copy the drop's sidecar without its notes, which are a person's words about the rows."""
    found = [path for path in (old / SIDECAR, *sorted((old / ORIGINAL).glob("*.job.json"))) if path.is_file()]
    if not found:
        return
    from core.jsonc import loads

    values = loads(found[0].read_text())
    if isinstance(values, dict):
        values.pop("notes", None)
        (folder / SIDECAR).write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n")
