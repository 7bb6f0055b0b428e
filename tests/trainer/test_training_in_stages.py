"""Trainings in stages on a tiny model, from rows on disk to the adapter: layers, resume points, ends, reports."""

import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from trainer_cases import progress_of, questions, results_of

from core.config import Config
from core.errors import ChildError
from core.tasks import RowsOf, ScoreModel, ScoreTask, TrainTask
from store.child import Stopped
from store.runs import TOKENS
from trainer import run as run_module
from trainer.backends import model, training
from trainer.backends.methods import new_trainee
from trainer.backends.peft import PeftBackend
from trainer.engine import TrainerEngine
from trainer.run import RunFolder

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:transformers.*")
RunIn = Callable[..., RunFolder]
Change = Callable[..., TrainTask]

RANK = 4  # of each layer
BARE = [{"name": "facts", "where": {"kind": "fact"}}, {"name": "style", "where": {"kind": "style"}}]
ON_TOP = [{**BARE[0], "layer": "knowledge", "r": RANK}, {**BARE[1], "layer": "preference", "r": RANK}]
BESIDE = [ON_TOP[0], {**ON_TOP[1], "beside": True}]
BOUNDARY, LAST = 4, 8  # each stage: 8 rows, 4 a step, 2 epochs


@pytest.fixture(autouse=True)
def every_step_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "REPORT_EVERY_S", 0.0)
    monkeypatch.setattr(training, "product_flops", lambda *rest: 1e12)  # measured, it takes longer than these trainings


@pytest.fixture
def task(tiny_config: Config, tiny_base: Path, drop: Callable[..., RowsOf]) -> Change:
    """16 train rows, facts and style in turn, and 4 of dev."""
    rows = [{**row, "metadata": {"kind": ("fact", "style")[number % 2]}} for number, row in enumerate(questions(20))]
    source = drop(rows, ["train"] * 16 + ["dev"] * 4, name="staged")

    def make(stages: list[dict[str, Any]], config: dict[str, Any] | None = None, **changes: Any) -> TrainTask:
        settings = tiny_config.model_dump(mode="json") | {"stages": stages}
        settings["training"]["boards"] = []
        for key, value in ({"lora": {"r": RANK, "alpha": 2 * RANK}} | (config or {})).items():
            settings[key] = {**settings[key], **value} if isinstance(value, dict) else value
        return TrainTask(**{"job": "job-1", "backend": "peft", "base": str(tiny_base), "rows": (source,), "settings": settings, **changes})

    return make


@pytest.fixture
def trained(task: Change, run_in: RunIn) -> Callable[..., RunFolder]:
    """A training to its end: the run folder."""

    def train(name: str, stages: list[dict[str, Any]], config: dict[str, Any] | None = None, **changes: Any) -> RunFolder:
        run = run_in(name)
        PeftBackend().train(task(stages, config, **changes), run)
        return run

    return train


def weights_of(run: RunFolder, step: int) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_file(run.root / f"checkpoints/step_{step:06d}/adapter_model.safetensors")
    return found


def report_of(run: RunFolder) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run.root / "report.json").read_text())
    return found


def bytes_of(run: RunFolder) -> dict[str, bytes]:
    """Every checkpoint and the newest resume point."""
    files = [*run.root.glob("checkpoints/*/*"), *(run.root / (results_of(run).checkpoint or "")).iterdir()]
    return {f"{path.parent.name}/{path.name}": path.read_bytes() for path in files}


# ---------------------------------------------------------------- stages and layers


def test_each_stage_has_its_rows_rate_and_epochs_and_the_report_tells_what_it_gained(trained: Any) -> None:
    stages = [{**BARE[0], "learning_rate": 1e-3, "epochs": 1}, {**BARE[1], "learning_rate": 4e-3}]
    run = trained("01-train", stages, {"training": {"scheduler": "constant"}})
    lines = progress_of(run)
    assert [line["stage_name"] for line in lines] == ["facts"] * 2 + ["style"] * 4
    assert [line["lr"] for line in lines] == [1e-3, 1e-3, 2e-3, 4e-3, 4e-3, 4e-3], "the second stage warms up anew"
    note = results_of(run)
    assert (note.steps, [candidate.step for candidate in note.candidates]) == (6, [1, 2, 4, 6])
    assert not (run.root / TOKENS).exists(), "rows that are chosen by what they say lie in memory"

    first, second = report_of(run)["stages"]
    losses = {candidate.step: candidate.dev_loss for candidate in note.candidates}
    assert (first["rows"], first["first_step"], first["last_step"]) == (8, 1, 2)
    assert (second["rows"], second["first_step"], second["last_step"]) == (8, 3, 6)
    seen = [(line["step"], line["dev_loss"], line["stage_name"]) for line in progress_of(run, "dev") if "dev_loss" in line]
    assert [step for step, *_ in seen] == [0, 1, 2, 4, 6]
    assert seen[0][1:] == (pytest.approx(first["began"], rel=1e-5), "facts")
    assert second["began"] == losses[2]
    assert second["best"] == min(losses[4], losses[6])
    text = (run.root / "report.md").read_text()
    assert "## Stages" in text
    assert f"| style | the whole adapter | 8 | 3 to 6 | {losses[2]:.4f} |" in text


