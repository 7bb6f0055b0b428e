"""A training in stages: rows, steps, layers of the adapter."""

from typing import Any

import pytest
import torch

from core.config import Config, resolve
from core.errors import ChildError, ConfigError
from rendering.rows import Row
from rendering.specs import Message
from trainer.backends.staging import Staging
from trainer.stages import StagedPlan, staged_plan


def rows(count: int, **metadata: Any) -> list[Row]:
    return [
        Row(drop="d", line=line, group=str(line), split="train", schema_id="chat_sft_v1", messages=[Message("user", "?")], weight=1.0, metadata=dict(metadata))
        for line in range(count)
    ]


def planned(stages: list[dict[str, Any]], found: list[Row], **training: Any) -> StagedPlan:
    config = Config.model_validate({"batch_size": 10, "stages": stages, "training": {"epochs": 1.0, "checkpoints": 2, **training}, "lora": {"r": 8}})
    return staged_plan(config, found)


def test_foundation_and_specialised_share_the_rows_between_them() -> None:
    plan = planned([{"name": "foundation", "share": 0.8}, {"name": "specialised"}], rows(100))
    first, second = plan.stages
    assert (len(first.rows), len(second.rows)) == (80, 20)
    assert sorted([*first.rows, *second.rows]) == list(range(100))
    assert plan.total_steps == 10
    seen = [place for step in range(1, 11) for place in plan.rows(step)]
    assert sorted(seen) == list(range(100))
    assert set(seen[:80]) == set(first.rows)


def test_a_stage_takes_the_rows_whose_metadata_it_names() -> None:
    found = rows(30, kind="fact") + rows(20, kind="style") + rows(10)
    plan = planned([{"name": "facts", "where": {"kind": ["fact", "date"]}}, {"name": "style", "where": {"kind": "style"}}, {"name": "rest"}], found)
    assert [len(stage.rows) for stage in plan.stages] == [30, 20, 10]


def test_a_stage_has_its_own_rate_and_epochs_and_ends_with_a_checkpoint() -> None:
    plan = planned([{"name": "a", "share": 0.5, "learning_rate": 1e-3}, {"name": "b", "epochs": 3.0}], rows(80), scheduler="constant", warmup_steps=1)
    assert [stage.plan.total_steps for stage in plan.stages] == [4, 12]
    assert plan.rate(3) == 1e-3
    assert plan.rate(7) == pytest.approx(2e-4)
    assert {4, 16} <= plan.checkpoint_steps
    assert plan.stage_of(4)[0].name == "a"
    assert plan.stage_of(5)[0].name == "b"


def test_layers_add_ranks_and_stages_without_them_share_theirs() -> None:
    layered = planned([{"name": "k", "share": 0.5, "layer": "knowledge", "r": 16}, {"name": "s", "layer": "skill"}], rows(40))
    assert [stage.ranks for stage in layered.stages] == [(0, 16), (16, 24)]
    assert layered.rank == 24
    plain = planned([{"name": "a", "share": 0.5}, {"name": "b"}], rows(40))
    assert [stage.ranks for stage in plain.stages] == [(0, 8), (0, 8)]


def test_a_stage_without_a_row_is_named() -> None:
    with pytest.raises(ChildError, match="'facts' gets no row"):
        planned([{"name": "facts", "where": {"kind": "fact"}}], rows(10))


@pytest.mark.parametrize(
    ("stages", "said"),
    [
        ([{"name": "a", "share": 0.5, "layer": "skill"}, {"name": "b"}], "'b' has no layer"),
        ([{"name": "a", "r": 8}], "'a' has r or beside"),
        ([{"name": "a", "share": 0.5}, {"name": "a"}], "two stages are called 'a'"),
    ],
)
def test_stages_that_contradict_one_another_are_a_mistake_of_the_config(stages: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        resolve({"config.json": {"stages": stages}})


def weights() -> dict[str, torch.nn.Parameter]:
    """An adapter of rank 5, 6 inputs and 4 outputs, after some training."""
    torch.manual_seed(0)
    return {"m.q_proj.lora_A.default.weight": torch.nn.Parameter(torch.randn(5, 6)), "m.q_proj.lora_B.default.weight": torch.nn.Parameter(torch.randn(4, 5))}


A, B = weights()


def two_layers(beside: bool = False) -> StagedPlan:
    return planned([{"name": "k", "share": 0.5, "layer": "knowledge", "r": 2}, {"name": "s", "layer": "skill", "r": 3, "beside": beside}], rows(40))


def learn(staging: Staging, params: dict[str, torch.nn.Parameter], steps: range) -> None:
    optimizer = torch.optim.AdamW(params.values(), lr=0.1, weight_decay=0.1)
    for step in steps:
        staging.enter(step)
        sum(((param - 1) ** 2).sum() for param in params.values()).backward()  # type: ignore[union-attr]
        staging.cut_gradients()
        optimizer.step()
        optimizer.zero_grad()
        staging.put_back()


def test_a_layer_learns_and_the_others_stay_bit_for_bit() -> None:
    params = weights()
    before = {name: param.detach().clone() for name, param in params.items()}
    learn(Staging(two_layers(), params), params, range(3, 5))
    assert torch.equal(params[A][:2], before[A][:2])
    assert torch.equal(params[B][:, :2], before[B][:, :2])
    assert not torch.equal(params[A][2:], before[A][2:])
    assert not torch.equal(params[B][:, 2:], before[B][:, 2:])


def test_the_first_layer_leaves_the_ranks_of_the_later_ones_alone() -> None:
    params = weights()
    before = params[B].detach().clone()
    learn(Staging(two_layers(), params), params, range(1, 3))
    assert torch.equal(params[B][:, 2:], before[:, 2:])
    assert not torch.equal(params[B][:, :2], before[:, :2])


def test_a_layer_beside_the_others_is_trained_without_them_and_written_with_them() -> None:
    params = weights()
    before = params[B].detach().clone()
    staging = Staging(two_layers(beside=True), params)
    staging.enter(3)
    assert not params[B][:, :2].any()
    learn(staging, params, range(3, 5))
    with staging.whole():
        with staging.whole():
            assert torch.equal(params[B][:, :2], before[:, :2])
        assert torch.equal(params[B][:, :2], before[:, :2])
    assert not params[B][:, :2].any()


def test_layers_side_by_side_add_up_to_the_sum_of_their_outputs() -> None:
    params, x = weights(), torch.randn(7, 6)
    a, b = params[A], params[B]
    apart = (x @ a[:2].T) @ b[:, :2].T + (x @ a[2:].T) @ b[:, 2:].T
    assert torch.allclose((x @ a.T) @ b.T, apart, atol=1e-5)
