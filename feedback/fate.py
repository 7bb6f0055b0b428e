"""What became of a signal: computed from its batch, the drop of that, the job, the release and what is live; stored nowhere.

Signals that are in no batch stand where the shelf says. Of the others the batch names the row, the gate's index the split of
the row, the drop its job, the job its run and release. A drop that was rebuilt because rows were forgotten has other
lines: there rows are found by the id of their signal, which each of them bears. Reads only.
"""

import contextlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from core.errors import IntegrityError
from core.records import Accepted, Claim, Drop, Ended, Job, JobState
from core.signals import Batch, Standing
from feedback.batch import batches_of, queued, staged
from rendering.rows import INDEX, index_of
from store.codec import read_if_whole
from store.drops import CLAIM, read_drops, read_report, rows_folder
from store.jobs import find_folder, read_all, read_job
from store.paths import Home
from store.releases import Release, read_releases
from store.rowprints import lines_of
from store.vault import live_of

QUARANTINE, ROWS = "quarantine.jsonl", "rows.jsonl.zst"


class Word(StrEnum):
    """How far a signal has come."""

    PENDING = "pending"
    REVIEW = "review"
    REJECTED = "rejected"
    QUARANTINED = "quarantined"
    CAPPED = "capped"
    FORGOTTEN = "forgotten"
    QUEUED = "queued"  # in a batch that waits at the gate, or for its training
    LEFT_OUT = "left out"  # it makes no row
    DUPLICATE = "duplicate"  # another signal says the same: they share a row
    REFUSED = "refused"  # by the gate, with its file or alone
    TRAINING = "training"
    HELD_OUT = "held out"
    REPLACED = "replaced"  # by a later row of the same conversation
    TRAINED = "trained"
    LIVE = "live"
    LOST = "gone"  # its drop is in this home no more


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """The fate of one signal; what does not apply is empty."""

    word: Word
    why: str
    batch: str = ""
    drop: str = ""
    line: int = 0
    split: str = ""
    job: str = ""
    job_state: str = ""
    run: str = ""
    release: str = ""
    version: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Story:
    """What became of the rows of one batch."""

    batch: Batch
    sharing: Mapping[str, str]  # signal -> the one whose row it shares
    drop: Drop | None = None
    rejected: Path | None = None
    is_coming: bool = False  # its file waits in the inbox, or to be put there
    splits: Mapping[int, tuple[str, str]] = field(default_factory=dict)  # line -> (group, split)
    aside: Mapping[int, str] = field(default_factory=dict)  # line -> findings
    lines: Mapping[str, int] | None = None  # of a drop that was rebuilt: signal -> line
    job: Job | None = None
    run: str = ""


