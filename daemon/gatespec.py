"""Writes what the gate is to do: from the drop, its resolved config, and what was accepted before it."""

from core.facts import DropSeen
from core.gate import GateSpec
from core.names import SENTENCE_MODEL
from core.records import Drop, DropState
from daemon.index import Index
from daemon.known import KnownFiles
from store.bases import base_folder, length_of, models_dir
from store.drops import ORIGINAL, accepted_root, drop_folder, rows_folder
from store.seals import is_sealed
from validation.profiles import resolve_profile


def make_gate_spec(index: Index, seen: DropSeen, level: str, known: KnownFiles, waiting: tuple[str, ...] = ()) -> GateSpec:
    """The spec of a drop on its way to the gate; of an accepted one, its own sealed rows are checked again.

    Args: waiting: drops that the gate child was handed before it, in order.
    """
    drop, config = seen.drop, seen.config
    assert config is not None
    limits = config.validation
    profile = resolve_profile(limits.profile, limits.profiles)
    is_accepted = drop.state is DropState.ACCEPTED
    embedder = models_dir(index.config) / SENTENCE_MODEL
    known_file, known_bytes = known.told(drop.claim.adapter)
    return GateSpec(
        drop=drop.id,
        adapter=drop.claim.adapter,
        file=str(drop_folder(index.home, drop) / ORIGINAL),
        name=drop.claim.file,
        accepted=str(rows_folder(index.home, drop.id)) if is_accepted else "",
        schema_id=config.schema_id,
        specs=config.specs,
        columns=config.columns,
        level=level,
        max_row_bytes=limits.max_row_bytes,
        max_file_bytes=limits.max_file_bytes,
        base=_base(index),
        max_length=length_of(config) if index.backend.name != "stub" else config.max_length,
        max_overlong_share=config.training.max_overlong_share,
        references=limits.references,
        known_file=known_file,
        known_bytes=known_bytes,
        known_root=str(accepted_root(index.home)),
        after=tuple(other for other in waiting if index.drops[other].claim.adapter == drop.claim.adapter),
        embedder=str(embedder) if is_sealed(embedder) else "",
        profile=profile.name,
        limits=profile.limits,
        off=tuple(sorted(profile.off)),
        quarantine_share=limits.quarantine_share,
        processes=limits.processes,
        memory_mb=limits.memory_mb,
        cpu_s=limits.cpu_s,
    )


def warming_spec(index: Index) -> GateSpec:
    """A spec that has the gate load what the first drop will need; the file is the gatekeeper's own."""
    limits = index.config.validation
    return GateSpec(
        drop="warming",
        adapter="",
        file="",
        schema_id="chat_sft_v1",
        level="standard",
        max_row_bytes=limits.max_row_bytes,
        max_file_bytes=limits.max_file_bytes,
        base=_base(index),
        max_length=index.config.max_length,
        memory_mb=limits.memory_mb,
        cpu_s=limits.cpu_s,
    )


def _base(index: Index) -> str:
    return "" if index.backend.name == "stub" else str(base_folder(index.config))


def accepted_of(index: Index, adapter: str) -> list[Drop]:
    """The adapter's accepted drops in claim order, without those that are about to leave."""
    return [index.drops[drop] for drop in index.shelf.accepted_of(adapter)]
