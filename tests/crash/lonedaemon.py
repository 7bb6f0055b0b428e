"""The daemon's own tick on a real home, alone in this process: no child, no thread, no waiting.

Index, Observer, decide, Applier, Status and the store are the real ones. Three others are played: the gate and the children
answer when they are told to, the box when it is asked to serve. What they and people write is done `outside`: it is no
crash point of the daemon's.
"""

import dataclasses
import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import zstandard
from crashpoints import CrashPoints

from core.commands import Command, CommandKind
from core.exits import ChildExit
from core.gate import ACCEPTED_DROP, GATE_RESULT, GATE_SPEC, GateResult, GateSpec
from core.names import stamp
from core.progress import models_to_score
from core.records import Candidate, ChildRef, Kind, Ranking, Releasing, VerdictWord
from core.tasks import ChildSeen, ExitNote
from core.wire import Activation, Active, AliasState, Manifest, Observed, Outcome
from daemon import clock
from daemon.apply import Applier
from daemon.disk import Disk
from daemon.gatekeeper import BACKGROUND, Gatekeeper
from daemon.index import Index
from daemon.intake import Gates
from daemon.main import Loop
from daemon.observe import Observer
from daemon.status import Status
from daemon.watcher import FileWatcher, Noticed
from store.codec import read, write
from store.commands import put_command, read_answer
from store.config import ConfigLoader
from store.drops import finish_discards, finish_rejections
from store.durable import create_file
from store.jobs import sweep_parts, sweep_tmp
from store.keys import ensure_keys
from store.paths import Home
from store.recall import chore_recall
from store.rotation import line_log
from store.runs import write_exit
from store.seals import seal, seal_aside, seal_hash
from store.targets import OBSERVED, desired_of, merged_up_to, mirror
from store.wire import append_activation, read_activations, read_active, write_manifest

START = datetime(2026, 3, 1, tzinfo=UTC)
NOT_JSON = b"this is not JSON\n"
TRIED_AGAIN_AFTER = timedelta(hours=2)  # longer than any pause between attempts


class Nobody:
    """Stands for a part that this daemon does without: whatever is asked of it, nothing happens."""

    def __getattr__(self, name: str) -> "Nobody":
        return Nobody()

    def __call__(self, *args: object, **kwargs: object) -> None:
        return None

    def __bool__(self) -> bool:
        return False


def rows(number: int) -> bytes:
    """A file that no other number has."""
    talk = [{"role": "user", "content": f"What is {number}?"}, {"role": "assistant", "content": f"It is the number {number}."}]
    return json.dumps({"messages": talk}).encode() + b"\n"


class PlayedGate(Gatekeeper):
    """Answers at once, in the folder: accepted, unless the file is NOT_JSON."""

    outside = nullcontext

    def ensure(self) -> None:
        pass

    def _is_alive(self) -> bool:
        return True

    def close(self) -> None:
        pass

    def _ask(self, folder: Path) -> None:
        with self.outside():
            answer_gate(folder)


def answer_gate(folder: Path) -> None:
    """What the gate child writes into a gate folder."""
    spec = read(GateSpec, folder / GATE_SPEC)
    raw = Path(spec.file).read_bytes()
    verdict = "refused" if raw == NOT_JSON else "accepted"
    findings = [] if verdict == "accepted" else [{"id": "F01", "severity": "error", "message": "not JSON", "line": 1}]
    report = {"file": spec.name, "sha256": "", "schema": spec.schema_id, "level": "standard", "rows": 1, "verdict": verdict, "findings": findings, "stats": {}}
    place = folder / ACCEPTED_DROP if verdict == "accepted" else folder
    place.mkdir(exist_ok=True)
    (place / "report.json").write_text(json.dumps(report))
    (place / "report.md").write_text(verdict)
    digest = hashlib.sha256(raw).hexdigest()
    if verdict == "accepted":
        (place / "rows.jsonl.zst").write_bytes(zstandard.ZstdCompressor(level=1).compress(raw))
        (place / "index.jsonl").write_text("{}\n")
        seal_aside(place, durable=False)
    answer = GateResult(drop=spec.drop, verdict=verdict, sha256=digest, size_bytes=len(raw), rows=1, new_groups=1, ended_at=START)  # type: ignore[arg-type]
    write(folder / GATE_RESULT, answer, durable=False)


