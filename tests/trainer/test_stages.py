"""A training in stages: rows, steps, layers of the adapter."""

from typing import Any

import pytest
import torch

from core.config import Config
from core.errors import ChildError
from rendering.rows import Row
from rendering.specs import Message
from trainer.backends.layers import FrozenRanks, Layer, joined
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


def test_stages_with_and_without_a_layer_do_not_mix() -> None:
    with pytest.raises(ChildError, match="'b' has no layer"):
        planned([{"name": "a", "share": 0.5, "layer": "skill"}, {"name": "b"}], rows(10))


def layer(rank: int, scale: float) -> Layer:
    names = {"m.q_proj.lora_A.weight": torch.randn(rank, 6), "m.q_proj.lora_B.weight": torch.randn(5, rank)}
    return Layer(weights=names, scale=scale)


def output(weights: Any, scale: float, x: torch.Tensor) -> torch.Tensor:
    a, b = weights["m.q_proj.lora_A.weight"], weights["m.q_proj.lora_B.weight"]
    return scale * (x @ a.T) @ b.T


def test_two_adapters_side_by_side_are_one_of_both_ranks() -> None:
    torch.manual_seed(0)
    first, second, x = layer(4, 2.0), layer(3, 0.5), torch.randn(7, 6)
    both = joined([first, second], 2.0)
    assert both["m.q_proj.lora_A.weight"].shape == (7, 6)
    assert torch.allclose(output(both, 2.0, x), output(first.weights, 2.0, x) + output(second.weights, 0.5, x), atol=1e-6)


def test_joining_at_one_scale_copies_every_number() -> None:
    torch.manual_seed(0)
    first, second = layer(4, 2.0), layer(3, 2.0)
    both = joined([first, second], 2.0)
    assert torch.equal(both["m.q_proj.lora_B.weight"][:, 4:], second.weights["m.q_proj.lora_B.weight"])


def test_adapters_of_other_modules_do_not_join() -> None:
    with pytest.raises(ValueError, match="other modules"):
        joined([layer(4, 1.0), Layer(weights={"m.k_proj.lora_A.weight": torch.zeros(1, 1)}, scale=1.0)], 1.0)


def test_frozen_ranks_stay_bit_for_bit_while_the_others_learn() -> None:
    torch.manual_seed(0)
    params = {name: torch.nn.Parameter(tensor) for name, tensor in layer(5, 1.0).weights.items()}
    before = {name: param.detach().clone() for name, param in params.items()}
    frozen = FrozenRanks(params, 2)
    optimizer = torch.optim.AdamW(params.values(), lr=0.1, weight_decay=0.1)
    for _ in range(3):
        sum(((param - 1) ** 2).sum() for param in params.values()).backward()  # type: ignore[union-attr]
        frozen.cut_gradients()
        optimizer.step()
        optimizer.zero_grad()
        frozen.restore()
    a, b = params["m.q_proj.lora_A.weight"], params["m.q_proj.lora_B.weight"]
    assert torch.equal(a[:2], before["m.q_proj.lora_A.weight"][:2])
    assert torch.equal(b[:, :2], before["m.q_proj.lora_B.weight"][:, :2])
    assert not torch.equal(a[2:], before["m.q_proj.lora_A.weight"][2:])
