"""The daemon notices what the loop dropped, writes how it goes, measures it in a chore, and knows whose loop a person stopped."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import zstandard
from filled_index import index_of

from core.alerts import Alert, Severity
from core.commands import Command, CommandKind
from core.iterations import IterationSeen, State, moved_to
from core.loopsteps import RecordIteration, SetContinuous, WorkIteration
from core.records import Accepted, Candidate, Claim, Drop, DropState, Gating, Job, JobCard, JobState, Ranking, Settling, VerdictWord
from daemon.chores import work_of
from daemon.iterations import Iterations
from daemon.worker import Chore, ChoreDone
from store.commands import put_command, read_answer
from store.drops import drop_folder
from store.iterations import newest_iterations, open_iterations, stopped
from store.seals import seal

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
DROP = "drop-20261122-120000-000-abcdef"
LINEAGE = {"made_by": "curriculum", "skill": "binary", "draws": [{"rows": 30}, {"rows": 12}]}
SECRET = "ghp_" + "".join(hashlib.sha256(b"of nobody").hexdigest()[:18] + "QzLpWnVtRxBsKdMyGh")


class Bench:
    """A home with an index, and a worker whose chores the test does."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.told: list[str] = []
        self.chores: list[Chore] = []
        self.alerts: tuple[Alert, ...] = ()
        self.index = index_of(root, criteria={"primary_metric": "exact_match"})
        self.home = self.index.home
        self.start()

    def start(self) -> None:
        """A daemon begins."""
        self.iterations = Iterations(self.index, self, lambda now, action, **fields: self.told.append(action), lambda: self.alerts)  # type: ignore[arg-type]

    def hear(self, kind: str, listener: Callable[[ChoreDone], None]) -> None:
        self.on_done = listener

    def submit(self, chore: Chore) -> bool:
        self.chores.append(chore)
        return True

    def drop(self, sidecar: dict[str, Any] | None, *, name: str = DROP) -> Drop:
        """A drop that was taken in, with this sidecar."""
        told = None if sidecar is None else "x.job.json"
        claim = Claim(drop=name, adapter="a/main", source="x", device=1, inode=1, size_bytes=1, mtime_ns=1, file="x.jsonl", sidecar=told, claimed_at=NOW)
        drop = Drop(claim=claim, state=DropState.SETTLING, facts=Settling(since=NOW))
        if sidecar is not None:
            drop_folder(self.home, drop).mkdir(parents=True)
            (drop_folder(self.home, drop) / "original.job.json").write_text(json.dumps(sidecar))
        self.index.keep_drop(drop)
        return drop

    def seen(self) -> IterationSeen:
        (found,) = self.iterations.look()
        return found

    def accept(self, drop: Drop, rows: list[bytes], findings: list[dict[str, Any]], *, aside: int = 0) -> None:
        """The gate has accepted it, with these findings; the first rows, so many, were put aside."""
        folder = self.home.drop(DropState.ACCEPTED, drop.id) / "rows"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "rows.jsonl.zst").write_bytes(zstandard.compress(b"".join(rows)))
        index = [{"line": line, "group": "g", "split": "train"} for line in range(1 + aside, 1 + len(rows))]
        (folder / "index.jsonl").write_text("".join(json.dumps(one) + "\n" for one in index))
        (folder / "report.json").write_text(json.dumps({"findings": findings}))
        facts = Accepted(at=NOW, job="job-1", sha256="0", identity="0", rows=len(rows), quarantined=1, schema_id="chat_sft_v1", job_made=True)
        self.index.keep_drop(replace(drop, state=DropState.ACCEPTED, facts=facts))

    def judged(self, *, answer: str = "fine", files: tuple[str, ...] = ()) -> Job:
        """A job that was trained and judged: its folders, and its place in the index."""
        runs = self.home.runs("job-1")
        checkpoint = runs / "01-train" / "checkpoints" / "step_000008"
        checkpoint.mkdir(parents=True)
        header = json.dumps({"a.lora_A.weight": {"dtype": "F32", "shape": [1, 2], "data_offsets": [0, 8]}}).encode()
        (checkpoint / "adapter_model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
        (checkpoint / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "task_type": "CAUSAL_LM", "bias": "none", "r": 1}))
        for name in files:
            (checkpoint / name).write_bytes(b"x")
        sealed = seal(checkpoint)
        steps = [{"step": 1, "grad_norm": 2.5}, {"step": 2, "grad_norm": 7.25}, {"step": 3, "loss": 1.0}]
        (runs / "01-train" / "progress.jsonl").write_text("".join(json.dumps(line) + "\n" for line in steps) + '{"step": 4, "grad_no')
        (runs / "03-score" / "samples").mkdir(parents=True)
        (runs / "03-score" / "samples" / "answers-gate-x.jsonl").write_text(json.dumps({"split": "gate"}) + "\n" + json.dumps({"answer": answer}) + "\n")
        (runs / "05-rank").mkdir()
        value = {"metric": "exact_match", "value": {"mean": 0.8, "low": 0.7, "high": 0.9}}
        leg = {"name": "this drop", "comparison": {"measure": "loss per token", "after": 1.0}}
        (runs / "05-rank" / "verdict.json").write_text(json.dumps({"made_up": False, "legs": [leg], "metrics": [value]}))
        best = Candidate(step=8, path="01-train/checkpoints/step_000008", sha256=sealed, dev_loss=1.0)
        later = [replace(best, step=step, sha256="f" * 64, dev_loss=1.5) for step in (12, 16)]
        card = JobCard(id="job-1", adapter="a/main", drop=DROP, file="x.jsonl", sha256="0", identity="0", created_at=NOW, base_sha256="stub", backend="stub")
        scores = {f"answers/gate/{best.id}": "03-score/samples/answers-gate-x.jsonl"}
        work = Ranking(since=NOW, candidates=(best, *later), best=best.id, verdict="05-rank", word=VerdictWord.PROMOTE, scores=scores)
        job = Job(card=card, state=JobState.RANKING, facts=work)
        self.index.keep_job(job)
        folder = self.home.job(JobState.RANKING, job.id)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps({"values": {"columns": ["note"]}, "origins": {}}))
        return job

    def measure(self) -> IterationSeen:
        """The chore that is asked for, done in this process."""
        self.iterations.apply(WorkIteration(iteration=self.seen().iteration.id, job="job-1"), NOW)
        chore = self.chores[-1]
        assert self.seen().busy
        result = work_of(chore.kind)(self.home, json.loads(json.dumps(dict(chore.spec))))
        self.on_done(ChoreDone(kind=chore.kind, key=chore.key, ok=True, result=json.loads(json.dumps(result))))
        return self.seen()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def row(question: str, answer: str = "A whole answer.") -> bytes:
    return json.dumps({"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}).encode() + b"\n"


# ---------------------------------------------------------------- noticing and writing


def test_only_what_the_loop_made_by_itself_is_an_iteration(bench: Bench) -> None:
    bench.drop(None, name="drop-20261122-120000-000-000001")
    bench.drop({"notes": "mine"}, name="drop-20261122-120000-000-000002")
    bench.drop({"lineage": {"skill": "binary"}}, name="drop-20261122-120000-000-000003")
    bench.drop({"lineage": LINEAGE})
    one = bench.seen()
    assert (one.is_new, one.iteration.id, one.iteration.made_by, one.iteration.of) == (True, "iteration-20261122-120000-000-abcdef", "curriculum", "binary")
    assert one.iteration.stages[State.SIGNALS].total == 42


@pytest.mark.parametrize(
    "lineage",
    [
        {"made_by": ["feedback"]},
        {"made_by": {"x": 1}},
        {"made_by": "feedback", "signals": 5},
        {"made_by": "curriculum", "draws": [1]},
        {"made_by": "curriculum", "draws": 7},
    ],
)
def test_a_lineage_that_anybody_wrote_into_a_sidecar_ends_no_daemon(bench: Bench, lineage: dict[str, object]) -> None:
    bench.drop({"lineage": lineage})
    assert bench.iterations.look() == ()
    assert bench.iterations.look() == ()


def test_a_drop_whose_sidecar_is_still_on_its_way_is_looked_at_again(bench: Bench) -> None:
    drop = bench.drop({"lineage": LINEAGE})
    path = drop_folder(bench.home, drop) / "original.job.json"
    text = path.read_text()
    path.unlink()
    assert bench.iterations.look() == ()
    path.write_text(text)
    assert bench.seen().is_new


def test_an_iteration_is_found_again_by_the_next_daemon_and_an_ended_one_is_not(bench: Bench) -> None:
    bench.drop({"lineage": LINEAGE})
    bench.iterations.apply(RecordIteration(iteration=bench.seen().iteration), NOW)
    bench.start()
    one = bench.seen()
    assert (one.is_new, one.iteration) == (False, next(open_iterations(bench.home)))
    ended = replace(moved_to(one.iteration, State.GATE, NOW), state=State.FAILED, ended_at=NOW)
    bench.iterations.apply(RecordIteration(iteration=ended), NOW)
    bench.index.lose_drop(DROP)
    assert bench.iterations.look() == ()
    bench.start()
    assert bench.iterations.look() == ()
    assert bench.told == ["iteration.drop", "iteration.failed"]
    assert [path.parent.name for path in bench.home.iterations.rglob("iteration-*")] == ["2026-11"], "a start reads no ended one"
    assert [found.state for found in newest_iterations(bench.home)] == [State.FAILED]


def test_of_a_refused_drop_the_findings_are_told_without_text(bench: Bench) -> None:
    drop = bench.drop({"lineage": LINEAGE})
    bench.seen()
    bench.index.lose_drop(drop.id)
    folder = bench.home.drop(DropState.REJECTED, drop.id)
    folder.mkdir(parents=True)
    (folder / "report.json").write_text(json.dumps({"findings": [{"id": "D07", "severity": "error", "lines": [3], "message": "a key of bob"}]}))
    one = bench.seen()
    assert (one.drop, one.refused) == (None, "D07 secret, line 3")


def test_rows_that_were_put_aside_do_not_count_as_missing(bench: Bench) -> None:
    drop = replace(bench.drop({"lineage": LINEAGE}), state=DropState.GATING, facts=Gating(since=NOW))
    bench.seen()
    findings = [
        {"id": "S02", "severity": "error", "count": 5, "lines": [1]},
        {"id": "M08", "severity": "warning", "count": 2, "lines": [2]},
        {"id": "N08", "severity": "warning", "count": 1, "lines": [3]},
    ]
    bench.accept(drop, [row("one"), row("two")], findings)
    gated = bench.seen().gated
    assert gated is not None
    assert (gated.rows, gated.quarantined, gated.missing, gated.untokenised) == (2, 1, 2, 1)


def test_a_critical_alert_counts_where_it_is_about_the_adapter_and_no_other_job(bench: Bench) -> None:
    bench.drop({"lineage": LINEAGE})
    made = {"severity": Severity.CRITICAL, "reason": "why", "next": "look"}
    bench.alerts = (
        Alert(rule="rules.wrong", title="answers are wrong", adapter="a/main", **made),  # type: ignore[arg-type]
        Alert(rule="rolled_back", title="the release before went back", adapter="a/main", **made),  # type: ignore[arg-type]
        Alert(rule="failed_job", title="another one failed", adapter="a/main", job="job-9", **made),  # type: ignore[arg-type]
        Alert(rule="rules.wrong", title="of another", adapter="b/main", **made),  # type: ignore[arg-type]
        Alert(rule="low_disk", title="the disk is low", **made),  # type: ignore[arg-type]
    )
    one = bench.seen()
    assert (one.critical, one.elsewhere) == (("rules.wrong: answers are wrong",), ("low_disk: the disk is low",))


# ---------------------------------------------------------------- measuring


def test_training_verdict_rows_answers_and_weights_are_measured_in_a_chore(bench: Bench) -> None:
    drop = bench.drop({"lineage": LINEAGE})
    bench.seen()
    bench.accept(drop, [row("one"), row("two")], [])
    bench.judged()
    found = bench.measure().measured
    assert found is not None
    assert (found.of, found.gradient_norm, found.steps_since_best, found.primary) == ("05-rank", 7.25, 2, 0.8)
    assert found.perplexity == pytest.approx(2.71828, abs=1e-4)
    assert [look.found for look in found.looks] == [""] * 4
    assert not list(bench.home.tmp.glob("gate-scan-*")), "unpacked rows do not stay"


def test_the_scan_names_secrets_and_foreign_files_and_never_their_text(bench: Bench) -> None:
    drop = bench.drop({"lineage": LINEAGE})
    bench.seen()
    leaks = row("my key", f"Use {SECRET} for it.")
    bench.accept(drop, [leaks, row("one"), leaks], [], aside=1)
    bench.judged(answer=f"Of course: {SECRET}", files=("weights.bin",))
    found = bench.measure().measured
    assert found is not None
    looks = {look.name: look.found for look in found.looks}
    assert looks["secrets in rows"] == f"{DROP}: D07 secret, line 3", "line 1 was put aside"
    assert looks["secrets in answers"] == "answers-gate-x.jsonl, line 2: a GitHub token"
    assert looks["adapter files"].startswith("ADAPTER_FILE_FOREIGN")
    assert SECRET not in str(found)


def test_rows_that_the_scan_cannot_read_are_no_clean_rows(bench: Bench) -> None:
    drop = bench.drop({"lineage": LINEAGE})
    bench.seen()
    noted = json.dumps(json.loads(row("one")) | {"note": "a column of ours"}).encode() + b"\n"
    bench.accept(drop, [noted, row("two")], [])
    bench.judged()
    assert bench.measure().measured.looks[0].found == "", "columns that are passed through are read"  # type: ignore[union-attr]
    bench.accept(drop, [b'{"prompt": "three"}\n'] * 3, [])
    assert "3 rows could not be read" in bench.measure().measured.looks[0].found  # type: ignore[union-attr]


def test_a_scan_that_fails_three_times_is_told_and_asked_for_no_more_in_between(bench: Bench) -> None:
    drop = bench.drop({"lineage": LINEAGE})
    bench.seen()
    bench.accept(drop, [row("one")], [])
    bench.judged()
    for number in range(3):
        bench.iterations.apply(WorkIteration(iteration=bench.seen().iteration.id, job="job-1"), NOW)
        bench.on_done(ChoreDone(kind="iteration", key=bench.chores[-1].key, ok=False, message="the disk is full"))
        assert bench.seen().trouble == ("the disk is full" if number == 2 else "")
        assert bench.seen().rest_until is not None


# ---------------------------------------------------------------- continuous mode


def say(bench: Bench, what: str, number: int) -> bool:
    """A person's word about the loop of a/main, and whether it was obeyed."""
    made = {"made_at": NOW, "expires_at": NOW + timedelta(minutes=1), "actor": "ann"}
    command = Command(id=f"command-{number}", kind=CommandKind.CONTINUOUS, adapter="a/main", details={"what": what}, **made)  # type: ignore[arg-type]
    path = put_command(bench.home, command)
    bench.iterations.apply(SetContinuous(command=command), NOW)
    answer = read_answer(path)
    assert answer is not None
    return answer.ok


def test_a_stopped_loop_stays_stopped_over_restarts_until_it_is_started(bench: Bench) -> None:
    assert not bench.iterations.is_stopped("a/main")
    assert say(bench, "stop", 1)
    assert say(bench, "stop", 2), "a repeat is no error"
    bench.start()
    assert bench.iterations.is_stopped("a/main")
    assert not bench.iterations.is_stopped("b/main")
    assert stopped(bench.home)["a/main"].actor == "ann"
    assert say(bench, "start", 3)
    bench.start()
    assert not bench.iterations.is_stopped("a/main")
    assert bench.told == ["continuous.stopped", "continuous.started"]


def test_while_the_record_is_damaged_no_loop_runs(bench: Bench) -> None:
    say(bench, "stop", 1)
    bench.home.continuous.write_text('{"stopped": {"a/ma')
    bench.start()
    assert bench.iterations.is_stopped("b/main")
    assert not say(bench, "start", 2)
