"""`python -m trainer` as the daemon starts it."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from trainer_cases import note_of, progress_of, questions, wait_until

from core.config import Config
from core.exits import ChildExit
from core.tasks import RowsOf, ScoreModel, ScoreTask, TrainTask
from store import codec
from store.child import Stopped
from store.seals import check_seal
from trainer import __main__ as child_main
from trainer import engine
from trainer.backends import BACKENDS
from trainer.run import RunFolder

RunIn = Callable[..., RunFolder]
Child = Callable[[RunFolder], "subprocess.Popen[bytes]"]
TORCH_FREE = """
import sys
from trainer.__main__ import main
code = main(sys.argv[1:])
heavy = {"torch", "transformers", "peft", "safetensors", "numpy"} & {name.split(".")[0] for name in sys.modules}
assert not heavy, heavy
sys.exit(code)
"""


def settings(**changes: Any) -> dict[str, Any]:
    made = {"batch_size": 4, "learning_rate": 5e-3, "max_length": 128}
    return Config.model_validate({**made, **changes}).model_dump(mode="json")


@pytest.fixture
def stub_task(train_drop: RowsOf) -> Callable[..., TrainTask]:
    def make(**changes: Any) -> TrainTask:
        return TrainTask(**{"job": "job-1", "backend": "stub", "base": "", "rows": (train_drop,), "settings": settings(), **changes})

    return make


@pytest.mark.parametrize("kind", ["train", "score"])
def test_the_stub_never_imports_torch(kind: str, stub_task: Callable[..., TrainTask], train_drop: RowsOf, run_in: RunIn) -> None:
    base = ScoreModel(id="base", adapter=None)
    score = ScoreTask(job="j", backend="stub", base="", rows=(train_drop,), split="dev", models=(base,), settings=settings(), probe="base", shift="base")
    run = run_in("01", stub_task() if kind == "train" else score)
    done = subprocess.run([sys.executable, "-c", TORCH_FREE, str(run.root)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert note_of(run).code == ChildExit.DONE


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import sys, trainer, trainer.convert; trainer.ConfigLoader, trainer.TrainerConfig; assert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_stub_training_leaves_what_a_real_one_leaves(stub_task: Callable[..., TrainTask], run_in: RunIn, child: Child) -> None:
    run = run_in("01-train", stub_task())
    assert child(run).wait(60) == ChildExit.DONE
    note = note_of(run)
    assert (note.steps, note.total_steps, note.checkpoint) == (6, 6, "resume/step_000006")
    assert [found.step for found in note.candidates] == [2, 4, 6]
    for found in note.candidates:
        folder = run.root / found.path
        assert check_seal(folder) == found.sha256
        shape = json.loads((folder / "adapter_config.json").read_text())
        assert (shape["peft_type"], shape["made_up"]) == ("LORA", True)
        with safe_open(folder / "adapter_model.safetensors", "numpy") as file:
            assert file.metadata() == {"format": "pt", "made_up": "true"}
            assert [file.get_tensor(name).tolist() for name in file.keys()] == [[found.step]]  # noqa: SIM118 - not a mapping
    assert all(line["made_up"] for line in progress_of(run))


def test_a_stub_stopped_on_request_resumes_where_it_was(stub_task: Callable[..., TrainTask], run_in: RunIn, child: Child) -> None:
    task = stub_task(settings=settings(training={"epochs": 40.0}))
    run = run_in("01-train", task)
    process = child(run)
    wait_until(lambda: bool(progress_of(run)), "a first step")
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == ChildExit.STOPPED
    note = note_of(run)
    assert (note.code, note.reason) == (ChildExit.STOPPED, "stopped on request")
    assert 0 < note.steps < note.total_steps == 120
    assert note.checkpoint is not None
    check_seal(run.root / note.checkpoint)
    again = run_in("02-train", stub_task(settings=settings(training={"epochs": 40.0}), checkpoint=str(run.root / note.checkpoint)))
    assert child(again).wait(60) == ChildExit.DONE
    assert progress_of(again)[0]["step"] == note.steps + 1
    assert [found.step for found in note_of(again).candidates] == [40, 80, 120]


def test_a_real_training_stopped_on_request_seals_a_resume_point(
    tiny_config: Config, tiny_base: Path, drop: Callable[..., RowsOf], run_in: RunIn, child: Child
) -> None:
    long = tiny_config.model_dump(mode="json")
    long["training"] |= {"epochs": 500.0, "checkpoints": 1}
    task = TrainTask(job="job-1", backend="peft", base=str(tiny_base), rows=(drop(questions(8)),), settings=long)
    run = run_in("01-train", task)
    process = child(run)
    wait_until(lambda: bool(progress_of(run)) or process.poll() is not None, "a first step")
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == ChildExit.STOPPED, (run.root / "log.txt").read_text()
    note = note_of(run)
    assert note.checkpoint is not None
    assert 0 < note.steps < note.total_steps == 1000
    check_seal(run.root / note.checkpoint)
    short = tiny_config.model_dump(mode="json")
    short["training"] |= {"epochs": 500.0, "checkpoints": 1}
    resumed = run_in(
        "02-train", TrainTask(job="job-1", backend="peft", base=str(tiny_base), rows=task.rows, settings=short, checkpoint=str(run.root / note.checkpoint))
    )
    process = child(resumed)
    wait_until(lambda: bool(progress_of(resumed)) or process.poll() is not None, "a first step")
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == ChildExit.STOPPED, (resumed.root / "log.txt").read_text()
    assert progress_of(resumed)[0]["step"] == note.steps + 1


def test_a_scoring_child_stops_at_once(stub_task: Callable[..., TrainTask], train_drop: RowsOf, run_in: RunIn) -> None:
    run = run_in("02-score")
    with pytest.raises(Stopped):
        run.on_term(signal.SIGTERM, None)


@pytest.mark.parametrize("text", [None, "{", '{"kind": "dance"}'])
def test_a_spec_that_is_not_one_is_not_retried(text: str | None, run_in: RunIn) -> None:
    run = run_in("01-train")
    if text is not None:
        run.spec.write_text(text)
    assert child_main.main([str(run.root)]) == ChildExit.BAD_SPEC
    assert (note_of(run).error, note_of(run).code) == ("SPEC_DAMAGED", ChildExit.BAD_SPEC)


def test_an_unknown_backend_names_the_known_ones(stub_task: Callable[..., TrainTask], run_in: RunIn) -> None:
    run = run_in("01-train", stub_task(backend="abacus"))
    assert child_main.main([str(run.root)]) == ChildExit.BAD_SPEC
    assert "'abacus'" in note_of(run).reason
    assert note_of(run).hint == "known are mlx, peft, stub, unsloth"


def test_a_missing_base_says_how_to_get_it(stub_task: Callable[..., TrainTask], run_in: RunIn, tmp_path: Path) -> None:
    run = run_in("01-train", stub_task(backend="peft", base=str(tmp_path / "nothing")))
    assert child_main.main([str(run.root)]) == ChildExit.BAD_SPEC
    assert (note_of(run).error, note_of(run).hint) == ("BASE_MISSING", "run `lorad models pull`")


@pytest.mark.parametrize(
    ("error", "code", "name"),
    [
        (MemoryError(), ChildExit.OUT_OF_MEMORY, "OUT_OF_MEMORY"),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA"), ChildExit.OUT_OF_MEMORY, "OUT_OF_MEMORY"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), ChildExit.OUT_OF_MEMORY, "OUT_OF_MEMORY"),
        (OSError(28, "No space left on device"), ChildExit.STOPPED, "DISK_FULL"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), ChildExit.STOPPED, "DISK_FULL"),
        (ZeroDivisionError("a bug"), 1, "CHILD_CRASHED"),
    ],
)
def test_every_failure_has_its_exit_code(
    error: Exception, code: int, name: str, stub_task: Callable[..., TrainTask], run_in: RunIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing:
        def train(self, task: TrainTask, run: RunFolder) -> None:
            raise error

    monkeypatch.setattr(engine, "find", lambda name: Failing())
    run = run_in("01-train", stub_task())
    assert child_main.main([str(run.root)]) == code
    note = note_of(run)
    assert (note.code, note.error) == (code, name)
    assert note.hint


def test_a_child_without_a_run_folder_explains_itself() -> None:
    assert child_main.main([]) == child_main.USAGE


def test_every_backend_can_be_found() -> None:
    from trainer.backends import find

    for name in BACKENDS:
        assert callable(find(name).train)


def test_the_spec_survives_the_daemons_writing(stub_task: Callable[..., TrainTask], run_in: RunIn) -> None:
    task = stub_task(micro_batch=2)
    run = run_in("01-train", task)
    assert codec.to_plain(child_main.read_task(run.spec)) == codec.to_plain(task)
