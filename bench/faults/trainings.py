"""F11, F12, F14, F46: the trainer is killed for memory, runs out of it, hangs."""

import time
from array import array
from functools import partial
from importlib.util import find_spec
from typing import Any

from circle import Circle, chat_rows, read_json, read_lines
from processes import pause

from bench.faults import CannotRun, Outcome, Trial, fault

BATCH = 16  # rows of an optimizer step, by default
LONG = {"epochs": 200, "checkpoints": 20}
SHORT = {"epochs": 2, "checkpoints": 1}
HANG_S = 2.0
PATIENCE_S = 6.0  # for a hang that nobody looks for


def progress(circle: Circle, job: str, run: int) -> list[dict[str, Any]]:
    """What a training run, counted from 0, told of its steps."""
    runs = circle.runs(job, "train")
    return [line for line in read_lines(runs[run] / "progress.jsonl") if line["stage"] == "train"] if len(runs) > run else []


def rungs(circle: Circle, job: str) -> list[int]:
    """Most rows of a forward pass that each attempt was given."""
    specs = [read_json(run / "spec.json") for run in circle.runs(job, "train")]
    return [spec["micro_batch"] or BATCH for spec in specs if spec]


def begin(circle: Circle, folder: Any) -> str:
    """Start the daemon, drop, and wait until the job trains. Returns the job."""
    circle.env["LORAD_BENCH_FOLDER"] = str(folder)
    circle.start_daemon()
    circle.drop(chat_rows())
    job: str = circle.wait_state("training")
    return job


@fault("F11", "trainer killed for memory by the kernel", guard="signal 9 that lorad did not send counts as want of memory", without="kill_means_memory")
def killed_for_memory(trial: Trial) -> Outcome:
    """kill -9 of every attempt; then a limit under which only half of the rows fit."""
    attempts = 3 if trial.guarded else 2
    circle = trial.circle(training=LONG | {"max_attempts": attempts})
    job = begin(circle, trial.folder)
    for attempt in range(attempts):
        circle.wait(partial(progress, circle, job, attempt), f"attempt {attempt} is at work")
        (trainer,) = circle.children("trainer")
        trainer.kill()
    circle.wait_state("failed")
    facts, ladder = circle.facts(job), rungs(circle, job)
    figure: dict[str, Any] = {"rungs": ladder, "retries": len(ladder) - 1, "code": facts["code"], "daemon_up": circle.daemon.lives()}
    held = (ladder, facts["code"], circle.daemon.lives()) == ([16, 8, 4], "OUT_OF_MEMORY", True)
    if held:
        limited = trial.circle(without=("-memory-limit",), training=SHORT)
        second = begin(limited, trial.folder)
        limited.wait_state("ranking")
        first = read_json(limited.runs(second, "train")[0] / "exit.json")
        figure["rungs_under_rlimit"] = rungs(limited, second)
        held = figure["rungs_under_rlimit"] == [16, 8] and first["code"] == 20
    return Outcome(held=held, figure=figure, note="kill -9 of the child, and RLIMIT_AS; the memory controller of a cgroup is not used here")


@fault("F12", "out of memory in a step", guard="the trainer's border knows want of memory and says so", without="memory_is_told")
def out_of_memory(trial: Trial) -> Outcome:
    """More than four rows of a forward pass raise, as on a GPU."""
    circle = trial.circle(without=("-out-of-memory",), training=SHORT | {"max_attempts": 2})
    job = begin(circle, trial.folder)
    circle.wait(lambda: circle.jobs()[job] not in ("queued", "training"), "the training ends")
    ladder = rungs(circle, job)
    state = circle.jobs()[job]
    if state == "failed":
        return Outcome(held=False, figure={"rungs": ladder, "code": circle.facts(job)["code"]})
    steps = {read_json(run / "exit.json")["total_steps"] for run in circle.runs(job, "train")}
    passes = {rows: _passes(rows) for rows in ladder}
    figure = {"rungs": ladder, "accumulation": [len(cut) for cut in passes.values()], "rows_a_step": sorted({sum(cut) for cut in passes.values()})}
    held = ladder == [16, 8, 4] and figure["rows_a_step"] == [BATCH] and len(steps) == 1
    return Outcome(held=held, figure=figure, note="how the peft trainer cuts a step of 16 rows at each rung")


