"""Where a release comes from: its verdict, the run that made it, the config of that run, the files that it learnt from.

Every part is read from the record that made it, so it can be missing by itself: what is not there is a `Gap` with the
reason, and the other parts are told all the same. Reads only. Of rows it holds hashes and numbers, never text.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.errors import IntegrityError, LoradError
from core.gate import ROWS_FOLDER
from core.names import DEFAULT_ADAPTER
from core.records import Accepted, Drop, Ended, Job, Kind
from core.tasks import PackTask, RowsOf, TrainTask
from store.codec import read_if_whole
from store.drops import drop_folder, read_drops
from store.forgets import tombs
from store.jobs import find_folder, read_all, read_config, read_job
from store.journal import entries
from store.paths import Home
from store.runs import SPEC, read_exit, read_settings
from store.vault import read_marks
from store.whereabouts import Known, Span, spans_of

VERDICT = "verdict.json"
DEFAULT = "default"  # origin of a value that nobody set


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """A part that cannot be told, and why."""

    part: str  # release, verdict, job, run, config, files, rows
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictSeen:
    """The verdict that let the release out. `approved_by`: the person who overruled a hold; empty: lorad promoted it."""

    word: str
    sentence: str
    legs: tuple[Mapping[str, Any], ...]  # name, result, reason
    sha256: str
    intact: bool  # whether it is the file that the manifest names
    approved_by: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSeen:
    """The training that made the checkpoint."""

    job: str
    run: str
    state: str
    made_at: str
    ended_at: str = ""
    checkpoint: str = ""  # relative to the run folder
    steps: int = 0
    rows: int = 0
    tokens: int = 0
    seconds: float = 0.0
    device: str = ""
    start: str = ""  # why it started where it did
    folder: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSeen:
    """A drop that the release learnt from. Where it is not here any more, all but `sha256` and `gone` is empty."""

    sha256: str  # of its bytes
    drop: str = ""
    file: str = ""
    source: str = ""  # where in the inbox it was put: the folder says whose it is
    by: str = ""  # default: nobody named a persona; else the persona whose folder it came through
    claimed_at: str = ""
    schema_id: str = ""
    rows: int = 0
    quarantined: int = 0
    is_own: bool = False  # the drop that asked for this training
    set_aside: str = ""
    job: str = ""
    folder: str = ""
    gone: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """All that is known of one release."""

    release: str
    adapter: str
    version: int
    label: str = ""
    note: str = ""
    created_at: str = ""
    parent: str = ""
    base_sha256: str = ""
    backend: str = ""
    folder: str = ""
    live: tuple[Span, ...] = ()
    verdict: VerdictSeen | None = None
    run: RunSeen | None = None
    config: Mapping[str, Any] = field(default_factory=dict)  # dotted key -> {value, origin}, of what somebody set or the data settled
    files: tuple[FileSeen, ...] = ()
    gaps: tuple[Gap, ...] = ()

    def sources(self) -> tuple[RowsOf, ...]:
        """The rows that it learnt from, as far as they are here, oldest drop first."""
        here = [one for one in self.files if one.folder]
        return tuple(RowsOf(drop=one.drop, sha256=one.sha256, folder=one.folder, schema_id=one.schema_id) for one in here)


def lineage_of(home: Home, known: Known) -> Lineage:
    """Everything that this home can tell of a release."""
    gaps: list[Gap] = [Gap(part="release", why=known.missing)] if known.missing else []
    manifest = known.here.manifest if known.here else None
    job = _job(home, known, gaps)
    files = tuple(_files(home, known.adapter, manifest.drops if manifest else None, job))
    gaps += [Gap(part="files", why=f"{one.sha256[:12]}: {one.gone}") for one in files if one.gone]
    if not files:
        gaps.append(Gap(part="files", why="neither a manifest nor a job is left that names them"))
    mark = read_marks(home, known.adapter).of(known.version)
    made = Lineage(
        release=known.id,
        adapter=known.adapter,
        version=known.version,
        label=mark.label,
        note=mark.note,
        created_at=manifest.created_at.isoformat() if manifest else "",
        parent=(manifest.parent or "") if manifest else "",
        base_sha256=manifest.base_sha256 if manifest else job.card.base_sha256 if job else "",
        backend=manifest.backend if manifest else job.card.backend if job else "",
        folder=str(known.here.folder) if known.here else "",
        live=spans_of(home, known),
        verdict=_verdict(home, known, job, gaps),
        run=_run(home, job, gaps) if job else None,
        config=_config(home, job, gaps) if job else {},
        files=files,
        gaps=tuple(gaps),
    )
    return made


# ---------------------------------------------------------------- job and verdict


def _job(home: Home, known: Known, gaps: list[Gap]) -> Job | None:
    """The job that made the release: by the manifest's word, else the one that ended with it."""
    if known.here is None:
        found = next((job for job in _all_jobs(home) if isinstance(job.facts, Ended) and job.facts.release == known.id), None)
        if found is None:
            gaps.append(Gap(part="job", why="no job of this home ended with this release"))
        return found
    name = known.here.manifest.job
    if known.here.manifest.origin:
        gaps.append(Gap(part="job", why=f"the release was {known.here.manifest.origin}: no job of this home trained it"))
        return None
    place = find_folder(home, name) if name and (home.root / "jobs").is_dir() else None
    if place is None:
        gaps.append(Gap(part="job", why=f"job {name or '(none)'} is not in this home: the release was made in another home"))
        return None
    try:
        return read_job(place[1], place[0])
    except IntegrityError as error:
        gaps.append(Gap(part="job", why=f"{error.what}; {error.hint}"))
        return None


