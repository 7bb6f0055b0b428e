"""What a training does about numbers that are none, memory that is short, data that changed, and dev losses that no longer fall."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from trainer_cases import progress_of, questions, results_of

from core.config import Config
from core.errors import ChildError
from core.exits import ChildExit
from core.tasks import RowsOf, ScoreModel, ScoreTask, TrainTask
from store.child import Stopped
from trainer import run as run_module
from trainer.backends import scoring, training
from trainer.backends.objective import TokenObjective
from trainer.backends.peft import PeftBackend
from trainer.backends.training import Training
from trainer.examples import Example
from trainer.memory import STEPS
from trainer.run import RunFolder

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:transformers.*")
RunIn = Callable[..., RunFolder]
Change = Callable[..., TrainTask]


@pytest.fixture(autouse=True)
def every_step_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "REPORT_EVERY_S", 0.0)


@pytest.fixture
def task(tiny_config: Config, tiny_base: Path, train_drop: RowsOf) -> Change:
    """A training of 12 rows, 6 steps; changes are keys of the config or of the task."""

    def make(*rows: RowsOf, config: dict[str, Any] | None = None, **changes: Any) -> TrainTask:
        settings = tiny_config.model_dump(mode="json")
        for key, value in (config or {}).items():
            settings[key] = {**settings[key], **value} if isinstance(value, dict) else value
        return TrainTask(**{"job": "job-1", "backend": "peft", "base": str(tiny_base), "rows": rows or (train_drop,), "settings": settings, **changes})

    return make


def losses_of(run: RunFolder) -> dict[int, float]:
    return {line["step"]: line["loss"] for line in progress_of(run) if "loss" in line}


def spoil(monkeypatch: pytest.MonkeyPatch, wrong: Callable[[Sequence[Example]], Any]) -> None:
    """Let the loss of these rows be what `wrong` says or raises, where that is not None."""
    real = TokenObjective.loss_sum

    def loss_sum(self: TokenObjective, examples: Sequence[Example]) -> torch.Tensor:
        made = wrong(examples)
        return real(self, examples) if made is None else real(self, examples) * made

    monkeypatch.setattr(TokenObjective, "loss_sum", loss_sum)


# ---------------------------------------------------------------- numbers that are none


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_the_training_and_names_its_row(number: float, task: Change, run_in: RunIn, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_in("01-train")
    spoil(monkeypatch, lambda examples: number if run.steps >= 4 and any(example.row.line == 7 for example in examples) else None)
    with pytest.raises(ChildError) as caught:
        PeftBackend().train(task(), run)
    assert (caught.value.code, caught.value.exit_code) == ("LOSS_NOT_FINITE", ChildExit.BAD_DATA)
    assert caught.value.what.endswith("its rows: line 7 of drop 'drop-1'")
    assert "plus" not in caught.value.what + caught.value.hint, "never the text"
    assert [candidate.step for candidate in results_of(run).candidates] == [3], "the last good checkpoint is kept"


def test_a_gradient_that_is_no_number_names_all_rows_of_its_batch(task: Change, run_in: RunIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda params, most: torch.tensor(float("inf")))
    with pytest.raises(ChildError, match="the gradient of step 1 is not a finite number") as caught:
        PeftBackend().train(task(), run_in("01-train"))
    assert caught.value.what.count("line ") == 4


def test_gradients_that_explode_are_clipped_counted_and_told_once(
    task: Change, run_in: RunIn, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = run_in("01-train")
    PeftBackend().train(task(config={"training": {"max_grad_norm": 1e-4}}), run)
    assert progress_of(run)[-1]["clipped"] == 6
    assert caplog.text.count("gradients explode, 5 in a row") == 1
    assert "learning_rate" in next(line["warning"] for line in progress_of(run) if "warning" in line)


# ---------------------------------------------------------------- memory


def test_a_step_that_runs_out_of_memory_is_made_again_with_half_the_rows(task: Change, run_in: RunIn, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, short = run_in("01-train"), run_in("02-train")
    PeftBackend().train(task(), plain)
    states: list[torch.Tensor] = []
    monkeypatch.setattr(TokenObjective, "begin", lambda self, examples: states.append(torch.get_rng_state()))

    def fail(examples: Sequence[Example]) -> None:
        torch.rand(3)  # what dropout would draw
        if short.steps >= 2 and len(examples) > 2:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")

    spoil(monkeypatch, fail)
    PeftBackend().train(task(), short)
    assert losses_of(short) == pytest.approx(losses_of(plain), rel=5e-3), "no step is lost, and the effective batch is the same"
    assert len(states) == 7
    assert torch.equal(states[2], states[3]), "the step begins again where it began"
    changes = [json.loads(line) for line in (short.root / STEPS).read_text().splitlines()]
    assert [(change["step"], change["rows"]) for change in changes] == [(1, 4), (3, 2)]
    assert [line["micro_batch"] for line in progress_of(short)] == [4, 4, 2, 2, 2, 2]


def test_out_of_memory_with_one_row_ends_the_child(task: Change, run_in: RunIn, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(examples: Sequence[Example]) -> None:
        raise MemoryError

    spoil(monkeypatch, fail)
    with pytest.raises(ChildError, match=r"with one row at a time; the longest has [0-9]+ tokens") as caught:
        PeftBackend().train(task(), run_in("01-train"))
    assert caught.value.exit_code is ChildExit.OUT_OF_MEMORY


def test_out_of_memory_in_the_evaluation_leaves_the_training_batch_alone(
    task: Change, run_in: RunIn, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plain, short = run_in("01-train"), run_in("02-train")
    PeftBackend().train(task(), plain)
    real = TokenObjective.held_out

    def held_out(self: TokenObjective, examples: Sequence[Example]) -> tuple[float, int]:
        if len(examples) > 1:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")
        return real(self, examples)

    monkeypatch.setattr(TokenObjective, "held_out", held_out)
    PeftBackend().train(task(), short)
    assert losses_of(short) == losses_of(plain)
    assert results_of(short).candidates[-1].dev_loss == pytest.approx(results_of(plain).candidates[-1].dev_loss, rel=1e-3)
    assert {line["micro_batch"] for line in progress_of(short)} == {4}
    assert "out of memory in the evaluation" in caplog.text


def test_out_of_memory_while_scoring_goes_on_with_fewer_rows(task: Change, run_in: RunIn, monkeypatch: pytest.MonkeyPatch, train_drop: RowsOf) -> None:
    asked = task()
    score = ScoreTask(
        job="job-1", backend="peft", base=asked.base, rows=asked.rows, split="dev", models=(ScoreModel(id="base", adapter=None),), settings=asked.settings
    )
    plain, short = run_in("01-score"), run_in("02-score")
    PeftBackend().score(score, plain)
    real = scoring.answer_scores

    def answer_scores(forward: Any, batch: Sequence[Example]) -> Any:
        if len(batch) > 2:
            raise MemoryError
        return real(forward, batch)

    monkeypatch.setattr(scoring, "answer_scores", answer_scores)
    PeftBackend().score(score, short)
    rows = [[json.loads(line) for line in (run.root / "scores/dev-base.jsonl").read_text().splitlines()][1:] for run in (plain, short)]
    assert [row["line"] for row in rows[1]] == [row["line"] for row in rows[0]] == [13, 14, 15, 16]
    assert [row["loss"] for row in rows[1]] == pytest.approx([row["loss"] for row in rows[0]], rel=1e-2)


# ---------------------------------------------------------------- few rows, and enough of them


def test_one_row_alone_can_be_trained_on(task: Change, run_in: RunIn, drop: Callable[..., RowsOf], caplog: pytest.LogCaptureFixture) -> None:
    run = run_in("01-train")
    PeftBackend().train(task(drop(questions(1), name="one"), config={"batch_size": 1, "training": {"epochs": 4.0, "patience": 1}}), run)
    assert (run.steps, [candidate.dev_loss for candidate in results_of(run).candidates]) == (4, [None, None])
    assert "there are no dev rows: the last checkpoint counts as the best" in caplog.text


@pytest.fixture
def dev_losses(monkeypatch: pytest.MonkeyPatch) -> None:
    """The dev loss is best after the second of six checkpoints."""
    values = {1: 3.0, 2: 2.0, 3: 2.5, 4: 2.4, 5: 1.0, 6: 1.0}
    monkeypatch.setattr(Training, "_dev_loss", lambda self: (values[self.run.steps], 10))


@pytest.mark.usefixtures("dev_losses")
def test_a_training_ends_once_patience_is_used_up(task: Change, run_in: RunIn, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    run = run_in("01-train")
    PeftBackend().train(task(config={"training": {"checkpoints": 6, "patience": 2}}), run)
    assert (run.steps, run.total_steps) == (4, 4)
    assert "ended early after step 4: the dev loss was best at step 2" in caplog.text
    assert progress_of(run, "dev")[-1]["ended_early"] is True


@pytest.mark.usefixtures("dev_losses")
def test_patience_outlives_a_stop(task: Change, run_in: RunIn, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {"training": {"checkpoints": 6, "patience": 2}}
    stopped, resumed, again = run_in("01-train"), run_in("02-train"), run_in("03-train")
    monkeypatch.setattr(RunFolder, "rest", lambda self: setattr(self, "stopping", self is stopped and self.steps == 3))
    with pytest.raises(Stopped):
        PeftBackend().train(task(config=asked), stopped)
    PeftBackend().train(task(config=asked, checkpoint=str(stopped.root / "resume/step_000003")), resumed)
    assert resumed.steps == 4
    PeftBackend().train(task(config=asked, checkpoint=str(resumed.root / "resume/step_000004")), again)
    assert (again.steps, again.total_steps) == (4, 4), "it had ended"


# ---------------------------------------------------------------- another training


def test_going_on_by_hand_with_other_settings_or_rows_is_refused_with_the_difference(
    task: Change, train_drop: RowsOf, run_in: RunIn, drop: Callable[..., RowsOf], caplog: pytest.LogCaptureFixture
) -> None:
    first = run_in("01-train")
    PeftBackend().train(task(config={"training": {"max_steps": 2}}), first)
    newest = str(first.root / "resume/step_000002")
    more = drop(questions(3), name="drop-2")
    changed = {"learning_rate": 1e-3, "lora": {"r": 8}, "training": {"max_steps": 2, "threads": 1, "micro_batch": 1}}
    with pytest.raises(ChildError) as caught:
        PeftBackend().train(task(train_drop, more, config=changed, checkpoint=newest, resume_by_hand=True), run_in("02-train"))
    assert (caught.value.code, caught.value.exit_code) == ("RESUME_DIFFERENT", ChildExit.BAD_SPEC)
    assert "drop 'drop-2' was not there before; learning_rate was 0.005 and is 0.001; lora.r was 16 and is 8" in caught.value.what
    assert "micro_batch" not in caught.value.what
    PeftBackend().train(task(train_drop, more, config=changed, checkpoint=newest), run_in("03-train"))
    assert "learning_rate was 0.005 and is 0.001" in caplog.text
    assert "starting anew" in caplog.text


# ---------------------------------------------------------------- weights


def test_a_row_of_a_fractional_weight_pulls_by_that_fraction(task: Change, run_in: RunIn, drop: Callable[..., RowsOf], monkeypatch: pytest.MonkeyPatch) -> None:
    """The gradient of both rows is the mean of their own ones, weighted by weight x learnt tokens."""
    from trainer.backends import model

    monkeypatch.setattr(model, "cpu_has_bf16", lambda: False)
    seen: dict[str, dict[str, torch.Tensor]] = {}
    learnt: dict[str, int] = {}

    def keep(self: Training, step: int) -> float:
        seen[self.run.root.name] = {name: param.grad.clone() for name, param in self.params.items() if param.grad is not None}
        learnt[self.run.root.name] = self.setup.train.totals.learnt
        self.run.stopping = True
        return 1.0

    monkeypatch.setattr(training.Training, "_update", keep)
    one, other = questions(20)[4], {**questions(20)[12], "weight": 0.25}
    for name, rows in {"one": [one], "other": [other], "both": [one, other]}.items():
        with pytest.raises(Stopped):
            PeftBackend().train(task(drop(rows, name=name), config={"training": {"epochs": 5.0}}), run_in(name))
    own, less = learnt["one"] * 1.0, learnt["other"] * 0.25
    for name, gradient in seen["both"].items():
        expected = (own * seen["one"][name] + less * seen["other"][name]) / (own + less)
        torch.testing.assert_close(gradient, expected, atol=1e-6, rtol=1e-4, msg=name)