def test_a_training_without_stages_says_nothing_of_them(trained: Any) -> None:
    run = trained("01-train", [], {"training": {"max_steps": 1}})
    assert "stage_name" not in progress_of(run)[0]
    assert "## Stages" not in (run.root / "report.md").read_text()


@pytest.mark.parametrize("packing", [True, False], ids=["fast path", "plain path"])
@pytest.mark.parametrize("stages", [ON_TOP, BESIDE], ids=["on top", "beside"])
def test_a_layer_leaves_the_earlier_ones_as_they_are_and_all_are_one_plain_lora(stages: Any, packing: bool, trained: Any, tiny_folder: Path) -> None:
    run = trained("01-train", stages, {"training": {"packing": packing, "weight_decay": 0.1}})
    assert ("fast" in run.path) == packing, run.path
    middle, end = weights_of(run, BOUNDARY), weights_of(run, LAST)
    for name in end:
        axis = 0 if ".lora_A." in name else 1
        early, late = (torch.split(weights, RANK, dim=axis) for weights in (middle[name], end[name]))
        assert torch.equal(early[0], late[0]), name
        assert not torch.equal(early[1], late[1]), name
        if axis:
            assert not early[1].any(), "what is to come adds nothing"

    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_folder), str(run.root / f"checkpoints/step_{LAST:06d}"))
    shape = loaded.peft_config["default"]
    assert (shape.r, shape.rank_pattern, shape.use_dora) == (2 * RANK, {}, False)
    state = loaded.state_dict()
    assert all(torch.equal(state[name.replace(".weight", ".default.weight")], tensor) for name, tensor in end.items())


def test_a_checkpoint_in_the_middle_of_a_stage_scores_what_the_training_saw(task: Change, trained: Any, run_in: RunIn) -> None:
    made = trained("01-train", BESIDE)
    seen = next(candidate for candidate in results_of(made).candidates if candidate.step == 6)
    asked, scoring = task(BESIDE), run_in("02-score")
    models = (ScoreModel(id="c6", adapter=str(made.root / seen.path)),)
    PeftBackend().score(ScoreTask(job="job-1", backend="peft", base=asked.base, rows=asked.rows, split="dev", models=models, settings=asked.settings), scoring)
    rows = [json.loads(line) for line in (scoring.root / scoring.scores["dev/c6"]).read_text().splitlines()[1:]]
    assert sum(row["loss"] for row in rows) / sum(row["tokens"] for row in rows) == pytest.approx(seen.dev_loss, rel=2e-3)


class Begun(PeftBackend):
    """Draws the ranks of every A by their number alone, so that a layer begins alike wherever it stands."""

    first_rank = 0

    def train(self, task: TrainTask, run: RunFolder) -> None:
        first = self.first_rank

        def begun(base: Path, config: Config) -> Any:
            made = new_trainee(base, model.choose_place(), config)
            for name, param in made.named_parameters():
                if ".lora_A." in name:
                    drawn = torch.randn(2 * RANK, param.shape[1], generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))
                    param.data.copy_(0.1 * drawn[first : first + len(param)])
            return made

        self.new_model = begun
        super().train(task, run)


