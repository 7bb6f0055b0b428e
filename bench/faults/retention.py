"""F17: two hundred checkpoints against a budget, and lists of what is needed that cannot be trusted."""

import json
from pathlib import Path
from typing import Any

from circle import Circle, chat_rows

from bench.faults import Outcome, Trial, fault
from bench.faults.rotten import write_weights

CHECKPOINTS = 200
EACH_BYTES = 64 << 10
BUDGET_GB = 0.006
UNREACHABLE_GB = 0.000001
NO_RESERVE = {"reserve_mb": 0, "min_free_mb": 128, "min_free_inodes": 100}
ADAPTER_FILES = "adapter_model.safetensors"


def _released(circle: Circle) -> list[str]:
    """Train three releases, each longer and so better than the one before; their ids, the live one last."""
    for number, epochs in enumerate((1, 4, 12)):
        circle.drop(chat_rows(start=1000 * number), f"{number}.jsonl", sidecar={"training": {"epochs": epochs}})
        job = circle.wait_ended(number)
        if circle.jobs()[job] == "held":
            circle.lorad("jobs", "approve", job, "--reason", "the next one is needed")
        circle.wait_state("released", number)
    return [str(release) for release in circle.went_live()]


def _add_checkpoints(circle: Circle) -> None:
    """What years of jobs would have left: older checkpoints than those that the trainings have made."""
    from trainer import checkpoints

    def fill(folder: Path) -> None:
        write_weights(folder / ADAPTER_FILES, EACH_BYTES)
        (folder / "checkpoint.json").write_text(json.dumps({"dev_loss": 9.0}))

    jobs = list(circle.jobs())
    for number in range(CHECKPOINTS):
        job = jobs[number % len(jobs)]
        checkpoints.keep(circle.runs(job, "train")[0], 500_000 + number if job != jobs[-1] else 1000 + number, fill)


def _all(circle: Circle) -> set[Path]:
    """Every checkpoint and release that lies in home."""
    return {*circle.home.glob("runs/*/*-train/checkpoints/step_*"), *circle.home.glob("adapters/*/*/v*")}


def _protected(circle: Circle) -> tuple[set[Path], Path]:
    """By the records alone: the best checkpoint of the adapter, live and previous release; and the newest checkpoint."""
    live = {path.parent for path in circle.home.glob("adapters/*/*/v*/manifest.json") if _id(path) in circle.went_live()[-2:]}
    last = circle.job(len(circle.jobs()) - 1)
    newest = max(circle.runs(last, "train")[0].glob("checkpoints/step_*"))
    verdict = json.loads(next(path for path in circle.runs(last, "rank")[-1].glob("verdict.json")).read_text())
    step = verdict["candidate"].partition("-")[0].removeprefix("step_")
    best = circle.runs(last, "train")[0] / "checkpoints" / f"step_{int(step):06d}"
    return {*live, best}, newest


def _id(manifest: Path) -> str:
    from store.seals import hash_file

    return hash_file(manifest)


def _gc(circle: Circle, budget_gb: float) -> int:
    circle.configure(retention=NO_RESERVE | {"budget_gb": budget_gb})
    return circle.lorad("gc").returncode


def _bytes(circle: Circle) -> int:
    from store.paths import Home
    from store.usage import count

    return count(Home(circle.home)).bytes


def _untrusted(circle: Circle) -> int:
    """How many things go while the lists of what is needed are damaged, empty or gone."""
    out = circle.home / "targets" / "local" / "out"
    ledger, active = out / "activations.jsonl", out / "active.json"
    whole, before, gone = {path: path.read_bytes() for path in (ledger, active)}, _all(circle), 0
    for name, contents in (
        ("damaged ledger", {ledger: b"{}\n" + whole[ledger]}),
        ("damaged answer", {active: b"{"}),
        ("both empty", {ledger: b"", active: b""}),
        ("both gone", {ledger: None, active: None}),
    ):
        for path, raw in contents.items():
            path.unlink() if raw is None else path.write_bytes(raw)
        status = _gc(circle, UNREACHABLE_GB)
        gone += len(before - _all(circle)) + (status == 0)
        assert not gone, f"{name}: {len(before - _all(circle))} things went, exit {status}"
        for path, raw in whole.items():
            path.write_bytes(raw)
    return gone


@fault("F17", "retention of 200 checkpoints", guard="what is needed stays whatever is asked for (Shield, References.trouble)", without="shield")
def retention(trial: Trial) -> Outcome:
    circle = trial.circle(retention=NO_RESERVE)
    circle.start_both()
    _released(circle)
    circle.daemon.terminate()
    circle.daemon.exit_status()
    _add_checkpoints(circle)
    (protected, newest), before = _protected(circle), _bytes(circle)
    if trial.guarded:
        _untrusted(circle)
    status = _gc(circle, BUDGET_GB)
    after = _bytes(circle)
    wrong = len({*protected, newest} - _all(circle))
    wrong += _while_training(circle, protected)
    figure: dict[str, Any] = {"checkpoints": CHECKPOINTS, "bytes_before": before, "bytes": after, "budget": int(BUDGET_GB * 1e9), "wrong_deletes": wrong}
    note = "damaged, empty, missing lists: nothing went; then a budget that nothing can meet, beside a training: what is needed stayed"
    return Outcome(held=status == 0 and after <= BUDGET_GB * 1e9 and not wrong, figure=figure, note=note)


def _while_training(circle: Circle, protected: set[Path]) -> int:
    """How much that is needed goes under a budget that nothing can meet, while a training is under way; its newest checkpoint is the adapter's now."""
    circle.configure(retention=NO_RESERVE | {"budget_gb": UNREACHABLE_GB}, training={"epochs": 40, "checkpoints": 20})
    circle.start_daemon()
    circle.drop(chat_rows(start=9000), "late.jsonl")
    circle.wait_state("training", 3)
    job = circle.job(3)
    circle.wait(lambda: circle.resume_point(job) and list(circle.runs(job, "train")[0].glob("checkpoints/step_*/SEALED")), "it has a checkpoint")
    needed = {*protected, *(path.parent for path in circle.runs(job, "train")[0].glob("checkpoints/step_*/SEALED"))}
    assert circle.lorad("gc").returncode == 0
    left = _all(circle)
    return len(needed - left)