class PlayedWatcher(FileWatcher):
    """Never started: everything in the inbox counts as renamed into place."""

    def take(self, mode: object = None) -> Noticed:
        return Noticed(is_due=True, renamed={str(path) for path in self._inbox.rglob("*.jsonl")})


class PlayedChildren:
    """Children that live until `finish` or `lose`. At most one slot is taken at a time."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self.alive: dict[str, tuple[str, int | None]] = {}  # job -> (run, slot)
        self.asked_to_stop: set[str] = set()

    def start(self, job: str, run: Path, words: list[str], slot: int | None, threads: int) -> None:
        self.alive[job] = (run.name, slot)

    def look(self, job: str, ref: ChildRef) -> ChildSeen:
        return ChildSeen(ref=ref, alive=self.alive.get(job, ("", None))[0] == ref.run)

    def stop(self, job: str, *, hung: str = "") -> None:
        self.asked_to_stop.add(job)

    was_refused = False
    warm = Nobody()

    def free_slots(self) -> tuple[int, ...]:
        return () if any(slot is not None for _, slot in self.alive.values()) else (0,)

    def devices(self, config: object) -> tuple[()]:
        return ()

    def need_bytes(self, config: object) -> None:
        return None

    def hold(self, slot: int, why: str) -> None:
        pass

    def any_alive(self) -> bool:
        return bool(self.alive)

    def kill_all(self) -> None:
        self.alive.clear()


class LoneDaemon:
    """One home, and the daemon on it. `told` survives a restart: it is what a reader of the status log has seen."""

    def __init__(self, root: Path, points: CrashPoints | None = None) -> None:
        self.root = root
        self.points = points
        self.now = START
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.on_told: Any = None
        root.mkdir(parents=True, exist_ok=True)
        values = {"home": "home", "backend": "stub", "allow_stub": True, "retention": {"min_free_mb": 128, "min_free_inodes": 1000, "reserve_mb": 0}}
        (root / "config.json").write_text(json.dumps(values))
        self.home = Home(root / "home")
        self.home.prepare()
        ensure_keys(self.home.keys)
        self.start()

    @contextmanager
    def outside(self) -> Iterator[None]:
        with self.points.outside() if self.points is not None else nullcontext():
            yield

    # ---------------------------------------------------------------- the daemon

    def start(self) -> None:
        """What `daemon.main` does before its first tick. Whatever was in memory is gone, and the children with it."""
        line_log.cache_clear()
        self.now += timedelta(seconds=1)
        home = self.home
        index = Index.load(home, ConfigLoader(self.root / "config.json"))
        sweep_tmp(home)
        sweep_parts(home, time.time())
        finish_rejections(home)
        finish_discards(home)
        self.index = index
        self.children: Any = PlayedChildren(home)
        gates = Gates(PlayedGate(home), PlayedGate(home, BACKGROUND))
        for gate in (gates.new, gates.background):
            gate.outside = self.outside  # type: ignore[attr-defined]
        status = Status(index, "instance", self.now)
        worker: Any = Nobody()
        disk = Disk(index, worker, self._tell)
        watcher = PlayedWatcher(home.inbox, home.commands, threading.Event())
        observer = Observer(index, "instance", self.children, gates, watcher)
        observer.look_at_disk = disk.look
        self._status = status
        applier = Applier(index, "instance", self.children, gates, self._tell)
        parts = {"index": index, "observer": observer, "applier": applier, "status": status, "children": self.children, "gates": gates, "disk": disk}
        others: Any = {field.name: Nobody() for field in dataclasses.fields(Loop)}
        self.loop = Loop(**(others | parts | {"merged": merged_up_to(home)}))

    def _tell(self, now: datetime, action: str, **fields: Any) -> None:
        self._status.tell(now, action, **fields)
        self.told.append((action, fields))
        if self.on_told is not None:
            self.on_told(action, fields)

    def tick(self) -> int:
        """One tick of the daemon's loop, a second later. Returns the number of steps that were applied."""
        self.now += timedelta(seconds=1)
        real, clock.now = clock.now, lambda: self.now
        try:
            return self.loop.tick()
        finally:
            clock.now = real

    def settle(self, *, word: VerdictWord = VerdictWord.PROMOTE, limit: int = 2000) -> None:
        """Tick until nothing is left to do; children succeed, the box serves, and time passes."""
        idle = 0
        for _ in range(limit):
            self.serve()
            idle = 0 if self.tick() else idle + 1
            for job in list(self.children.alive):
                idle = 0
                self.finish(job, word=word, code=ChildExit.STOPPED if job in self.children.asked_to_stop else ChildExit.DONE)
            if idle == 1:
                self.now += TRIED_AGAIN_AFTER
            if idle > 2:
                return
        raise AssertionError(f"never settles: {[(job.id, job.state.value, job.facts) for job in self.index.jobs.values()]}; {self.index.incident}")

    def remember(self) -> None:
        """A chore notes what the records say, an hour after their last change: the next start believes it where nothing changed since."""
        now = time.time()
        with self.outside():
            for folder in (*self.home.root.glob("jobs/*/job-*"), *self.home.root.glob("jobs/*/*/job-*"), *self.home.root.glob("drops/accepted/*")):
                os.utime(folder, (now - 3600, now - 3600))
            chore_recall(self.home, {"now_s": now})

    # ---------------------------------------------------------------- people

    def drop(self, content: bytes, name: str, sidecar: dict[str, Any] | None = None) -> None:
        with self.outside():
            if sidecar is not None:
                (self.home.inbox / name.replace(".jsonl", ".job.json")).write_text(json.dumps(sidecar))
            create_file(self.home.inbox / name, content)  # a writer who syncs: what is not in the inbox for good is not lorad's

    def ask(self, kind: CommandKind, **fields: Any) -> str:
        """A command of a person. Returns its id."""
        self.now += timedelta(milliseconds=1)
        name = f"command-{stamp(self.now, 'abc')}"
        with self.outside():
            put_command(self.home, Command(id=name, kind=kind, made_at=self.now, expires_at=self.now + timedelta(minutes=5), actor="somebody", **fields))
        return name

    def answer(self, command: str) -> Any:
        """The answer to a command; None before there is one."""
        return read_answer(self.home.commands / f"{command}.answer.json")

    # ---------------------------------------------------------------- children

    def finish(self, job: str, *, code: int = ChildExit.DONE, word: VerdictWord = VerdictWord.PROMOTE) -> None:
        """The job's child ends, with what a child of its kind leaves behind."""
        with self.outside():
            run, _ = self.children.alive.pop(job)
            self.children.asked_to_stop.discard(job)
            facts: Any = self.index.jobs[job].facts
            folder = self.home.runs(job) / run
            note = ExitNote(code=code, ended_at=self.now, reason="" if code == ChildExit.DONE else "said so")
            if code == ChildExit.DONE:
                note = self._results(job, folder, facts, facts.child, note, word)
            write_exit(folder, note)

    def lose(self, job: str) -> None:
        """The job's child is killed: no last word."""
        del self.children.alive[job]

    def _results(self, job: str, folder: Path, facts: Any, ref: ChildRef, note: ExitNote, word: VerdictWord) -> ExitNote:
        if ref.kind is Kind.TRAIN:
            checkpoint = folder / "checkpoints" / "step_000004"
            checkpoint.mkdir(parents=True)
            (checkpoint / "adapter_model.safetensors").write_bytes(job.encode())
            seal(checkpoint)
            candidate = Candidate(step=4, path="checkpoints/step_000004", sha256=seal_hash(checkpoint))
            return dataclasses.replace(note, candidates=(candidate,), steps=4, total_steps=4)
        if ref.kind is Kind.SCORE:
            assert isinstance(facts, Ranking)
            wanted = models_to_score(dataclasses.replace(facts, child=None), ref.purpose)
            (folder / "scores").mkdir()
            for model in wanted:
                (folder / "scores" / f"{ref.purpose}-{model}.jsonl").write_text("{}\n")
            return dataclasses.replace(note, scores={f"{ref.purpose}/{model}": f"scores/{ref.purpose}-{model}.jsonl" for model in wanted})
        if ref.kind is Kind.RANK:
            (folder / "verdict.json").write_text("{}")
            verdict = {"best": facts.candidates[-1].id} if ref.purpose == "order" else {"word": word, "reason": f"the verdict is {word}"}
            return dataclasses.replace(note, **verdict)
        assert isinstance(facts, Releasing)
        packed = folder / "release"
        packed.mkdir()
        (packed / "adapter_model.safetensors").write_bytes(job.encode())
        card = self.index.jobs[job].card
        manifest = Manifest(
            format=1,
            adapter=card.adapter,
            version=facts.version or 0,
            job=job,
            backend="stub",
            base_sha256=card.base_sha256,
            tokenizer_sha256="",
            template_sha256="",
            parent=None,
            checkpoint_sha256="",
            verdict_sha256="",
            drops=(),
            created_at=self.now,
            files={},
        )
        return dataclasses.replace(note, release=write_manifest(packed, manifest, self.home.keys))

    # ---------------------------------------------------------------- the box

    def serve(self) -> None:
        """The box acts on the wish, and the link brings its word."""
        with self.outside():
            self._serve()

    def _serve(self) -> None:
        desired = desired_of(self.home, "local")
        out = mirror(self.home, "local")
        active = read_active(out / "active.json") or Active(box="box", sequence=0, fence_seen=0, at=self.now)
        if desired is None or desired.fence <= active.fence_seen:
            return
        out.mkdir(parents=True, exist_ok=True)
        aliases, sequence = dict(active.aliases), active.sequence
        for alias, wish in desired.aliases.items():
            before = aliases.get(alias, AliasState(release=None))
            fence = desired.fences[alias]
            if fence <= before.fence:
                continue
            said = dataclasses.replace(before, fence=fence, wanted=wish.release, outcome=Outcome.LIVE, code="", reason="")
            if wish.replaces != before.release:
                said = dataclasses.replace(said, outcome=Outcome.REFUSED, code="INCUMBENT_CHANGED", reason="another release is live")
            elif wish.release != before.release:
                sequence += 1
                said = dataclasses.replace(said, release=wish.release, previous=before.release)
                line = Activation(
                    box="box",
                    sequence=sequence,
                    at=self.now,
                    alias=alias,
                    release=wish.release,
                    version=None,
                    previous=before.release,
                    fence=fence,
                    event="live",
                )
                append_activation(out / "activations.jsonl", line)
            aliases[alias] = said
        write(out / "active.json", Active(box="box", sequence=sequence, fence_seen=desired.fence, at=self.now, aliases=aliases))
        write(self.home.target("local") / OBSERVED, Observed(target="local", at=self.now, reachable=True))

    def went_live(self) -> list[str | None]:
        """The releases in the order in which the box put them live."""
        return [line.release for line in read_activations(mirror(self.home, "local") / "activations.jsonl") if line.event == "live"]


def copy_of(template: Path, place: Path) -> Path:
    """A copy of a root made before. Inodes differ: a claim that waits in it would not be believed."""
    shutil.copytree(template, place, symlinks=True)
    return place