def _all_jobs(home: Home) -> Iterable[Job]:
    return read_all(home)[0] if (home.root / "jobs").is_dir() else ()


def _verdict(home: Home, known: Known, job: Job | None, gaps: list[Gap]) -> VerdictSeen | None:
    path = _verdict_path(home, known, job)
    if known.here is not None and known.here.manifest.origin:
        gaps.append(Gap(part="verdict", why=f"the release was {known.here.manifest.origin}: nothing here compared it with anything"))
        return None
    if path is None:
        gaps.append(Gap(part="verdict", why="verdict.json went with the release, and with the run folders of its job"))
        return None
    try:
        raw = path.read_bytes()
        told = json.loads(raw)
        legs = tuple({key: leg.get(key, "") for key in ("name", "result", "reason")} for leg in told.get("legs", ()))
        digest = hashlib.sha256(raw).hexdigest()
        by, why = _approval(home, job.id) if job else ("", "")
        wanted = known.here.manifest.verdict_sha256 if known.here else digest
        if digest != wanted:
            gaps.append(Gap(part="verdict", why=f"{path} has SHA-256 {digest[:12]}, the manifest says {wanted[:12]}: it was changed since"))
        return VerdictSeen(
            word=str(told["word"]),
            sentence=str(told.get("sentence", "")),
            legs=legs,
            sha256=digest,
            intact=digest == wanted,
            approved_by=by,
            reason=why,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        gaps.append(Gap(part="verdict", why=f"{path} cannot be read: {type(error).__name__}"))
        return None


def _verdict_path(home: Home, known: Known, job: Job | None) -> Path | None:
    """verdict.json of the release, else that of the job's run."""
    if known.here is not None:
        return known.here.folder / VERDICT
    run = job.facts.verdict if job and isinstance(job.facts, Ended) else None
    path = home.runs(job.id) / run / VERDICT if job and run else None
    return path if path and path.exists() else None


def _approval(home: Home, job: str) -> tuple[str, str]:
    """Who approved a held job and why, by the journal; empty where nobody had to."""
    found = ("", "")
    for entry in entries(home.journal):
        if entry["action"] == "command.approve" and entry.get("ok") and job in (entry.get("job"), *str(entry.get("message", "")).split()):
            found = (str(entry.get("actor") or "a person"), str(entry.get("reason", "")))
    return found


# ---------------------------------------------------------------- run and config


def _run(home: Home, job: Job, gaps: list[Gap]) -> RunSeen | None:
    runs = home.runs(job.id)
    name, checkpoint = _training(runs)
    if name is None:
        gaps.append(Gap(part="run", why=f"the run folders of {job.id} are gone: retention lets the runs of old jobs go"))
        return None
    folder = runs / name
    note, spec = read_exit(folder), read_if_whole(TrainTask, folder / SPEC)
    return RunSeen(
        job=job.id,
        run=name,
        state=job.state.value,
        made_at=job.card.created_at.isoformat(),
        ended_at=note.ended_at.isoformat() if note else "",
        checkpoint=checkpoint,
        steps=note.steps if note else 0,
        rows=note.rows if note else 0,
        tokens=note.tokens if note else 0,
        seconds=note.seconds if note else 0.0,
        device=note.device if note else "",
        start=spec.start_reason if spec else "",
        folder=str(folder),
    )


def _training(runs: Path) -> tuple[str | None, str]:
    """(train run, checkpoint in it) that was packed: by the spec of the newest pack, else the newest train run."""
    for pack in sorted(runs.glob(f"*-{Kind.PACK.value}"), reverse=True):
        task = read_if_whole(PackTask, pack / SPEC)
        if task is not None:
            parts = Path(task.checkpoint).parts
            name, _, *inside = parts[-3:]
            return (name, "/".join(parts[-2:])) if inside and (runs / name).is_dir() else (None, "")
    trains = sorted(folder.name for folder in runs.glob(f"*-{Kind.TRAIN.value}"))
    return (trains[-1], "") if trains else (None, "")


def _config(home: Home, job: Job, gaps: list[Gap]) -> dict[str, Any]:
    """What somebody set in the frozen config, and what the data settled of the rest."""
    try:
        frozen = read_config(home, job)
        values, origins = frozen["values"], frozen["origins"]
    except (OSError, ValueError, KeyError) as error:
        gaps.append(Gap(part="config", why=f"the config of {job.id} cannot be read: {type(error).__name__}"))
        return {}
    told = {key: {"value": _value(values, key), "origin": str(origin)} for key, origin in origins.items() if origin != DEFAULT}
    name, _ = _training(home.runs(job.id))
    settled = read_settings(home.runs(job.id) / name).get("values", {}) if name else {}
    return told | {key: {"value": one["value"], "origin": f"settled: {one['why']}"} for key, one in settled.items() if one.get("origin") == "settled"}


def _value(values: Mapping[str, Any], dotted: str) -> Any:
    found: Any = values
    for part in dotted.split("."):
        if not isinstance(found, Mapping) or part not in found:
            return None
        found = found[part]
    return found


# ---------------------------------------------------------------- files


def _files(home: Home, adapter: str, wanted: Sequence[str] | None, job: Job | None) -> Iterable[FileSeen]:
    """The drops that were learnt from, oldest first. `wanted`: their hashes by the manifest; None: what the job's card names."""
    drops = [drop for drop in _accepted(home) if drop.claim.adapter == adapter]
    own = [drop for drop in drops if job is None or job.card.trains_on(drop.id, drop.claim.adapter)]
    if wanted is None:
        named = job.card.drops if job else ()
        wanted = [ref.sha256 for ref in named] or ([drop.facts.sha256 for drop in own if isinstance(drop.facts, Accepted)] if job else [])
    by_hash: dict[str, list[Drop]] = {}
    for drop in {drop.id: drop for drop in (*own, *drops)}.values():
        assert isinstance(drop.facts, Accepted)
        by_hash.setdefault(drop.facts.sha256, []).append(drop)
    for sha256 in wanted:
        found = by_hash.get(sha256)
        yield _file(home, found.pop(0), job) if found else FileSeen(sha256=sha256, gone=_why_gone(home, sha256, job))


def _accepted(home: Home) -> Iterable[Drop]:
    try:
        return sorted((drop for drop in read_drops(home) if isinstance(drop.facts, Accepted)), key=lambda drop: drop.id)
    except (FileNotFoundError, LoradError):
        return ()


def _file(home: Home, drop: Drop, job: Job | None) -> FileSeen:
    claim, facts = drop.claim, drop.facts
    assert isinstance(facts, Accepted)
    folder = drop_folder(home, drop) / ROWS_FOLDER
    return FileSeen(
        sha256=facts.sha256,
        drop=drop.id,
        file=claim.file,
        source=f"inbox/{claim.source}",
        by="" if claim.adapter == DEFAULT_ADAPTER else claim.adapter.split("/")[0],
        claimed_at=claim.claimed_at.isoformat(),
        schema_id=facts.schema_id,
        rows=facts.rows,
        quarantined=facts.quarantined,
        is_own=job is not None and drop.id == job.card.drop,
        set_aside=facts.set_aside or "",
        job=facts.job,
        folder=str(folder) if folder.is_dir() else "",
        gone="" if folder.is_dir() else "its rows are not in drops/accepted any more",
    )


def _why_gone(home: Home, sha256: str, job: Job | None) -> str:
    stone = next((stone for stone in tombs(home) if stone.sha256 == sha256), None)
    if stone is not None:
        rest = f"; what was not to be forgotten of it is drop {stone.replaced_by}" if stone.replaced_by else ""
        return f"it was forgotten on {stone.at:%Y-%m-%d} (order {stone.order}){rest}"
    if job is not None and job.card.sha256 == sha256:
        return f"{job.card.file} is not in drops/accepted any more"
    return "no accepted drop of this home has these bytes: it was deleted, or never here"