class Fates:
    """Tells fates of one adapter's signals; every file is read once, when it is first asked about."""

    def __init__(self, home: Home, adapter: str) -> None:
        self._home, self._adapter = home, adapter
        self._stories: dict[str, _Story] = {}

    def of(self, signal: str, standing: Standing, note: str = "") -> Fate:
        """Args: standing, note: where the shelf says that it lies, and why."""
        batch = self._batch_of.get(signal)
        if batch is None or (standing is not Standing.QUEUED and signal not in batch.rows):
            return _standing(standing, note)
        story = self._stories.get(batch.id) or self._stories.setdefault(batch.id, self._story(batch))
        if standing is Standing.REVIEW:  # a bad answer that taught as such, and still asks for the right one
            told = self._in_batch(signal, story)
            return Fate(word=Word.REVIEW, why=f"asks for the right answer; as a bad one: {told.why}", batch=batch.id, drop=told.drop, job=told.job)
        return self._in_batch(signal, story) if standing is Standing.QUEUED else _standing(standing, note)

    def counted(self, batch: str) -> dict[str, int]:
        """How many signals of a batch came how far; empty for one that was refused."""
        found = (self.of(id, Standing.QUEUED).word.value for id, one in self._batch_of.items() if one.id == batch)
        return dict(Counter(found).most_common())

    # ---------------------------------------------------------------- what is read

    @cached_property
    def _batch_of(self) -> dict[str, Batch]:
        """Signal -> its last batch."""
        found: dict[str, Batch] = {}
        for batch in sorted(batches_of(self._home, self._adapter), key=lambda batch: (batch.made_at, batch.id)):
            if not batch.refused:
                found |= dict.fromkeys((*batch.rows, *batch.left_out), batch)
        return found

    @cached_property
    def _drops(self) -> list[Drop]:
        return sorted((drop for drop in read_drops(self._home) if drop.claim.adapter == self._adapter), key=lambda drop: drop.id)

    @cached_property
    def _newest(self) -> dict[str, str]:
        """Group -> the last drop that holds it: only its rows are learnt."""
        found: dict[str, str] = {}
        for drop in self._drops:
            if isinstance(drop.facts, Accepted) and drop.facts.set_aside is None:
                with contextlib.suppress(IntegrityError):
                    found |= {row.group: drop.id for row in index_of(rows_folder(self._home, drop.id) / INDEX)}
        return found

    @cached_property
    def _live(self) -> Release | None:
        live = live_of(self._home).get(self._adapter)
        return self._releases.get(live) if live else None

    @cached_property
    def _releases(self) -> dict[str, Release]:
        return {release.id: release for release in read_releases(self._home) if release.adapter == self._adapter}

    @cached_property
    def _rejected(self) -> dict[str, Path]:
        """Name of the file -> the folder of the refused drop."""
        found = {}
        for path in sorted(self._home.rejected.glob(f"*/{CLAIM}")):
            claim = read_if_whole(Claim, path)
            if claim is not None and claim.adapter == self._adapter:
                found[claim.file] = path.parent
        return found

    def _story(self, batch: Batch) -> _Story:
        first: dict[int, str] = {}
        for id, line in batch.rows.items():
            first.setdefault(line, id)
        sharing = {id: first[line] for id, line in batch.rows.items() if first[line] != id}
        drop = next((drop for drop in reversed(self._drops) if drop.claim.file == batch.file), None)
        if drop is None or not isinstance(drop.facts, Accepted):
            return _Story(batch=batch, sharing=sharing, drop=drop, rejected=self._rejected.get(batch.file), is_coming=self._is_coming(batch))
        folder = rows_folder(self._home, drop.id)
        job = self._job(drop.facts.job)
        if job is not None and job.state in (JobState.FAILED, JobState.CANCELLED):
            job = self._retried.get(drop.id, job)
        runs = sorted(self._home.runs(job.id).glob("*-train")) if job else []
        return _Story(
            batch=batch,
            sharing=sharing,
            drop=drop,
            splits=_splits(folder),
            aside={int(told["line"]): ", ".join(told["ids"]) for told in _told(folder / QUARANTINE)},
            lines=_lines_by_id(folder) if "rebuilt" in (read_report(folder) or {}) else None,
            job=job,
            run=runs[-1].name if runs else "",
        )

    @cached_property
    def _retried(self) -> dict[str, Job]:
        """Drop -> its newest job: one that failed may have been asked for again."""
        return {job.card.drop: job for job in sorted(read_all(self._home)[0], key=lambda job: job.id)}

    def _is_coming(self, batch: Batch) -> bool:
        waits = staged(queued(self._home, self._adapter), batch.id).exists()
        return waits or any((self._home.inbox / place / batch.file).exists() for place in ("", self._adapter))

    def _job(self, id: str) -> Job | None:
        place = find_folder(self._home, id)
        try:
            return read_job(place[1], place[0]) if place else None
        except IntegrityError:
            return None

    # ---------------------------------------------------------------- what it comes to

    def _in_batch(self, signal: str, story: _Story) -> Fate:
        batch, drop = story.batch, story.drop
        if signal in batch.left_out:
            return Fate(word=Word.LEFT_OUT, why=batch.left_out[signal], batch=batch.id)
        if signal in story.sharing:
            shared = self._in_batch(story.sharing[signal], story)
            return Fate(word=Word.DUPLICATE, why=f"says the same as {story.sharing[signal]}: {shared.why}", batch=batch.id, drop=shared.drop, line=shared.line)
        if drop is None and story.rejected is not None:
            return Fate(word=Word.REFUSED, why=f"the gate refused {batch.file}: read {story.rejected / 'report.md'}", batch=batch.id)
        if drop is None:
            if story.is_coming:
                return Fate(word=Word.QUEUED, why=f"{batch.file} is on its way to the gate", batch=batch.id)
            return Fate(word=Word.LOST, why=f"the drop of {batch.file} is not in this home any more", batch=batch.id)
        if not isinstance(drop.facts, Accepted):
            return Fate(word=Word.QUEUED, why=f"{batch.file} is at the gate", batch=batch.id, drop=drop.id)
        return self._accepted(signal, story, drop, drop.facts)

    def _accepted(self, signal: str, story: _Story, drop: Drop, facts: Accepted) -> Fate:
        line = story.batch.rows[signal] if story.lines is None else story.lines.get(signal, 0)
        known: dict[str, Any] = {"batch": story.batch.id, "drop": drop.id, "line": line, "job": story.job.id if story.job else facts.job}
        if line in story.aside:
            return Fate(word=Word.REFUSED, why=f"the gate put its row aside: {story.aside[line]}", **known)
        if line not in story.splits:
            return Fate(word=Word.FORGOTTEN, why="its row was forgotten", **known)
        group, split = story.splits[line]
        known |= {"split": split, "run": story.run, "job_state": story.job.state.value if story.job else ""}
        if self._newest.get(group, drop.id) != drop.id:
            return Fate(word=Word.REPLACED, why=f"a later row of the same conversation takes its place: drop {self._newest[group]}", **known)
        word, why, release = self._learnt(story, facts)
        if release is not None:
            known |= {"release": release.id, "version": release.version}
        if split != "train" and word not in (Word.QUEUED, Word.LOST):
            return Fate(word=Word.HELD_OUT, why=f"{HELD_OUT[split]}; {why}", **known)
        return Fate(word=word, why=why, **known)

    def _learnt(self, story: _Story, facts: Accepted) -> tuple[Word, str, Release | None]:
        """What has become of the drop's rows that are learnt: by what is live, else by its own job."""
        live, job = self._live, story.job
        if live is not None and facts.sha256 in live.manifest.drops:
            return Word.LIVE, f"trained in {_run(story)}; live in {self._adapter}@v{live.version}", live
        if job is None:
            return Word.QUEUED, f"accepted; job {facts.job} is made in a moment", None
        if isinstance(job.facts, Ended) and job.state is JobState.RELEASED:
            release = self._releases.get(job.facts.release or "")
            return Word.TRAINED, f"trained in {_run(story)}; released as v{job.facts.version}, which is not live now", release
        if job.state is JobState.QUEUED:
            return Word.QUEUED, f"job {job.id} waits for its training", None
        if job.state is JobState.TRAINING:
            return Word.TRAINING, f"is learnt in {_run(story)}", None
        reason = getattr(job.facts, "reason", "")
        told = f"{'trained in ' if story.run else ''}{_run(story)}; the job is {job.state.value}" + (f": {reason}" if reason else "")
        return (Word.TRAINED if story.run else Word.QUEUED), told + ("; later jobs leave the drop out" if facts.set_aside is not None else ""), None


