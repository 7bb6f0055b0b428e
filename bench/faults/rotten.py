"""F19, F20, F21: bytes that are not what was sealed, and weights that no one should serve."""

import functools
import json
import random
import shutil
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from circle import Circle, chat_rows, read_lines
from crashpoints import Crash, CrashPoints

from bench.faults import Outcome, Trial, fault

sys.path[:0] = [str(Path(__file__).parents[2] / "tests" / part) for part in ("serving", "trainer")]  # an inference box in a folder; a tiny model

EVERY_BYTES = 4096
SMALL_BYTES, LARGE_BYTES = 128 << 10, 3 << 19  # below and above the size up to which a listing reads a file to its end
FLIPS_OF_RESUME, FLIPS = 100, 1000
SEED = 5


def flip(path: Path, rng: random.Random) -> None:
    """Turn one bit of the file over, wherever it is."""
    raw = bytearray(path.read_bytes())
    bit = rng.randrange(8 * len(raw))
    raw[bit // 8] ^= 1 << bit % 8
    path.write_bytes(raw)


def write_weights(path: Path, num_bytes: int) -> None:
    """A safetensors file of about this size."""
    head = json.dumps({"w": {"dtype": "F32", "shape": [num_bytes // 4], "data_offsets": [0, num_bytes]}}).encode()
    path.write_bytes(len(head).to_bytes(8, "little") + head + np.random.default_rng(SEED).normal(size=num_bytes // 4).astype("<f4").tobytes())


# ---------------------------------------------------------------- F19


def _fill(step: int, num_bytes: int) -> Callable[[Path], None]:
    def fill(folder: Path) -> None:
        write_weights(folder / "adapter_model.safetensors", num_bytes)
        (folder / "adapter_config.json").write_text(json.dumps({"steps": step}))
        (folder / "checkpoint.json").write_text(json.dumps({"step": step, "dev_loss": 3.0 / step}))

    return fill


def _found(home: Any, job: str) -> tuple[int | None, list[int]]:
    """The step that a training would go on from (as the daemon lists and the trainer checks), and the steps that ranking would see."""
    from store.runs import candidates_of, resume_point
    from trainer.checkpoints import usable_resumes

    point = resume_point(home, job)
    folder = next(usable_resumes(home.runs(job) / point), None) if point else None
    return (int(folder.name[5:]) if folder else None), [one.step for one in candidates_of(home, job)]


def _unwatched() -> list[AbstractContextManager[Any]]:
    """A seal that is there is believed."""
    from store import runs
    from store.seals import is_sealed
    from trainer import checkpoints

    return [patch.object(runs, "is_whole", is_sealed), patch.object(checkpoints, "check_seal", lambda folder: "")]


def _walk_damage(home: Any, job: str) -> tuple[int, int]:
    """Cut the newer of two resume points and checkpoints at every 4 kB, turn bits over. Returns (cases, wrong ones)."""
    from trainer import checkpoints

    run, rng = home.runs(job) / "01-train", random.Random(SEED)  # noqa: S311 - chosen by lot, no secret
    cases = wrong = 0
    for num_bytes in (SMALL_BYTES, LARGE_BYTES):
        shutil.rmtree(run, ignore_errors=True)
        for step in (1, 2):
            checkpoints.keep(run, step, _fill(step, num_bytes))
            checkpoints.save_resume(run, step, _fill(step, num_bytes))
        files = [run / kind / "step_000002" / "adapter_model.safetensors" for kind in ("resume", "checkpoints")]
        whole = files[0].read_bytes()
        lengths = range(0, len(whole), EVERY_BYTES if num_bytes == SMALL_BYTES else 16 * EVERY_BYTES)
        for length in lengths:
            for file in files:
                file.write_bytes(whole[:length])
            cases += 1
            wrong += _found(home, job) != (1, [1])
        for _ in range(FLIPS_OF_RESUME if num_bytes == SMALL_BYTES else FLIPS_OF_RESUME // 4):
            for file in files:
                file.write_bytes(whole)
                flip(file, rng)
            cases += 1
            wrong += _found(home, job)[0] != 1  # of equal length in a large file: the trainer's check, and packing's, see it
    return cases, wrong


def _walk_save(home: Any, job: str) -> tuple[int, int]:
    """Be killed at every change of the disk that saving makes. Returns (points, wrong ones)."""
    from trainer import checkpoints

    run = home.runs(job) / "01-train"
    points = wrong = 0
    while True:
        shutil.rmtree(run, ignore_errors=True)
        for step in (1, 2):
            checkpoints.keep(run, step, _fill(step, 4096))
            checkpoints.save_resume(run, step, _fill(step, 4096))
        crash = CrashPoints(points + 1)
        with crash:
            try:
                checkpoints.keep(run, 3, _fill(3, 4096))
                checkpoints.save_resume(run, 3, _fill(3, 4096))
            except Crash:
                points += 1
        if not crash.dead:
            return points, wrong
        found, listed = _found(home, job)
        wrong += found not in (2, 3) or listed[:2] != [1, 2] or (found == 3 and listed != [1, 2, 3])


def _steps_of(circle: Circle, job: str, run: int) -> list[int]:
    """The steps that a training run reports, in order."""
    lines = read_lines(circle.runs(job, "train")[run] / "progress.jsonl")
    return [line["step"] for line in lines if line["stage"] in ("train", "dev") and line.get("step") is not None]


def _story(trial: Trial) -> tuple[int, int]:
    """A daemon and its trainer die, and the newest resume point is torn. Returns (the step before it, the step from which it went on)."""
    circle = trial.circle(training={"epochs": 15, "checkpoints": 15})
    circle.start_daemon()
    circle.drop(chat_rows())
    job = circle.wait_state("training")
    points = lambda: sorted(circle.runs(job, "train")[0].glob("resume/step_*/SEALED"))  # noqa: E731
    circle.wait(lambda: len(points()) == 2, "two resume points are sealed")
    circle.daemon.kill()
    circle.wait(lambda: len(points()) >= 2, "two are there")
    before, newest = (path.parent for path in points()[-2:])
    weights = newest / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    circle.start_daemon()
    circle.wait(lambda: len(circle.runs(job, "train")) == 2 and _steps_of(circle, job, 1), "the next training makes steps")
    return int(before.name[5:]), _steps_of(circle, job, 1)[0] - 1


@fault(
    "F19",
    "torn or rotten checkpoint",
    guard="what is listed is whole (is_whole), what is gone on from has its sealed bytes (check_seal)",
    without="whole_resumes",
)
def torn_checkpoint(trial: Trial) -> Outcome:
    from store.paths import Home

    home = Home(trial.folder / "home")
    patches = [] if trial.guarded else _unwatched()
    for one in patches:
        one.__enter__()
    try:
        cases, wrong = _walk_damage(home, "job-1")
        points, wrong_kills = _walk_save(home, "job-1") if trial.guarded else (0, 0)
    finally:
        for one in patches:
            one.__exit__(None, None, None)
    before, went_on = _story(trial)
    figure = {"damaged": cases, "kills_at_save": points, "wrong_resumes": wrong + wrong_kills + (went_on != before)}
    if not trial.guarded:  # each of the two has to be seen without its guard
        return Outcome(held=not wrong or went_on == before, figure=figure)
    note = f"cut at every 4 kB (64 kB of a large file), bits turned over, killed at each change of a save; a real run went on after step {went_on}"
    return Outcome(held=not figure["wrong_resumes"] and points > 10, figure=figure, note=note)


# ---------------------------------------------------------------- F20


def _fill_release(folder: Path) -> None:
    from inference_box import stub_adapter

    stub_adapter(folder)
    write_weights(folder / "adapter_model.safetensors", SMALL_BYTES // 4)


def _believed() -> AbstractContextManager[Any]:
    """A box that looks at no byte."""
    from serving import library
    from store.wire import read_manifest, release_id

    return patch.object(library, "check_release", lambda folder, keys: (release_id(folder), read_manifest(folder)))


@fault("F20", "bit flip in weights or config of a release", guard="signature and SHA-256 of every file on the box (check_release)", without="release_bytes")
def flipped_release(trial: Trial) -> Outcome:
    """A bit of an arrival is turned over a thousand times; then once on the way to a real box that serves the release before."""
    from inference_box import ALIAS, MODEL, World

    from serving.engines.stub import StubEngine
    from serving.library import Library

    world, rng, missed = World(trial.folder / "world"), random.Random(SEED), []  # noqa: S311
    release = world.pack(fill=_fill_release)
    names = sorted(path.name for path in world.packed(release).iterdir())
    library = Library(world.box, world.keys, StubEngine(MODEL, max_new_tokens=4).base, "stub")
    with nullcontext() if trial.guarded else _believed():
        for number in range(FLIPS):
            name = names[number % len(names)] if number % 2 else "adapter_model.safetensors"
            arrival = world.send(release)
            flip(arrival / name, rng)
            if _is_admitted(functools.partial(library.admit, release, ALIAS)):
                missed.append(name)
                library = Library(world.box, world.keys, StubEngine(MODEL, max_new_tokens=4).base, "stub")
            library.drop(release)
    serves_on = _flipped_on_the_way(trial)
    figure = {"flips": FLIPS + 1, "missed": len(missed) + (not serves_on)}
    if not trial.guarded:
        return Outcome(held=not missed or serves_on, figure=figure)
    return Outcome(held=not figure["missed"], figure=figure, note=f"in {', '.join(names)}; the release before serves on")


def _is_admitted(admit: Callable[[], Any]) -> bool:
    from core.errors import LoradError

    try:
        admit()
    except LoradError:
        return False
    return True


def _flipped_on_the_way(trial: Trial) -> bool:
    """Whether a real box refuses an arrival of which one bit is wrong, and answers on with what it has."""
    circle = trial.circle()
    circle.start_both()
    circle.drop(chat_rows())
    job = circle.wait_state("training")
    circle.serving.kill()
    arrivals = circle.box / "in" / "incoming"
    arrival = circle.wait(lambda: next(arrivals.glob("*/SEALED"), None), "the release has arrived").parent
    flip(arrival / "adapter_model.safetensors", random.Random(SEED))  # noqa: S311
    circle.start_serving()
    circle.wait(lambda: circle.ledger(), "the box has an answer")
    refused = [line["code"] for line in circle.ledger() if line["event"] == "refused"] == ["RELEASE_BYTES"]
    circle.wait(lambda: circle.jobs()[job] != "releasing", "the daemon hears of it")
    return refused and circle.went_live() == [] and circle.jobs()[job] != "released" and circle.ask().headers["x-lorad-release"] == "base"
