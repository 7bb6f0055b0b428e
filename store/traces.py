"""Where rows lie, and what learnt from them: the search of an order to forget. Reads only.

It opens what `store.holdings` names. A row is found by its fingerprint; what was made from it by the drops that held it.
"""

import json
import tarfile
from collections.abc import Iterator, Set
from dataclasses import dataclass
from pathlib import Path

from core.forgets import Forget, Part, Place, Stage, Traces
from core.gate import ROWS_FOLDER as ROWS
from core.records import ENDED, Accepted, Claim, Job, Releasing
from store.codec import read_if_whole
from store.drops import CLAIM, ORIGINAL
from store.forgets import read_rows
from store.holdings import holder
from store.jobs import read_all
from store.locks import is_locked
from store.paths import Home
from store.releases import read_releases
from store.rowprints import is_wanted, lines_of, lines_with, marks_of
from store.usage import KEPT_OF_RUNS

PACKED_ROWS = "rows.jsonl.zst"
SOURCE = "source.json"  # in an entry of caches/tokens: of which drop
UNREADABLE = "(unreadable)"
STAGED = ".rows.jsonl"  # the data file of a batch that is about to be dropped
PENDING = "signals"  # a place that the daemon itself cuts: it adds to it meanwhile
KEPT = KEPT_OF_RUNS - {"log.txt"}


@dataclass(frozen=True, slots=True)
class Search:
    """One search. `rows` are all fingerprints that are wanted, those of whole drops too."""

    home: Home
    order: Forget
    rows: frozenset[str]

    @classmethod
    def of(cls, home: Home, order: Forget) -> "Search":
        """The search for an order. Reads the whole drops that it names, where that was not done before."""
        known = read_rows(home, order.id)
        whole = known if known is not None else frozenset(rows_of_drops(home, order.drops))
        return cls(home, order, frozenset(order.rows) | whole)

    def run(self) -> Traces:
        """Everything that holds the rows, or was made from them."""
        parts = tuple(self._parts())
        held = {(part.drop, part.adapter) for part in (*self.order.parts, *parts)}
        jobs = [job for job in read_all(self.home)[0] if any(job.card.trains_on(drop, adapter) for drop, adapter in held)]
        shas = {part.sha256 for part in (*self.order.parts, *parts)}
        here = {release.id for release in read_releases(self.home) if shas & set(release.manifest.drops)}
        made = {release for job in jobs if (release := _release_of(job)) is not None}
        return Traces(
            parts=parts,
            jobs=tuple(sorted(job.id for job in jobs)),
            releases=tuple(sorted(here | made | set(self.order.releases))),
            here=tuple(sorted(here | (made & {release.id for release in read_releases(self.home)}))),
            coming=tuple(self._coming()),
            places=(*self._refused(), *self._made(jobs, held), *self._copies(jobs, held)),
        )

    def _parts(self) -> Iterator[Part]:
        for folder in holder(self.home, "drops").paths():
            claim, facts = read_if_whole(Claim, folder / CLAIM), read_if_whole(Accepted, folder / "accepted.json")
            if claim is None or facts is None:
                continue
            rows = folder / ROWS / PACKED_ROWS
            total = found = 0
            for line in lines_of(rows):
                total, found = total + bool(line.strip()), found + is_wanted(line, self.rows)
            if found or claim.drop in self.order.drops:
                count = total if claim.drop in self.order.drops else found
                yield Part(drop=claim.drop, adapter=claim.adapter, sha256=facts.sha256, forgotten=count, left=total - count)

    def _coming(self) -> Iterator[str]:
        """Inbox entries and drops on their way that hold the rows, relative to home."""
        for path in holder(self.home, "inbox").paths():
            if any(lines_with(file, self.rows) for file in _files(path)):
                yield str(path.relative_to(self.home.root))
        for path in (*holder(self.home, "spools").paths(), *self.home.root.glob(f"feedback/*/*/queued/*{STAGED}")):
            if lines_with(path, self.rows):
                yield str(path.relative_to(self.home.root))
        for folder in holder(self.home, "coming").paths():
            if folder.is_relative_to(self.home.root / "drops") and any(lines_with(file, self.rows) for file in _files(folder / ORIGINAL)):
                yield str(folder.relative_to(self.home.root))

    def _refused(self) -> Iterator[Place]:
        """Refused files and signals: the rows are cut out of them; a refused drop that is named goes as a whole."""
        for folder in holder(self.home, "rejected").paths():
            relative = str(folder.relative_to(self.home.root))
            if folder.name in self.order.drops:
                yield Place(what="refused drop", path=relative)
            elif rows := sum(len(lines_with(file, self.rows)) for file in _files(folder) if not file.name.startswith("report.")):
                yield Place(what="refused copy", path=relative, cut=True, rows=rows)
        for path in holder(self.home, "feedback").paths():
            if not path.name.endswith(STAGED) and (rows := len(lines_with(path, self.rows))):
                what = PENDING if path.parent.name == "pending" else "feedback"
                yield Place(what=what, path=str(path.relative_to(self.home.root)), cut=True, rows=rows)

    def _made(self, jobs: list[Job], held: Set[tuple[str, str]]) -> Iterator[Place]:
        """What runs and caches keep of them, and what waits in the trash."""
        root = self.home.root
        for job in jobs:
            if job.state in ENDED and any(path.name not in KEPT for run in _entries(self.home.runs(job.id)) for path in _entries(run)):
                yield Place(what="runs", path=str(self.home.runs(job.id).relative_to(root)))
        if not held:
            return
        drops, names = {drop for drop, _ in held}, {job.id for job in jobs} | {drop for drop, _ in held}
        for path in holder(self.home, "tokens").paths():
            if path.is_dir() and path.name != ".making" and _source(path) in drops | {""} and not _is_made(path):
                yield Place(what="tokens", path=str(path.relative_to(root)))
        # What lies there after the sweep was made after it, from drops without the rows.
        for path in holder(self.home, "caches").paths() if self.order.stage is not Stage.PURGED else ():
            yield Place(what="cache", path=str(path.relative_to(root)))
        for path in holder(self.home, "trash").paths():
            if any(name in path.name for name in names) or any(str(folder) in path.name for folder in _gone(self.order)):
                yield Place(what="trash", path=str(path.relative_to(root)))

    def _copies(self, jobs: list[Job], held: Set[tuple[str, str]]) -> Iterator[Place]:
        """Snapshots and backups with any of it inside."""
        drops, runs = {drop for drop, _ in held}, {job.id for job in jobs}
        touched = set(self.order.releases) | {release for job in jobs if (release := _release_of(job))}
        shas = {part.sha256 for part in self.order.parts}
        for path in holder(self.home, "snapshots").paths():
            if _holds(path, drops, runs) or self._has_signals(path) or any(shas & set(drops_) or name in touched for name, drops_ in _releases_in(path)):
                yield Place(what="backup" if path.is_file() else "snapshot", path=str(path.relative_to(self.home.root)))

    def _has_signals(self, snapshot: Path) -> bool:
        """Whether a snapshot or a backup holds a signal that says the same."""
        if snapshot.is_dir():
            return any(lines_with(path, self.rows) for path in snapshot.glob("home/feedback/**/*.jsonl"))
        return any(is_wanted(line, self.rows) for name, content in _members(snapshot) if _is_of_signals(name) for line in content.splitlines())


