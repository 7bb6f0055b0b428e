"""What nobody set follows from the data and the machine, what somebody set stays, and each number says why."""

from typing import Any

import pytest

from core.config import Resolved, resolve
from core.devices import BaseShape
from core.hyperparameters import DataFacts, Settled, capped_length, kind_of, settle, trial_steps

GIB = 1 << 30
LLAMA_8B = BaseShape(weights_bytes=16 * GIB, hidden=4096, layers=32, intermediate=14336, vocabulary=128_256)


def settled(data: DataFacts, **said: Any) -> Settled:
    resolved: Resolved = resolve({"config.json": said})
    return settle(resolved.config, resolved.origins, data)


@pytest.mark.parametrize(
    ("kind", "rows", "rank", "alpha"),
    [
        *(("style", 90_000, 8, 16), ("preference", 400, 8, 16)),
        *(("knowledge", 999, 16, 32), ("knowledge", 1_000, 32, 32), ("skill", 4_000, 32, 32)),
        *(("", 4_999, 16, 32), ("", 5_000, 32, 32), ("corrections", 50, 16, 32)),
    ],
)
def test_rank_goes_by_kind_and_size_and_alpha_by_rank(kind: Any, rows: int, rank: int, alpha: int) -> None:
    lora = settled(DataFacts(num_rows=rows, kind=kind)).config.lora
    assert (lora.r, lora.alpha) == (rank, alpha)


@pytest.mark.parametrize(("rows", "epochs"), [(999, 3.0), (1_000, 2.0), (50_000, 2.0), (50_001, 1.0)])
def test_few_rows_are_seen_more_often(rows: int, epochs: float) -> None:
    assert settled(DataFacts(num_rows=rows)).config.training.epochs == epochs


@pytest.mark.parametrize(
    ("data", "said", "rate"),
    [
        (DataFacts(num_rows=500), {}, 2e-4),
        (DataFacts(num_rows=500, from_incumbent=True), {}, 1e-4),
        (DataFacts(num_rows=20, kind="corrections", from_incumbent=True), {}, 5e-5),
        (DataFacts(num_rows=500, kind="corrections"), {}, 2e-4),
        (DataFacts(num_rows=500, kind="preference", objective="dpo"), {}, 2e-5),
        (DataFacts(num_rows=500), {"method": "full"}, 2e-5),
        (DataFacts(num_rows=500, from_incumbent=True), {"learning_rate": 3e-4}, 3e-4),
    ],
)
def test_the_rate_goes_by_where_it_starts_from_and_what_is_learnt(data: DataFacts, said: dict[str, Any], rate: float) -> None:
    assert settled(data, **said).config.learning_rate == pytest.approx(rate)


def test_so_few_rows_that_the_steps_would_not_do_make_a_smaller_batch() -> None:
    assert settled(DataFacts(num_rows=2_000)).config.batch_size == 16
    assert settled(DataFacts(num_rows=350)).config.batch_size == 8
    assert settled(DataFacts(num_rows=30)).config.batch_size == 4
    assert settled(DataFacts(num_rows=30), batch_size=16).config.batch_size == 16, "it was asked for"
    assert settled(DataFacts(num_rows=30), training={"max_steps": 5}).config.batch_size == 16, "so few steps were asked for"


def test_a_base_that_does_not_fit_the_gpu_is_quantised_and_one_that_fits_is_not() -> None:
    small = settled(DataFacts(num_rows=900, device="cuda", device_memory_bytes=12 * GIB, shape=LLAMA_8B))
    assert (small.config.method, "nf4" in small.reasons["method"].why) == ("qlora", True)
    large = settled(DataFacts(num_rows=900, device="cuda", device_memory_bytes=80 * GIB, shape=LLAMA_8B))
    assert (large.config.method, "it fits" in large.reasons["method"].why) == ("lora", True)
    assert settled(DataFacts(num_rows=900, shape=LLAMA_8B)).config.method == "lora", "a CPU trains the base as it is"
    assert settled(DataFacts(num_rows=900, device="cuda"), method="full").config.method == "full"


def test_an_adapter_that_is_trained_on_keeps_its_shape() -> None:
    data = DataFacts(num_rows=9_000, from_incumbent=True, start_rank=4, start_alpha=12)
    assert (settled(data).config.lora.r, settled(data).config.lora.alpha, settled(data).warnings) == (4, 12, ())
    told = settled(data, lora={"r": 64})
    assert told.config.lora.r == 4
    assert told.warnings == ("lora.r 64 has no effect: the adapter that it goes on from has 4",)


def test_layers_are_one_adapter_with_one_scale_that_the_servers_load() -> None:
    stages = [{"name": "k", "share": 0.5, "layer": "knowledge", "r": 24}, {"name": "s", "share": 0.5, "layer": "skill"}, {"name": "m", "layer": "memory"}]
    data = DataFacts(num_rows=9_000, num_dev=9)
    assert (settled(data, stages=stages).config.lora.r, settled(data, stages=stages).config.lora.alpha) == (32, 32)
    assert settled(data, stages=stages, serving={"max_rank": 64}).config.lora.r == 20, "24 + 20 + 20 are 64"
    told = settled(data, stages=stages, serving={"max_rank": 64}, lora={"r": 40})
    assert (told.config.lora.r, told.warnings) == (20, ("lora.r 40 is more than serving.max_rank = 64 allows: 20 counts",))
    small = [{"name": "v", "layer": "preference", "r": 4}]
    assert settled(data, stages=small).config.lora.alpha == 8, "by the rank that is trained"


