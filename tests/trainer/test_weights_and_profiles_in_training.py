"""Weights reach the gradient as they stand in the row; profiles reach training and scoring alike."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from trainer_cases import SHAPE, chat, questions

from core.config import Config
from core.errors import ConfigError
from core.tasks import RowsOf, ScoreModel, ScoreTask, TrainTask
from rendering.profiles import profile_of
from rendering.rows import read_rows
from rendering.tokens import Renderer, supervised_text
from trainer.backends import attention
from trainer.backends.families import forward_for
from trainer.backends.objective import TokenObjective
from trainer.backends.peft import PeftBackend
from trainer.backends.stub import StubBackend
from trainer.examples import Example, encode_rows
from trainer.identity import Identity, differences
from trainer.profiled import profiled
from trainer.run import RunFolder

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:transformers.*")


@pytest.fixture
def model() -> Any:
    """A random Llama in fp32 with an adapter whose second matrix is not zero."""
    torch.set_num_threads(1)
    attention.register()
    torch.manual_seed(5)
    base = transformers.AutoModelForCausalLM.from_config(transformers.LlamaConfig(**SHAPE), attn_implementation=attention.FLAT).eval()
    made = get_peft_model(base, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    for name, param in made.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(param, std=0.1)
    return made


def talk(first: float, second: float, row: float = 1.0) -> dict[str, Any]:
    turns = [
        {"role": "user", "content": "What is it?"},
        {"role": "assistant", "content": "A library.", "weight": first},
        {"role": "user", "content": "And that over there?"},
        {"role": "assistant", "content": "A morning.", "weight": second},
    ]
    return {"messages": turns, "weight": row}


Encode = Callable[..., list[Example]]


@pytest.fixture
def encoded(tiny_base: Path, drop: Callable[..., RowsOf]) -> Encode:
    """Rows as examples, by way of an accepted drop."""

    def encode(*rows: dict[str, Any], name: str = "drop-1") -> list[Example]:
        return list(encode_rows(Renderer.load(tiny_base), read_rows([drop(rows, name=name)]), 256).kept)

    return encode


def gradient(model: Any, examples: list[Example]) -> torch.Tensor:
    """Of the weighted sum, all parameters in one."""
    model.zero_grad()
    TokenObjective(forward_for(model)).loss_sum(examples).backward()
    return torch.cat([param.grad.flatten() for param in model.parameters() if param.requires_grad])


def test_a_quarter_of_the_weight_is_a_quarter_of_the_gradient(model: Any, encoded: Encode) -> None:
    whole, quarter, by_row = (gradient(model, encoded(talk(*weights), name=f"d{n}")) for n, weights in enumerate([(1, 0), (0.25, 0), (1, 0, 0.25)]))
    assert whole.norm() > 0.01
    torch.testing.assert_close(quarter, whole / 4, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(by_row, whole / 4, rtol=1e-5, atol=1e-7)


def test_weights_of_turns_and_rows_multiply_and_add_up(model: Any, encoded: Encode) -> None:
    first, second = (gradient(model, encoded(talk(*weights), name=f"d{n}")) for n, weights in enumerate([(1, 0), (0, 1)]))
    mixed = gradient(model, encoded(talk(0.5, 0.25, 0.5), name="mixed"))
    torch.testing.assert_close(mixed, 0.25 * first + 0.125 * second, rtol=1e-4, atol=1e-6)


def test_the_loss_is_divided_by_the_weights_and_not_by_the_tokens(model: Any, encoded: Encode) -> None:
    (example,) = encoded(talk(0.25, 0, 0.5))
    assert list(example.weights) == [0.125] * len(example.learnt)
    assert TokenObjective(forward_for(model)).weight(example) == pytest.approx(0.125 * len(example.learnt))


def test_a_row_that_is_too_long_is_left_out_whole_and_no_label_is_cut(tiny_base: Path, drop: Callable[..., RowsOf]) -> None:
    rows = [chat("short", "one two"), chat("long", "word " * 80)]
    found = encode_rows(Renderer.load(tiny_base), read_rows([drop(rows)]), 60)
    assert (len(found.kept), found.overlong) == (1, 1)
    renderer = Renderer.load(tiny_base)
    assert supervised_text(renderer, renderer.encode(found.kept[0].row.messages)) == ["one two<|im_end|>"]


# --- profiles


def config_with(config: Config, **changes: Any) -> Config:
    values = config.model_dump(mode="json")
    for key, value in changes.items():
        values[key] = {**values[key], **value}
    return Config.model_validate(values)


PERSONA = {"profile": {"name": "persona", "options": {"name": "Ada"}}}


def task_of(config: Config, rows: RowsOf, base: Path, backend: str = "peft") -> TrainTask:
    return TrainTask(job="job-1", backend=backend, base=str(base) if backend != "stub" else "", rows=(rows,), settings=config.model_dump(mode="json"))


def test_a_checkpoint_names_the_profile_and_scores_are_taken_under_it(
    tiny_config: Config, tiny_base: Path, train_drop: RowsOf, run_in: Callable[..., RunFolder]
) -> None:
    plain = config_with(tiny_config, training={"max_steps": 1, "checkpoints": 1})
    ada = config_with(plain, **PERSONA)
    run = run_in("01-train")
    PeftBackend().train(task_of(ada, train_drop, tiny_base), run)
    (checkpoint,) = (run.root / "checkpoints").iterdir()
    noted = json.loads((checkpoint / "checkpoint.json").read_text())["profile"]
    assert (noted["name"], noted["version"], noted["options"], noted["rules"]["system"]) == ("persona", 1, {"name": "Ada"}, "You are Ada.")
    losses = {}
    for name, config in (("plain", plain), ("ada", ada)):
        scored = run_in(f"02-{name}")
        score = ScoreTask(
            job="job-1",
            backend="peft",
            base=str(tiny_base),
            rows=(train_drop,),
            split="dev",
            models=(ScoreModel(id="base", adapter=None),),
            settings=config.model_dump(mode="json"),
        )
        PeftBackend().score(score, scored)
        losses[name] = [json.loads(line)["loss"] for line in (scored.root / "scores" / "dev-base.jsonl").read_text().splitlines()[1:]]
    assert len(losses["plain"]) == 4
    assert losses["plain"] != pytest.approx(losses["ada"]), "the system prompt stands before every row that is scored"


def test_the_stub_notes_the_profile_too(tiny_config: Config, train_drop: RowsOf, run_in: Callable[..., RunFolder]) -> None:
    config = config_with(tiny_config, profile={"name": "emoji_think"}, training={"max_steps": 1})
    run = run_in("01-train")
    StubBackend().train(task_of(config, train_drop, Path(), "stub"), run)
    (checkpoint,) = (run.root / "checkpoints").iterdir()
    noted = json.loads((checkpoint / "checkpoint.json").read_text())["profile"]
    assert noted["rules"]["penalties"] == {"<think>": 30.0, "</think>": 30.0}


def test_only_the_last_turn_is_learnt_where_the_config_says_so(
    tiny_config: Config, tiny_base: Path, drop: Callable[..., RowsOf], run_in: Callable[..., RunFolder]
) -> None:
    rows = read_rows([drop([talk(1, 1)])])
    (last,) = profiled(rows, config_with(tiny_config, training={"last_turn_only": True}), run_in("01-train"))
    renderer = Renderer.load(tiny_base)
    assert supervised_text(renderer, renderer.encode(last.messages)) == ["A morning.<|im_end|>"]


def test_groups_splits_and_weights_are_those_of_the_gate(tiny_config: Config, drop: Callable[..., RowsOf], run_in: Callable[..., RunFolder]) -> None:
    rows = read_rows([drop([*questions(20), talk(0.5, 1, 0.5)], ["train"] * 15 + ["dev"] * 3 + ["gate"] * 3)])
    changed = profiled(rows, config_with(tiny_config, profile={"name": "emoji_think"}), run_in("01-train"))
    assert [replace(row, messages=[], profile="") for row in changed] == [replace(row, messages=[]) for row in rows]
    assert any(new.messages != old.messages for new, old in zip(changed, rows, strict=True))


def test_a_profile_that_is_gone_ends_the_child_with_its_name(tiny_config: Config, train_drop: RowsOf, run_in: Callable[..., RunFolder], tmp_path: Path) -> None:
    config = config_with(tiny_config, profile={"name": "mine"})
    config = config.model_copy(update={"profiles": {"mine": str(tmp_path / "gone.py")}})
    with pytest.raises(ConfigError, match=r"gone\.py is not there"):
        profile_of(config.profile, config.profiles)
    with pytest.raises(ConfigError, match=r"gone\.py is not there"):
        StubBackend().train(task_of(config, train_drop, Path(), "stub"), run_in("01-train"))


def test_a_training_does_not_go_on_under_a_changed_file_of_ones_own_profile(tiny_config: Config, tiny_base: Path, train_drop: RowsOf, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    config = tiny_config.model_copy(update={"profiles": {"mine": str(file)}, "profile": tiny_config.profile.model_copy(update={"name": "mine"})})
    found = []
    for text in ("# one", "# one", "# two"):
        file.write_text(text)
        found.append(Identity.of(task_of(config, train_drop, tiny_base), config, "0" * 64, 12))
    assert differences(found[0], found[1]) == []
    (clause,) = differences(found[1], found[2])
    assert clause.startswith("profile.file was ")
