"""The chore "batch": pending signals become rows, and the rows a drop, exactly one whatever dies.

In `feedback/<persona>/<domain>/queued/`, for each schema of the rows:

    <batch>.jsonl        the signals, also those that make no row
    <batch>.rows.jsonl   the data file, until it is renamed into the inbox as `feedback-<batch>.jsonl`
    <batch>.json         the Batch: which signal is in which line

Everything of all schemas is durable before the first rename, and each data file's sidecar lies in the inbox before it. So a
child that finds a batch whose data file has gone knows that a drop was made of it and makes the missing ones; one that
finds none gone begins anew. The inbox is on the file system of home.
"""

import json
import os
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from core.config import Config, resolve
from core.names import DEFAULT_ADAPTER
from core.sections import ValidationConfig
from core.signals import MOST_OF_A_BATCH, Batch, Signal, SignalKind, Standing, Wanted
from feedback.rows import CHAT, CORRECTION, PREFERENCE, UNPAIRED, Made, makes_row, rows_of
from store.codec import dump, read, read_if_whole
from store.config_file import read_layer
from store.drops import sidecar_name
from store.durable import replace_file, sync_dir
from store.feedback import read_shelf
from store.paths import Home

WORDS = {CHAT: "sft", CORRECTION: "sft", PREFERENCE: "pairs", UNPAIRED: "judged"}  # by schema, how the batch's id ends
LEVEL = "deep"  # unless the config names another: these are words of strangers, and nothing less finds a secret


def chore_batch(home: Home, spec: Mapping[str, Any]) -> dict[str, Any]:
    """Make the drops of a batch that was asked for. `spec`: adapter, id. It may be repeated.

    Returns the ids of its batches; none where no signal makes a row. Raises OSError, LoradError.
    """
    folder = queued(home, str(spec["adapter"]))
    wanted = read(Wanted, folder / f"{spec['id']}.wanted.json")
    batches = begun(folder, wanted.id)
    if all(not batch.rows or staged(folder, batch.id).exists() for batch in batches):  # nothing was dropped yet
        batches = _made_anew(home, wanted)
    for batch in batches:
        _drop(home, folder, batch)
    rows = sum(len(set(batch.rows.values())) for batch in batches)
    return {"batches": [batch.id for batch in batches], "rows": rows, "left_out": sum(len(batch.left_out) for batch in batches)}


def queued(home: Home, adapter: str) -> Path:
    """Where the batches of an adapter lie."""
    return home.root / "feedback" / adapter / "queued"


def staged(folder: Path, batch: str) -> Path:
    """The data file of a batch while no drop was made of it."""
    return folder / f"{batch}.rows.jsonl"


def begun(folder: Path, wanted: str) -> list[Batch]:
    """The batches that were made for this wish, by id."""
    found = (read_if_whole(Batch, folder / f"{wanted}-{word}.json") for word in dict.fromkeys(WORDS.values()))
    return [batch for batch in found if batch is not None]


# ---------------------------------------------------------------- signals to files


def _made_anew(home: Home, wanted: Wanted) -> list[Batch]:
    folder = queued(home, wanted.adapter)
    for word in dict.fromkeys(WORDS.values()):
        for name in (f"{wanted.id}-{word}.json", f"{wanted.id}-{word}.jsonl", staged(folder, f"{wanted.id}-{word}").name):
            (folder / name).unlink(missing_ok=True)
    settings = config_in_force(home).feedback
    made = rows_of(islice((one for one in _waiting(home, wanted.adapter) if makes_row(one, settings)), MOST_OF_A_BATCH), settings)
    batches = [_written(folder, wanted, one) for one in made]
    sync_dir(folder)
    return batches


def _waiting(home: Home, adapter: str) -> Iterator[Signal]:
    """What may make rows: what is pending, and bad answers in the review that are in no batch yet."""
    shelf = read_shelf(home)
    yield from shelf.signals(adapter, Standing.PENDING)
    used = {id for batch in batches_of(home, adapter) if not batch.refused for id in batch.rows}
    for signal in shelf.signals(adapter, Standing.REVIEW):
        if signal.kind is SignalKind.MISTAKE and not signal.is_proposal and signal.id not in used:
            yield signal


def batches_of(home: Home, adapter: str) -> Iterator[Batch]:
    """Every batch of an adapter, oldest first."""
    for path in sorted(queued(home, adapter).glob("*.json")):
        if not path.name.endswith(".wanted.json") and (found := read_if_whole(Batch, path)) is not None:
            yield found


def config_in_force(home: Home) -> Config:
    """The config that the daemon goes by. Raises ConfigError, OSError."""
    return resolve({"config.json": read_layer(home.config_in_force)}).config


def _written(folder: Path, wanted: Wanted, made: Made) -> Batch:
    """Write what belongs to one schema; the Batch last."""
    id = f"{wanted.id}-{WORDS[made.schema_id]}"
    batch = Batch(
        id=id,
        adapter=wanted.adapter,
        trigger=wanted.trigger,
        made_at=wanted.at,
        file=f"feedback-{id}.jsonl" if made.rows else "",
        rows=made.lines,
        schema_id=made.schema_id,
        left_out=made.left_out,
    )
    replace_file(folder / f"{id}.jsonl", b"".join(msgspec.json.encode(signal) + b"\n" for signal in made.signals), mode=0o600)
    if made.rows:
        replace_file(staged(folder, id), b"".join(line + b"\n" for line in made.rows))
    replace_file(folder / f"{id}.json", dump(batch, indent=1) + "\n")
    return batch


# ---------------------------------------------------------------- files to a drop


def _drop(home: Home, folder: Path, batch: Batch) -> None:
    """Put the rows into the inbox, unless that was done."""
    source = staged(folder, batch.id)
    if not source.exists():
        return
    inbox = home.inbox if batch.adapter == DEFAULT_ADAPTER else home.inbox / batch.adapter
    inbox.mkdir(parents=True, exist_ok=True)
    replace_file(inbox / sidecar_name(batch.file), json.dumps(_sidecar(config_in_force(home), batch), indent=1) + "\n")
    os.rename(source, inbox / batch.file)
    sync_dir(inbox)
    sync_dir(folder)


def _sidecar(config: Config, batch: Batch) -> dict[str, Any]:
    lineage = {"made_by": "feedback", "batch": batch.id, "trigger": batch.trigger, "signals": list(batch.rows)}
    sidecar: dict[str, Any] = {"schema_id": batch.schema_id, "lineage": lineage}
    is_said = batch.adapter in config.validation.levels or config.validation.level != ValidationConfig().level
    return sidecar if is_said else {**sidecar, "level": LEVEL}