@pytest.mark.parametrize(("wish", "num_dev"), [({"min_gain": 0.1}, 0), ({"patience": 1}, 0), ({"patience": 3}, 9)])
def test_a_wish_of_a_stage_that_nobody_can_see_fulfilled_is_warned_of(wish: dict[str, Any], num_dev: int) -> None:
    data = DataFacts(num_rows=9_000, num_dev=num_dev)
    (warning,) = settled(data, stages=[{"name": "a", **wish}]).warnings
    assert "stage 'a'" in warning
    assert "no effect" in warning


def test_what_cannot_work_is_capped_even_where_it_was_set_and_then_a_warning_says_so() -> None:
    data = DataFacts(num_rows=2_000, model_max_length=1_024)
    assert (settled(data).config.max_length, settled(data).warnings) == (1_024, ())
    told = settled(data, max_length=4_096, lora={"r": 64}, serving={"max_rank": 16})
    assert (told.config.max_length, told.config.lora.r) == (1_024, 16)
    assert [warning.split()[0] for warning in told.warnings] == ["max_length", "lora.r"]
    assert settled(DataFacts(num_rows=9_000), serving={"max_rank": 16}).config.lora.r == 16
    assert (capped_length(2_048, 0), capped_length(2_048, 512)) == (2_048, 512)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"training": {"beta": 0.2}}, "training.beta has no effect"),
        ({"training": {"warmup_ratio": 0.1, "warmup_steps": 9}}, "training.warmup_ratio has no effect"),
        ({"batch_size": 8, "training": {"micro_batch": 8}}, "training.micro_batch 8 has no effect"),
        ({"training": {"replay_share": 0.1}}, "training.replay_share has no effect"),
        ({"training": {"corrections": "preference"}}, "training.corrections has no effect"),
        ({"training": {"auto_rate": True}}, "training.auto_rate has no effect"),
        ({"training": {"patience": 2}}, "training.patience 2 has no effect"),
        ({"method": "full", "lora": {"r": 4}}, "lora.r has no effect with method full"),
        ({"lora": {"use_dora": True}}, "lora.use_dora: vLLM"),
        ({"lora": {"use_rslora": True}}, "lora.use_rslora at rank 16"),
        ({"training": {"max_steps": 49}}, "49 steps are few"),
    ],
)
def test_a_setting_without_effect_or_against_itself_is_said(said: dict[str, Any], words: str) -> None:
    (warning,) = settled(DataFacts(num_rows=2_000, num_dev=0), **said).warnings
    assert warning.startswith(words)


def test_every_number_has_its_origin_and_reason() -> None:
    record = settled(DataFacts(num_rows=2_000), learning_rate=1e-4).record()
    assert record["learning_rate"] == {"value": 1e-4, "origin": "config.json", "why": "set by config.json"}
    assert record["lora.r"]["origin"] == "settled"
    assert record["training.weight_decay"]["origin"] == "default"
    assert {"batch_size", "max_length", "method", "lora.dropout", "training.scheduler", "profile.name"} <= record.keys()
    assert all(entry["why"] for entry in record.values())
    assert not any(key.startswith(("serving.", "alerts.", "deploy.")) for key in record)


def test_a_task_of_an_older_lorad_that_knows_no_origins_keeps_its_values() -> None:
    config = resolve({}).config
    assert settle(config, {}, DataFacts(num_rows=90_000)).config == config.model_copy(update={"method": "lora"})


def test_settling_twice_changes_nothing_so_that_a_resumed_training_is_the_same() -> None:
    data = DataFacts(num_rows=60, num_dev=9, model_max_length=512)
    assert settled(data) == settled(data)


def test_the_kind_is_told_by_layer_schema_objective_and_profile() -> None:
    config = resolve({}).config
    assert kind_of(config, {"correction_v1"}, "sft") == "corrections"
    assert kind_of(config, {"correction_v1", "chat_sft_v1"}, "sft") == ""
    assert kind_of(config, {"preference_v1"}, "dpo") == "preference"
    assert kind_of(resolve({"config.json": {"profile": {"name": "persona"}}}).config, {"chat_sft_v1"}, "sft") == "style"
    assert kind_of(resolve({"config.json": {"stages": [{"name": "a", "layer": "knowledge"}]}}).config, {"chat_sft_v1"}, "sft") == "knowledge"


@pytest.mark.parametrize(("rows", "steps"), [(32, 2), (800, 5), (1_600, 10), (80_000, 20)])
def test_a_trial_of_a_rate_is_a_tenth_of_the_training(rows: int, steps: int) -> None:
    assert trial_steps(resolve({"config.json": {"batch_size": 16, "training": {"epochs": 1.0}}}).config, rows) == steps
