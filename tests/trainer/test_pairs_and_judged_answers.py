"""Pairs and judged answers on a tiny model: what is learnt of them, what is left out or refused, and how held-out ones are scored."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from trainer_cases import TINY, chat, progress_of, results_of

from core.config import Config
from core.errors import ChildError
from core.exits import ChildExit
from core.tasks import RowsOf, ScoreModel, ScoreTask, TrainTask
from rendering.chat import ChatTemplate
from rendering.rows import Row, read_rows
from rendering.tokens import Renderer
from store.child import Stopped
from trainer import run as run_module
from trainer.backends.peft import PeftBackend
from trainer.examples import encode_row, encode_rows, require_trainable
from trainer.objectives import learnt_as, require_learnable, with_seconds
from trainer.run import RunFolder

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:transformers.*")
Drop = Callable[..., RowsOf]
RunIn = Callable[..., RunFolder]
TURNS = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}, {"role": "user", "content": "Bye?"}]


@pytest.fixture
def renderer() -> Renderer:
    return Renderer(Tokenizer.from_file(str(TINY / "tokenizer.json")), ChatTemplate((TINY / "chat_template.jinja").read_text()), "<|im_end|>")


def pairs(count: int) -> list[dict[str, Any]]:
    return [{"prompt": f"What is {n} plus {n}?", "chosen": f"It is {2 * n}.", "rejected": f"No idea about {n}, sorry."} for n in range(count)]


def judged(count: int) -> list[dict[str, Any]]:
    good, bad = "It is certain.", "Who knows?"
    return [{"prompt": f"What is {n} plus {n}?", "completion": good if n % 2 else bad, "label": bool(n % 2)} for n in range(count)]


def rows_of(source: RowsOf, schema_id: str, **config: Any) -> list[Row]:
    return learnt_as(read_rows([replace(source, schema_id=schema_id)]), Config.model_validate(config))


def learnt(renderer: Renderer, example: Any) -> str:
    return renderer.decode([example.ids[index] for index in example.learnt], skip_special=False)


# --- what is learnt


def test_of_a_pair_only_the_answers_are_compared_and_both_are_read_whole(renderer: Renderer, drop: Drop) -> None:
    source = drop([{"prompt": TURNS, "chosen": "See you.", "rejected": "Go away."}])
    (example,) = encode_rows(renderer, rows_of(source, "preference_v1"), 1_000).kept
    assert [learnt(renderer, one) for one in example.sequences] == ["See you.<|im_end|>", "Go away.<|im_end|>"]
    assert all("Hello<|im_end|>" in renderer.decode(one.ids, skip_special=False) for one in example.sequences), "the prompt's own answer is context"


def test_of_a_judged_answer_the_prompt_is_context_and_another_rows_prompt_is_its_measure(renderer: Renderer, drop: Drop) -> None:
    source = drop([{"prompt": TURNS, "completion": "See you.", "label": True}, {"prompt": "2 + 2?", "completion": "5", "label": False}])
    found = with_seconds(encode_rows(renderer, rows_of(source, "unpaired_v1"), 1_000), renderer, 1_000)
    first = found.kept[0]
    assert (learnt(renderer, first), first.sequences) == ("See you.<|im_end|>", (first,))
    assert first.second is not None
    assert learnt(renderer, first.second) == "See you.<|im_end|>"
    assert "2 + 2?" in renderer.decode(first.second.ids)
    assert with_seconds(encode_rows(renderer, rows_of(source, "unpaired_v1"), 1_000), renderer, 5).kept[0].second is None, "it would not fit"


@pytest.mark.parametrize(
    ("schema_id", "config", "expected"),
    [
        ("preference_v1", {}, "dpo"),
        ("preference_v1", {"objective": "orpo"}, "orpo"),
        ("preference_v1", {"objective": "sft"}, "sft"),
        ("correction_v1", {}, "sft"),
        ("correction_v1", {"training": {"corrections": "preference"}}, "dpo"),
        ("correction_v1", {"training": {"corrections": "preference"}, "objective": "orpo"}, "orpo"),
    ],
)
def test_the_objective_follows_schema_and_config(drop: Drop, schema_id: str, config: dict[str, Any], expected: str) -> None:
    texts = {"preference_v1": {"chosen": "good", "rejected": "bad"}, "correction_v1": {"correction": "good", "model_output": "bad"}}[schema_id]
    (row,) = rows_of(drop([{"prompt": "q", **texts}]), schema_id, **config)
    assert (row.objective, row.messages[-1].content) == (expected, "good")
    assert (row.rejected is None) == (expected == "sft"), "what is learnt as one answer brings no other"


def test_with_sft_only_the_good_answers_are_imitated(drop: Drop) -> None:
    rows = rows_of(drop(judged(6)), "unpaired_v1", objective="sft")
    assert [(row.objective, row.messages[-1].content) for row in rows] == [("sft", "It is certain.")] * 3


def test_an_objective_that_fits_no_row_is_refused_with_the_drops_named(drop: Drop) -> None:
    with pytest.raises(ChildError, match=r"'kto' fits no row.*drop-1.*preference_v1") as caught:
        rows_of(drop(pairs(2)), "preference_v1", objective="kto")
    assert (caught.value.code, caught.value.exit_code) == ("OBJECTIVE_UNFIT", ChildExit.BAD_DATA)
    mixed = [drop([chat("q", "a")], name="talk"), replace(drop(pairs(2), name="pairs"), schema_id="preference_v1")]
    assert [row.objective for row in learnt_as(read_rows(mixed), Config.model_validate({"objective": "orpo"}))] == ["sft", "orpo", "orpo"]


# --- what is left out or refused


def test_a_pair_whose_answers_are_the_same_tokens_teaches_nothing(renderer: Renderer, drop: Drop) -> None:
    """A template that strips its turns makes them equal; the gate saw two texts."""
    template = (TINY / "chat_template.jinja").read_text().replace("message['content']", "message['content'] | trim")
    assert "trim" in template
    stripping = Renderer(renderer.tokenizer, ChatTemplate(template), "<|im_end|>")
    source = drop([{"prompt": "q", "chosen": "same", "rejected": "same "}])
    found = encode_rows(stripping, rows_of(source, "preference_v1"), 1_000)
    assert (found.kept, found.silent) == ([], 1)
    with pytest.raises(ChildError, match="none of 1 train rows") as caught:
        require_trainable(found, 1_000, 0.05)
    assert "differ once they are rendered" in caught.value.hint
    assert len(encode_rows(renderer, rows_of(source, "preference_v1"), 1_000).kept) == 1


def test_a_pair_is_as_long_as_its_longer_answer(renderer: Renderer, drop: Drop) -> None:
    source = drop([{"prompt": "q", "chosen": "yes", "rejected": "no " * 60}])
    found = encode_rows(renderer, rows_of(source, "preference_v1"), 60)
    assert (found.overlong, found.kept) == (1, [])


@pytest.mark.parametrize("label", [True, False])
def test_judged_answers_of_one_label_are_refused_with_what_else_to_do(renderer: Renderer, drop: Drop, label: bool) -> None:
    source = drop([{"prompt": f"q{n}", "completion": "a", "label": label} for n in range(3)])
    with pytest.raises(ChildError, match=f"all 3 judged answers .* {'good' if label else 'bad'} ones") as caught:
        require_learnable(encode_rows(renderer, rows_of(source, "unpaired_v1"), 1_000))
    assert caught.value.code == "ONE_LABEL"
    assert "other label" in caught.value.hint
    require_learnable(encode_rows(renderer, rows_of(drop(judged(4), name="both"), "unpaired_v1"), 1_000))


def test_pictures_still_stop_a_training(renderer: Renderer, drop: Drop) -> None:
    (row,) = read_rows([replace(drop([{**chat("What is it?", "A cat."), "images": []}]), schema_id="vision_v1")])
    with pytest.raises(ChildError, match="vision_v1") as caught:
        encode_row(renderer, row)
    assert caught.value.code == "OBJECTIVE_UNTRAINED"


# --- a whole training and its scores


@pytest.fixture
def train(tiny_config: Config, tiny_base: Path, run_in: RunIn, monkeypatch: pytest.MonkeyPatch) -> Callable[..., RunFolder]:
    monkeypatch.setattr(run_module, "REPORT_EVERY_S", 0.0)

    def start(*sources: RowsOf, name: str = "01-train", run: RunFolder | None = None, checkpoint: str | None = None, **config: Any) -> RunFolder:
        settings = tiny_config.model_dump(mode="json") | {"learning_rate": 2e-2} | config
        settings["training"] = {**tiny_config.training.model_dump(mode="json"), "epochs": 4.0, "beta": 0.5, **config.get("training", {})}
        origins = {"learning_rate": "config.json", "batch_size": "config.json", "training.epochs": "config.json"}
        run = run or run_in(name)
        task = TrainTask(job="job-1", backend="peft", base=str(tiny_base), rows=sources, settings=settings, origins=origins, checkpoint=checkpoint)
        PeftBackend().train(task, run)
        return run

    return start


def score(run: RunFolder, tiny_base: Path, config: Config, run_in: RunIn, source: RowsOf, objective: str = "auto") -> dict[str, list[dict[str, Any]]]:
    """Score base and last checkpoint on the gate split: model -> lines."""
    last = results_of(run).candidates[-1]
    models = (ScoreModel(id="base", adapter=None), ScoreModel(id=last.id, adapter=str(run.root / last.path)))
    settings = config.model_dump(mode="json")
    settings["training"]["beta"] = 0.5
    settings["objective"] = objective
    task = ScoreTask(
        job="job-1", backend="peft", base=str(tiny_base), rows=(source,), split="gate", models=models, settings=settings, shift=last.id, this_drop=source.drop
    )
    scored = run_in("02-score")
    PeftBackend().score(task, scored)
    files = {model.id: scored.root / scored.scores[f"gate/{model.id}"] for model in models} | {"shift": scored.root / scored.scores[f"shift/{last.id}"]}
    found = {name: [json.loads(line) for line in path.read_text().splitlines()[1:]] for name, path in files.items()}
    return {"base": found["base"], "last": found[last.id], "shift": found["shift"]}


def has_chosen(line: dict[str, Any], schema_id: str) -> bool:
    """Bad answers have no better one."""
    return schema_id == "preference_v1" or line["line"] % 2 == 0


def total(lines: Sequence[dict[str, Any]]) -> float:
    return sum(line["loss"] for line in lines) / sum(line["tokens"] for line in lines)


SPLITS = ["train"] * 16 + ["dev"] * 4 + ["gate"] * 4


@pytest.mark.parametrize(("schema_id", "objective"), [("preference_v1", "auto"), ("preference_v1", "orpo"), ("unpaired_v1", "auto")])
def test_a_training_tells_held_out_answers_apart_better_than_its_base(
    train: Callable[..., RunFolder],
    drop: Drop,
    tiny_base: Path,
    tiny_config: Config,
    run_in: RunIn,
    schema_id: str,
    objective: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    source = replace(drop((pairs if schema_id == "preference_v1" else judged)(24), SPLITS), schema_id=schema_id)
    run = train(source, objective=objective)
    losses = [line["loss"] for line in progress_of(run)]
    assert losses[-1] < losses[0]
    if objective == "auto":  # at the first step the model is its own reference
        assert losses[0] == pytest.approx(math.log(2) if schema_id == "preference_v1" else 0.5, abs=0.05)
    scores = score(run, tiny_base, tiny_config, run_in, source, objective)
    if objective == "auto":
        assert total(scores["base"]) == pytest.approx(math.log(2), abs=1e-6), "the base tells nothing apart from itself"
        assert {line["right"] for line in scores["base"]} == {0.5}
    assert total(scores["last"]) < total(scores["base"]) - 0.1
    assert {line["right"] for line in scores["last"]} == {1.0}
    assert [line["line"] for line in scores["last"] if line.get("chosen", 0) > 0] == [line["line"] for line in scores["last"] if has_chosen(line, schema_id)]
    dev = [candidate.dev_loss for candidate in results_of(run).candidates]
    assert dev[-1] is not None
    assert dev[-1] < total(scores["base"]) - 0.1
    assert [line["tokens"] for line in scores["base"]] == [line["tokens"] for line in scores["last"]]
    if objective == "auto":
        assert any("tells 4 of 4 pairs and judged answers apart" in line for line in caplog.messages)
    if schema_id == "unpaired_v1":
        assert {line["line"] % 2 for line in scores["shift"]} == {0}, "only good answers are asked whether they belong to their questions"


def test_a_job_of_conversations_and_pairs_learns_both(train: Callable[..., RunFolder], drop: Drop, tiny_base: Path, tiny_config: Config, run_in: RunIn) -> None:
    talk = drop([chat(f"Name {n}?", f"It is number {n}.") for n in range(24)], SPLITS, name="talk")
    compared = replace(drop(pairs(24), SPLITS, name="pairs"), schema_id="preference_v1")
    run = train(talk, compared)
    told = score(run, tiny_base, tiny_config, run_in, compared)
    assert total(told["last"]) < math.log(2) - 0.05
    said = score(run, tiny_base, tiny_config, lambda name: run_in(f"{name}-talk"), talk)
    assert total(said["last"]) < total(said["base"]) - 0.1


class StopAfter(RunFolder):
    """Asks for a stop once so many steps were reported."""

    stop_at = 0

    def report(self, stage: Any, *, last: bool = False, **values: object) -> None:
        super().report(stage, last=last, **values)
        if stage == "train" and values["step"] == self.stop_at:
            self.stopping = True


@pytest.mark.parametrize("schema_id", ["preference_v1", "unpaired_v1"])
def test_a_resumed_training_has_the_reference_it_began_with(train: Callable[..., RunFolder], drop: Drop, run_in: RunIn, schema_id: str) -> None:
    """To the bit; a reference taken from the weights of the resume point would be another one."""
    source = replace(drop((pairs if schema_id == "preference_v1" else judged)(16)), schema_id=schema_id)
    whole = train(source, name="whole", training={"epochs": 1.0})
    halved = StopAfter(run_in("halved").root)
    halved.stop_at = 2
    with pytest.raises(Stopped):
        train(source, run=halved, training={"epochs": 1.0})
    resumed = train(source, name="resumed", checkpoint=str(halved.root / str(results_of(halved).checkpoint)), training={"epochs": 1.0})
    last = "checkpoints/step_000004/adapter_model.safetensors"
    assert (resumed.root / last).read_bytes() == (whole.root / last).read_bytes()