HELD_OUT = {"gate": "held out for the verdict", "dev": "held out for the choice of the checkpoint"}
STANDINGS = {
    Standing.PENDING: "waits for a trigger",
    Standing.REVIEW: "waits for a person: lorad feedback review",
    Standing.REJECTED: "a person rejected it",
    Standing.QUARANTINED: "a person has to accept it",
    Standing.CAPPED: "over the cap of its source or user for that day",
    Standing.QUEUED: "its batch is being made",
}


def _standing(standing: Standing, note: str) -> Fate:
    return Fate(word=Word(standing.value), why=note or STANDINGS.get(standing, ""))


def _run(story: _Story) -> str:
    job = story.job.id if story.job else ""
    return f"run {story.run} of {job}" if story.run else job


def _splits(folder: Path) -> dict[int, tuple[str, str]]:
    try:
        return {row.line: (row.group, row.split) for row in index_of(folder / INDEX)}
    except IntegrityError:
        return {}


def _told(path: Path) -> Iterator[dict[str, Any]]:
    for line in lines_of(path):
        with contextlib.suppress(ValueError):
            yield json.loads(line)


def _lines_by_id(folder: Path) -> dict[str, int]:
    found = {}
    for number, line in enumerate(lines_of(folder / ROWS), 1):
        with contextlib.suppress(msgspec.MsgspecError):
            found[str(msgspec.json.decode(line).get("id", ""))] = number
    return found