def _passes(rows: int) -> list[int]:
    """Rows of each forward pass of one step on a rung of the ladder, as the real trainer cuts them."""
    from core.config import Config
    from rendering.rows import Row
    from trainer.backends.batches import Cut, FlatForward, micro_batches
    from trainer.examples import Example

    config = Config()
    forward = FlatForward(None)
    row = Row(drop="", line=1, group="", split="train", schema_id="chat_sft_v1", messages=[], weight=1.0)
    example = Example(row=row, ids=array("i", range(100)), learnt=array("i", [99]), weights=array("f", [1.0]), num_last=1)
    rows_of_a_step = [example] * config.batch_size
    return [len(cut) for cut in micro_batches(forward, rows_of_a_step, Cut.of_training(config, rows, forward.budget_tokens))]


@fault("F14", "hang", guard="signs of life against the median step", without="heartbeat")
def hang(trial: Trial) -> Outcome:
    """A step that does not end; then SIGSTOP of the second attempt."""
    circle = trial.circle(without=("-stuck-step",), training=LONG | {"hang_s": HANG_S})
    job = begin(circle, trial.folder)
    circle.wait(lambda: (trial.folder / "stuck").exists(), "a step hangs")
    slept_s = _noticed(circle, job, 0)
    if slept_s is None:
        return Outcome(held=False, figure=None, note=f"nobody noticed within {PATIENCE_S:.0f} s")
    circle.wait(lambda: len(progress(circle, job, 1)) > 1, "it is tried again")
    (trainer,) = circle.children("trainer")
    pause(trainer)
    stopped_s = _noticed(circle, job, 1)
    circle.wait(lambda: progress(circle, job, 2), "it is tried once more")
    stacks = [run / "stack.txt" for run in circle.runs(job, "train")[:2]]
    named = ["stand_still" in stacks[0].read_text(), "stub.py" in stacks[1].read_text()]
    reasons = [line["reason"] for line in read_lines(circle.home / "status.jsonl") if line["action"] == "job.queued" and line.get("event") == "stopped"]
    told = all(reason.startswith("hung: no sign of life for ") for reason in reasons) and len(reasons) == 2
    figure = {"detect_s": {"sleep": slept_s, "SIGSTOP": stopped_s}, "hang_s": HANG_S, "stacks_saved": sum(named), "tried_again": len(reasons)}
    held = all(named) and told and circle.daemon.lives()
    return Outcome(held=held, figure=figure, note="py-spy's dump, TERM, after 10 s KILL; one that is stopped gets SIGCONT")


def _noticed(circle: Circle, job: str, run: int) -> float | None:
    """Seconds until the stack of the run is being saved; None where nobody noticed."""
    began = time.monotonic()
    stack = circle.runs(job, "train")[run] / "stack.txt"
    try:
        circle.wait(stack.exists, "the hang is noticed", PATIENCE_S)
    except AssertionError:
        return None
    return round(time.monotonic() - began, 1)


@fault("F46", "worker of a distributed training dies", guard="a training goes on from its newest resume point", without="resume_point")
def worker_dies(trial: Trial) -> Outcome:
    """The second of two processes that train a tiny model together is killed between two checkpoints."""
    if lacks := [name for name in ("torch", "transformers", "peft") if find_spec(name) is None]:
        raise CannotRun(f"{', '.join(lacks)} not installed")
    from bench.faults.adapters import Bench

    tiny = Bench(trial.folder / "tiny").config
    named = {"model_path": tiny.model_path, "models_dir": tiny.models_dir, "backend": "peft", "batch_size": 8, "max_length": 128}
    training = {"epochs": 40, "checkpoints": 20, "patience": 0, "threads": 1, "boards": []}
    circle = trial.circle(**named, distributed={"processes": 2}, training=training)
    job = begin(circle, trial.folder)
    circle.wait(lambda: len(_resume_steps(circle, job, 0)) > 1, "two resume points are sealed", 120)
    (trainer,) = circle.children("trainer")
    trainer.children()[0].kill()
    circle.wait(lambda: progress(circle, job, 1), "the training goes on", 120)
    sealed, died, again = _resume_steps(circle, job, 0)[-1], progress(circle, job, 0)[-1]["step"], progress(circle, job, 1)[0]["step"]
    # Progress is told once a second, a resume point at once: the newer of both is how far it came.
    figure = {"steps_lost": max(died, sealed) - again + 1, "sealed": sealed, "goes_on_at": again, "processes": 2}
    return Outcome(held=again == sealed + 1, figure=figure, note="gloo on the CPU; a Ray worker's loss: tests/trainer/test_a_cluster.py")


def _resume_steps(circle: Circle, job: str, run: int) -> list[int]:
    """The steps of a run's sealed resume points."""
    return sorted(int(seal.parent.name.removeprefix("step_")) for seal in circle.runs(job, "train")[run].glob("resume/step_*/SEALED"))