def test_layers_side_by_side_are_those_that_were_trained_apart(task: Change, run_in: RunIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """In fp32: what is left is the order of sums, which AdamW enlarges where a gradient is nearly zero."""
    monkeypatch.setattr(model, "cpu_has_bf16", lambda: False)
    clipped = {"training": {"max_grad_norm": 0.05}}  # by the gradients of the layer that learns, and no others
    both, joined, stacked = {"lora": {"alpha": 4 * RANK}, **clipped}, run_in("joined"), run_in("stacked")
    Begun().train(task(BESIDE, both), joined)
    Begun().train(task(ON_TOP, both), stacked)
    apart = []
    for number, stage in enumerate(ON_TOP):  # of half the rank and half the alpha: the same scale
        run, backend = run_in(f"apart{number}"), Begun()
        backend.first_rank = number * RANK
        backend.train(task([stage], {"lora": {"alpha": 2 * RANK}, **clipped}), run)
        apart.append(weights_of(run, BOUNDARY))
    whole, other = weights_of(joined, LAST), weights_of(stacked, LAST)
    far, on_top = 0.0, 0.0
    for name, tensor in whole.items():
        expected = torch.cat([weights[name] for weights in apart], dim=0 if ".lora_A." in name else 1)
        far = max(far, float((tensor - expected).abs().max()))
        on_top = max(on_top, float((other[name] - expected).abs().max()))
    assert far < 1e-5
    assert on_top > 1e-3, "a layer on top of another learns something else"


# ---------------------------------------------------------------- resume


class StopAfter(RunFolder):
    """Asks for a stop once so many steps were reported."""

    def __init__(self, root: Path, step: int) -> None:
        super().__init__(root)
        self.stop_at = step

    def report(self, stage: Any, *, last: bool = False, **values: object) -> None:
        super().report(stage, last=last, **values)
        if stage == "train" and values["step"] == self.stop_at:
            self.stopping = True


CASES = {
    "bare": (BARE, {"lora": {"r": RANK, "alpha": 2 * RANK, "dropout": 0.1}}),
    "on top": (ON_TOP, {}),
    "beside": (BESIDE, {}),
    "with a wish": ([{**ON_TOP[0], "min_gain": -9.0, "patience": 2}, BESIDE[1]], {}),
}


@pytest.mark.parametrize("kind", ["bare", "with a wish", *(pytest.param(kind, marks=pytest.mark.full) for kind in ("on top", "beside"))])
def test_a_training_that_was_stopped_ends_with_the_same_bytes(kind: str, task: Change, trained: Any, run_in: RunIn) -> None:
    """Stopped within the second stage, and where the first one ends."""
    stages, config = CASES[kind]
    whole = bytes_of(trained("whole", stages, config))
    for stop_at in (BOUNDARY, BOUNDARY + 1):
        stopped = StopAfter(run_in(f"{stop_at}1-train").root, stop_at)
        with pytest.raises(Stopped):
            PeftBackend().train(task(stages, config), stopped)
        checkpoint = results_of(stopped).checkpoint
        assert checkpoint == f"resume/step_{stop_at:06d}"
        resumed = trained(f"{stop_at}2-train", stages, config, checkpoint=str(stopped.root / checkpoint))
        assert progress_of(resumed)[0]["step"] == stop_at + 1
        assert bytes_of(resumed) == whole, stop_at
        assert [stage["last_step"] for stage in report_of(resumed)["stages"]] == [BOUNDARY, LAST], "the stages of the run before are told too"


# ---------------------------------------------------------------- patience and success


@pytest.fixture
def dev_losses(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[int, float]], None]:
    """Lets the dev loss be told by the step, 1 where none is told."""

    def be(told: dict[int, float]) -> None:
        monkeypatch.setattr(training.Training, "_mean_held_out", lambda self: (told.get(self.run.steps, 1.0), 7))

    return be


IMPATIENT: list[dict[str, Any]] = [{**BARE[0], "epochs": 3, "patience": 1}, BARE[1]]  # 6 steps, then 4


def test_patience_in_the_first_stage_lets_the_second_begin(dev_losses: Any, trained: Any) -> None:
    dev_losses({0: 3.0, 2: 2.0, 4: 2.5})
    run = trained("01-train", IMPATIENT, {"training": {"checkpoints": 3}})
    assert [line["step"] for line in progress_of(run)] == [1, 2, 3, 4, 7, 8, 9, 10]
    assert "stage facts ended early after step 4" in " ".join(run.warnings)
    first, second = report_of(run)["stages"]
    assert (first["last_step"], first["began"], first["best"]) == (4, 3.0, 2.0)
    assert (second["began"], second["last_step"]) == (2.5, 10)


