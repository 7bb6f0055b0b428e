"""Score files, on a tiny model and with the stub."""

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from trainer_cases import chat, questions, results_of

from core.config import Config
from core.errors import ChildError
from core.exits import ChildExit
from core.tasks import RowsOf, ScoreModel, ScoreTask, TrainTask
from rendering.rows import read_rows
from rendering.specs import Message
from rendering.tokens import Renderer
from store.bases import STUB_BASE, read_base
from trainer.backends.peft import PeftBackend
from trainer.backends.stub import StubBackend
from trainer.probes import read_prompts
from trainer.run import RunFolder
from trainer.scores import shift_rows

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:transformers.*")
RunIn = Callable[..., RunFolder]


def lines_of(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    header, *rows = (json.loads(line) for line in path.read_text().splitlines())
    return header, rows


@pytest.fixture
def settings(tiny_config: Config) -> dict[str, Any]:
    return tiny_config.model_dump(mode="json")


@pytest.fixture
def trained(tiny_base: Path, train_drop: RowsOf, settings: dict[str, Any], run_in: RunIn) -> RunFolder:
    run = run_in("01-train")
    PeftBackend().train(TrainTask(job="job-1", backend="peft", base=str(tiny_base), rows=(train_drop,), settings=settings), run)
    return run


@pytest.fixture
def models(trained: RunFolder) -> tuple[ScoreModel, ...]:
    """The base and both checkpoints."""
    candidates = results_of(trained).candidates
    return (ScoreModel(id="base", adapter=None), *(ScoreModel(id=found.id, adapter=str(trained.root / found.path)) for found in candidates))


def test_each_model_gets_a_file_with_its_rows_in_order(
    models: tuple[ScoreModel, ...], trained: RunFolder, tiny_base: Path, train_drop: RowsOf, settings: dict[str, Any], run_in: RunIn
) -> None:
    run = run_in("02-score")
    PeftBackend().score(ScoreTask(job="job-1", backend="peft", base=str(tiny_base), rows=(train_drop,), split="dev", models=models, settings=settings), run)
    assert results_of(run).scores == {f"dev/{model.id}": f"scores/dev-{model.id}.jsonl" for model in models}
    means = []
    for model in models:
        header, rows = lines_of(run.root / f"scores/dev-{model.id}.jsonl")
        assert header == {
            "header": True,
            "model": model.id,
            "split": "dev",
            "backend": "peft",
            "base_sha256": read_base(tiny_base).source_sha256,
            "settings": header["settings"],
            "made_up": False,
        }
        assert [row["line"] for row in rows] == [13, 14, 15, 16]
        assert {tuple(row) for row in rows} == {("drop", "line", "group", "loss", "tokens", "correct")}
        means.append(sum(row["loss"] for row in rows) / sum(row["tokens"] for row in rows))
    assert means[0] == pytest.approx(math.log(300), rel=0.05)  # the base is random
    dev_losses = [found.dev_loss for found in results_of(trained).candidates]
    assert means[1:] == pytest.approx(dev_losses, rel=1e-3)  # the training saw the same rows through the same forward pass
    assert means[2] < means[0]


def test_the_order_of_the_models_does_not_matter(
    models: tuple[ScoreModel, ...], tiny_base: Path, train_drop: RowsOf, settings: dict[str, Any], run_in: RunIn
) -> None:
    """An adapter is really taken off again before the next model is scored."""
    texts = []
    for name, order in (("02-score", models), ("03-score", models[::-1])):
        run = run_in(name)
        task = ScoreTask(job="job-1", backend="peft", base=str(tiny_base), rows=(train_drop,), split="gate", models=order, settings=settings)
        PeftBackend().score(task, run)
        texts.append({path.name: path.read_text() for path in (run.root / "scores").iterdir()})
    assert texts[0] == texts[1]
    assert len({text.split("\n", 1)[1] for text in texts[0].values()}) == 3


def test_shift_and_probe_are_written_for_the_model_that_asks(
    models: tuple[ScoreModel, ...], tiny_base: Path, train_drop: RowsOf, drop: Callable[..., RowsOf], settings: dict[str, Any], run_in: RunIn
) -> None:
    run = run_in("02-score")
    earlier = drop([chat("An earlier question", "An earlier answer")], ["gate"], name="drop-0")
    best = models[-1]
    task = ScoreTask(
        job="job-1",
        backend="peft",
        base=str(tiny_base),
        rows=(earlier, train_drop),
        split="gate",
        models=(models[0], best),
        settings=settings,
        probe=best.id,
        shift=best.id,
        this_drop=train_drop.drop,
    )
    PeftBackend().score(task, run)
    assert run.scores[f"shift/{best.id}"] == f"scores/shift-gate-{best.id}.jsonl"
    header, rows = lines_of(run.root / run.scores[f"shift/{best.id}"])
    assert header["model"] == best.id
    assert [row["line"] for row in rows] == [17, 18, 19, 20]  # of this drop only
    own = {row["line"]: row for row in lines_of(run.root / run.scores[f"gate/{best.id}"])[1] if row["drop"] == train_drop.drop}
    for row in rows:
        assert row["loss_own"] == own[row["line"]]["loss"]  # one turn: the whole loss is that of the last turn
        assert row["tokens"] == own[row["line"]]["tokens"]
        assert row["loss_shifted"] != row["loss_own"]
    probe = [json.loads(line) for line in (run.root / "probe.jsonl").read_text().splitlines()]
    renderer = Renderer.load(tiny_base)
    assert [line["prompt"] for line in probe] == read_prompts()
    for line in probe:
        assert line["prompt_ids"] == renderer.prompt([Message("user", line["prompt"])])
        for side in ("base", "adapter"):
            assert len(line[side]["ids"]) == len(line[side]["logprobs"]) == 8
            assert all(value <= 0 for value in line[side]["logprobs"])
    assert any(line["base"]["logprobs"] != line["adapter"]["logprobs"] for line in probe)


def test_the_probe_is_what_a_plain_transformers_and_peft_compute(
    models: tuple[ScoreModel, ...], tiny_base: Path, tiny_folder: Path, train_drop: RowsOf, settings: dict[str, Any], run_in: RunIn
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from trainer.backends.model import choose_place

    run = run_in("02-score")
    best = models[-1]
    task = ScoreTask(job="j", backend="peft", base=str(tiny_base), rows=(train_drop,), split="gate", models=(best,), settings=settings, probe=best.id)
    PeftBackend().score(task, run)
    assert best.adapter is not None
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=choose_place().dtype), best.adapter).eval()
    for text in (run.root / "probe.jsonl").read_text().splitlines():
        line = json.loads(text)
        ids = line["prompt_ids"] + line["adapter"]["ids"]
        with torch.inference_mode():
            logprobs = model(input_ids=torch.tensor([ids])).logits[0].float().log_softmax(-1)
        start = len(line["prompt_ids"])
        found = [float(logprobs[start - 1 + place, token]) for place, token in enumerate(line["adapter"]["ids"])]
        assert found == pytest.approx(line["adapter"]["logprobs"], abs=1e-5)


