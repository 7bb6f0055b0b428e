"""What `lorad compare` compares: models by the words that people have for them, and the rows they are compared on."""

import re
from dataclasses import dataclass
from pathlib import Path

from core.errors import UsageError
from core.records import Accepted
from core.tasks import RankTask, RowsOf, ScoreModel
from store.paths import Home

BASE = "base"
PEFT_CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One model of a comparison."""

    word: str
    """What the person called it."""
    name: str
    """What it is, for people."""
    model: ScoreModel
    base_sha256: str = ""
    """Empty: not known, or the base itself."""
    adapter: str = ""
    drops: tuple[str, ...] = ()
    """SHA-256 of the drops that it has learnt from, as far as they are known."""
    job: str = ""
    judged: RankTask | None = None
    """Of a job: the task of its verdict, with its rows, scores and answers."""


def side_of(home: Home, word: str) -> Side:
    """The model of a word: base, a job (its best candidate), a folder in PEFT's layout, else a release (`store.vault.resolve`). Raises UsageError."""
    if word == BASE:
        return Side(word=word, name="the base model", model=ScoreModel(id=BASE, adapter=None))
    if word.startswith("job-"):
        return _of_job(home, word)
    if (Path(word) / PEFT_CONFIG).is_file():
        return _of_folder(word)
    from store.vault import resolve

    release = resolve(home, word)
    return Side(
        word=word,
        name=f"{release.adapter}@v{release.version} ({release.id[:12]})",
        model=ScoreModel(id=release.id, adapter=str(release.folder)),
        base_sha256=release.manifest.base_sha256,
        adapter=release.adapter,
        drops=tuple(release.manifest.drops),
    )


def _of_folder(word: str) -> Side:
    from store.seals import hash_file

    folder = Path(word).absolute()
    if not (folder / WEIGHTS).is_file():
        raise UsageError(f"{word!r} holds no {WEIGHTS}", hint="name a folder in PEFT's layout", code="ADAPTER_MISSING")
    name = re.sub(r"[^A-Za-z0-9._-]", "-", folder.name)[:40]
    return Side(word=word, name=f"the adapter in {word}", model=ScoreModel(id=f"{name}-{hash_file(folder / WEIGHTS)[:12]}", adapter=str(folder)))


def _of_job(home: Home, word: str) -> Side:
    from cli.jobs import evidence
    from store.codec import read_if_whole
    from store.jobs import find_folder, read_job
    from store.runs import SPEC, candidates_of

    found = find_folder(home, word) if (home.root / "jobs").is_dir() else None
    if found is None:
        raise UsageError(f"no job {word!r} in {str(home.root)!r}", hint="`lorad jobs list` names them", code="JOB_UNKNOWN")
    job = read_job(found[1], found[0])
    _, verdict = evidence(home, job)
    judged = read_if_whole(RankTask, verdict.parent / SPEC) if verdict else None
    candidates = candidates_of(home, word)
    best = next((one for one in candidates if judged is not None and one.id == judged.best), candidates[-1] if candidates and judged is None else None)
    if best is None:
        raise UsageError(f"job {word} has no checkpoint on this box", hint=f"`lorad jobs show {word}` says how far it is", code="NO_CHECKPOINT")
    return Side(
        word=word,
        name=f"{best.id} of {word}",
        model=ScoreModel(id=best.id, adapter=str(home.runs(word) / best.path)),
        base_sha256=job.card.base_sha256,
        adapter=job.card.adapter,
        drops=tuple(row.sha256 for row in judged.rows) if judged else (job.card.sha256,),
        job=word,
        judged=judged,
    )


def held_out_rows(home: Home, sides: tuple[Side, Side]) -> tuple[RowsOf, ...]:
    """The drops whose gate split both are compared on: those of the judged job, else all accepted ones of the adapter. Raises UsageError."""
    for side in sides:
        if side.judged is not None:
            return side.judged.rows
    adapters = {side.adapter for side in sides if side.adapter}
    if len(adapters) != 1:
        what = f"{sides[0].word} and {sides[1].word} are of {len(adapters) or 'no'} adapters of this home, so no held-out rows are those of both"
        raise UsageError(what, hint="name rows: --on FILE, or a suite: --on suite:NAME", code="ROWS_UNNAMED")
    (adapter,) = adapters
    rows = accepted_rows(home, adapter)
    if not rows:
        raise UsageError(f"{adapter} has no accepted drop on this box", hint="name rows: --on FILE", code="ROWS_UNNAMED")
    return rows


def accepted_rows(home: Home, adapter: str) -> tuple[RowsOf, ...]:
    """The accepted drops of an adapter that later jobs train on, oldest first."""
    from store.drops import read_drops, rows_folder

    found = []
    for drop in sorted(read_drops(home), key=lambda drop: drop.id):
        facts = drop.facts
        if isinstance(facts, Accepted) and drop.claim.adapter == adapter and facts.set_aside is None:
            found.append(RowsOf(drop=drop.id, sha256=facts.sha256, folder=str(rows_folder(home, drop.id)), schema_id=facts.schema_id))
    return tuple(found)