def test_a_stop_in_the_first_step_after_a_stage_that_ended_early_changes_nothing(
    dev_losses: Any, task: Change, trained: Any, run_in: RunIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    dev_losses({0: 3.0, 2: 2.0, 4: 2.5})
    more = {"training": {"checkpoints": 3}}
    whole = trained("whole", IMPATIENT, more)
    real = training.Training._step

    def halfway(self: training.Training, step: int) -> float | None:
        return None if step == 7 else real(self, step)

    monkeypatch.setattr(training.Training, "_step", halfway)
    stopped = run_in("01-train")
    with pytest.raises(Stopped):
        PeftBackend().train(task(IMPATIENT, more), stopped)
    monkeypatch.setattr(training.Training, "_step", real)
    assert results_of(stopped).checkpoint == "resume/step_000004"
    resumed = trained("02-train", IMPATIENT, more, checkpoint=str(stopped.root / "resume/step_000004"))
    assert [line["step"] for line in progress_of(resumed)] == [7, 8, 9, 10]
    assert bytes_of(resumed) == bytes_of(whole)


@pytest.mark.parametrize("patience", [0, 1])
def test_a_stage_that_gains_too_little_ends_the_training(patience: int, dev_losses: Any, trained: Any) -> None:
    dev_losses({0: 3.0, 2: 2.8, 4: 2.9, 6: 2.8})
    run = trained("01-train", [{**IMPATIENT[0], "min_gain": 0.5, "patience": patience}, BARE[1]], {"training": {"checkpoints": 3}})
    last = 4 if patience else 6
    note = results_of(run)
    assert (note.steps, note.total_steps, note.candidates[-1].step) == (last, last, last)
    assert "lowered the dev loss by 0.2000 and was to by 0.5" in " ".join(run.warnings)
    text = (run.root / "report.md").read_text()
    assert "| 3.0000 | 2.8000 | 0.2000 | 0.5 |" in text
    assert "| style | the whole adapter | 8 | not trained |" in text
    assert "the later stages are not trained" in text


# ---------------------------------------------------------------- what cannot be


@pytest.mark.parametrize(
    ("stages", "config", "code"),
    [
        (ON_TOP, {"serving": {"max_rank": 2 * RANK - 1}}, "LAYERS_TOO_LARGE"),
        (ON_TOP, {"lora": {"use_dora": True}}, "LAYERS_UNFIT"),
        (ON_TOP, {"method": "full"}, "LAYERS_UNFIT"),
        ([{"name": "dates", "where": {"kind": "date"}}], {}, "STAGE_EMPTY"),
    ],
)
def test_stages_that_cannot_be_are_refused_before_the_base_is_loaded(
    stages: Any, config: dict[str, Any], code: str, trained: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "new_trainee", lambda *rest: pytest.fail("it was loaded"))
    with pytest.raises(ChildError) as caught:
        trained("01-train", stages, config)
    assert caught.value.code == code
    assert caught.value.hint


def test_layers_begin_on_the_base(task: Change, run_in: RunIn, tmp_path: Path) -> None:
    with pytest.raises(ChildError, match="the stages train layers") as caught:
        TrainerEngine(task(ON_TOP, start=str(tmp_path)), run_in("01-train")).run()
    assert caught.value.code == "START_UNFIT"


# ---------------------------------------------------------------- on from an adapter


def test_a_training_from_an_adapter_repeats_a_few_old_rows_and_the_report_counts_them(
    task: Change, trained: Any, run_in: RunIn, drop: Callable[..., RowsOf]
) -> None:
    before = trained("before", [], {"training": {"max_steps": 2}})
    start = before.root / "checkpoints/step_000002"
    new = drop([{**row, "metadata": {"kind": "fact"}} for row in questions(28)[20:]], name="new")
    asked = task([], {"training": {"replay_share": 0.2}, "lora": {"r": 64, "alpha": 7}})
    more: dict[str, Any] = {"rows": (*asked.rows, new), "start": str(start), "learnt": ("staged",), "start_reason": "goes on from the live adapter"}
    run = run_in("01-train")
    PeftBackend().train(TrainTask(job="j", backend="peft", base=asked.base, settings=asked.settings, **more), run)
    told = report_of(run)
    assert (told["train_rows"], told["repeated_rows"], told["dev_rows"]) == (10, 2, 4)
    assert "2 of them repeated" in (run.root / "report.md").read_text()
    assert "Goes on from the live adapter." in (run.root / "report.md").read_text()
    shape = json.loads((run.root / results_of(run).candidates[-1].path / "adapter_config.json").read_text())
    assert (shape["r"], shape["lora_alpha"]) == (RANK, 2 * RANK), "those of the adapter that it goes on from"


@pytest.mark.parametrize("lora", [{"targets": "q_proj"}, {"use_rslora": True}, {"use_dora": True}])
def test_an_adapter_of_another_make_is_no_start(lora: dict[str, Any], task: Change, trained: Any, run_in: RunIn) -> None:
    before = trained("before", [], {"training": {"max_steps": 1}})
    with pytest.raises(ChildError) as caught:
        PeftBackend().train(task([], {"lora": lora}, start=str(before.root / "checkpoints/step_000001")), run_in("01-train"))
    assert caught.value.code == "ADAPTER_UNFIT"
    assert caught.value.hint