def test_an_adapter_of_another_base_is_a_bad_spec(
    models: tuple[ScoreModel, ...], tiny_base: Path, train_drop: RowsOf, settings: dict[str, Any], run_in: RunIn, tmp_path: Path
) -> None:
    assert models[1].adapter is not None
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    shape = json.loads(Path(models[1].adapter, "adapter_config.json").read_text()) | {"target_modules": ["q_proj"]}
    (foreign / "adapter_config.json").write_text(json.dumps(shape))
    (foreign / "adapter_model.safetensors").write_bytes(Path(models[1].adapter, "adapter_model.safetensors").read_bytes())
    bad = ScoreModel(id="foreign", adapter=str(foreign))
    with pytest.raises(ChildError, match="foreign") as caught:
        PeftBackend().score(
            ScoreTask(job="j", backend="peft", base=str(tiny_base), rows=(train_drop,), split="dev", models=(bad,), settings=settings), run_in("02-score")
        )
    assert (caught.value.exit_code, caught.value.code) == (ChildExit.BAD_SPEC, "ADAPTER_UNREADABLE")


def test_every_row_gets_the_context_of_another_group(drop: Callable[..., RowsOf]) -> None:
    rows = read_rows([drop(questions(7))])
    shifted = shift_rows(rows)
    assert sorted(index for index, _ in shifted) == list(range(7))
    contexts = []
    for index, row in shifted:
        assert row.messages[-1] == rows[index].messages[-1]
        assert row.messages[:-1] != rows[index].messages[:-1]
        contexts.append(row.messages[0].content)
    assert len(set(contexts)) == 7  # nobody's context is used twice


def test_a_context_never_comes_from_the_same_group(drop: Callable[..., RowsOf]) -> None:
    source = drop(questions(6))
    groups = [hashlib.sha256(text.encode()).hexdigest() for text in "aabbbc"]
    index = [{"line": number + 1, "group": group, "split": "dev"} for number, group in enumerate(groups)]
    Path(source.folder, "index.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in index))
    rows = read_rows([source])
    by_question = {row.messages[0].content: row.group for row in rows}
    assert all(by_question[row.messages[0].content] != rows[place].group for place, row in shift_rows(rows))
    assert shift_rows(rows[:2]) == []


def test_the_stub_makes_up_scores_in_which_later_steps_are_slightly_better(
    drop: Callable[..., RowsOf], settings: dict[str, Any], run_in: RunIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.backends.stub.STEP_S", 0.0)
    rows = drop(questions(200), ["train"] * 100 + ["dev"] * 50 + ["gate"] * 50)
    run = run_in("01-train")
    StubBackend().train(TrainTask(job="job-1", backend="stub", base="", rows=(rows,), settings=settings), run)
    candidates = results_of(run).candidates
    assert [found.step for found in candidates] == [25, 50]
    models = (ScoreModel(id="base", adapter=None), *(ScoreModel(id=found.id, adapter=str(run.root / found.path)) for found in candidates))
    best = models[-1].id
    scored = run_in("02-score")
    task = ScoreTask(
        job="job-1", backend="stub", base="", rows=(rows,), split="gate", models=models, settings=settings, probe=best, shift=best, this_drop=rows.drop
    )
    StubBackend().score(task, scored)
    means = []
    for model in models:
        header, lines = lines_of(scored.root / f"scores/gate-{model.id}.jsonl")
        assert (header["made_up"], header["base_sha256"], header["backend"]) == (True, STUB_BASE, "stub")
        assert [line["line"] for line in lines] == list(range(151, 201))
        means.append(sum(line["loss"] for line in lines) / sum(line["tokens"] for line in lines))
    assert means[0] > means[1] > means[2] > means[0] - 0.5
    _, shifted = lines_of(scored.root / f"scores/shift-gate-{best}.jsonl")
    assert all(line["loss_shifted"] > line["loss_own"] for line in shifted)
    probe = [json.loads(line) for line in (scored.root / "probe.jsonl").read_text().splitlines()]
    assert len(probe) == 8
    assert all(line["made_up"] is True for line in probe)