def rows_of_drops(home: Home, drops: tuple[str, ...]) -> Iterator[str]:
    """By what every row of accepted drops is found again."""
    for drop in drops:
        for line in lines_of(home.root / "drops" / "accepted" / drop / ROWS / PACKED_ROWS):
            yield from marks_of(line)


def _release_of(job: Job) -> str | None:
    facts = job.facts
    return facts.release if isinstance(facts, Releasing) else getattr(facts, "release", None)


def _gone(order: Forget) -> Iterator[str]:
    """The names under which what was replaced lies in the trash."""
    return (f"accepted+{part.drop}" for part in order.parts)


def _files(path: Path) -> Iterator[Path]:
    """The file itself, or the files below a folder that may hold rows."""
    found = [path] if path.is_file() else sorted(path.rglob("*")) if path.is_dir() else []
    return (file for file in found if file.is_file() and not file.is_symlink() and file.name != CLAIM)


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _source(entry: Path) -> str:
    """The drop whose tokens an entry holds; empty where it does not say."""
    try:
        return str(json.loads((entry / SOURCE).read_text())["drop"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _is_made(entry: Path) -> bool:
    """Whether a trainer makes the entry just now; one whose job trained on the rows has ended before."""
    return entry.parent.name == ".making" and is_locked(entry.parent.parent / f"{entry.name.partition('.')[0]}.lock")


def _holds(snapshot: Path, drops: Set[str], jobs: Set[str]) -> bool:
    """Whether a snapshot or a backup has the folder of one of these drops, or weights of one of these jobs."""
    for name in _names(snapshot):
        parts = Path(name).parts
        if name == UNREADABLE and drops:
            return True  # nobody can say that it does not
        if "drops" in parts and "forgotten" not in parts and drops & set(parts):
            return True
        if jobs & set(parts) and "runs" in parts and parts[-1] not in KEPT and len(parts) > parts.index("runs") + 3:
            return True
    job = snapshot / "job.json"
    return job.is_file() and str(json.loads(job.read_text()).get("id")) in jobs


def _names(snapshot: Path) -> Iterator[str]:
    if snapshot.is_dir():
        yield from (str(path.relative_to(snapshot)) for path in snapshot.rglob("*"))
        return
    yield from (name for name, _ in _members(snapshot))


def _members(backup: Path) -> Iterator[tuple[str, bytes]]:
    """(name, bytes) of what is packed in a backup; the bytes of manifests and signals alone. Of one that cannot be read to its end, UNREADABLE at last."""
    import zstandard

    try:
        with open(backup, "rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
            for member in tar:
                content = tar.extractfile(member) if member.name.endswith("/manifest.json") or _is_of_signals(member.name) else None
                yield member.name, content.read() if content is not None else b""
    except (OSError, EOFError, tarfile.TarError, zstandard.ZstdError):
        yield UNREADABLE, b""


def _is_of_signals(name: str) -> bool:
    return "/feedback/" in f"/{name}" and name.endswith(".jsonl")


def _releases_in(snapshot: Path) -> Iterator[tuple[str, list[str]]]:
    """(release id, hashes of its drops) of the releases in a snapshot or a backup."""
    import hashlib

    if snapshot.is_dir():
        found: Iterator[bytes] = (path.read_bytes() for path in snapshot.glob("home/adapters/*/*/v*/manifest.json"))
    else:
        found = (content for name, content in _members(snapshot) if "/adapters/" in f"/{name}" and content)
    for raw in found:
        try:
            yield hashlib.sha256(raw).hexdigest(), [str(drop) for drop in json.loads(raw).get("drops", ())]
        except (ValueError, AttributeError):
            continue
