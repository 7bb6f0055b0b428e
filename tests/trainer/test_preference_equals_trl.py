"""Our DPO, KTO and ORPO are TRL's: the same losses and the same gradients from the same tokens, on a tiny random model.

Bound: 2e-5 of the largest gradient of a parameter, both in fp32 on one thread; the two sum in another order.
"""

import warnings
from array import array
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from trainer_cases import SHAPE, TINY

from rendering.rows import Row
from trainer.backends.batches import Cut, micro_batches
from trainer.backends.plain import PaddedForward
from trainer.backends.preference import Judge, MixedObjective, answer_losses, label_weights, told_apart
from trainer.examples import Example

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.filterwarnings("ignore::FutureWarning")]
BETA = 0.3
BOUND = 2e-5


@pytest.fixture(scope="module")
def models() -> Iterator[tuple[Any, Any]]:
    """A policy and the reference that it has left."""
    from transformers import LlamaConfig, LlamaForCausalLM

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(5)
    reference = LlamaForCausalLM(LlamaConfig(**SHAPE)).eval()
    policy = LlamaForCausalLM(LlamaConfig(**SHAPE))
    policy.load_state_dict(reference.state_dict())
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    yield policy, reference
    torch.set_num_threads(threads)


def tokenizer() -> Any:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(tokenizer_file=str(TINY / "tokenizer.json"), eos_token="<|im_end|>", pad_token="<|im_end|>")


def conversation(number: int, answer: int, objective: Any, label: bool | None = None) -> Example:
    """Ten or so random tokens; `answer` of them, the last ones, are learnt."""
    ids = torch.randint(3, 300, (5 + answer + number % 3,), generator=torch.Generator().manual_seed(97 * number + answer)).tolist()
    rejected = [] if objective in ("dpo", "orpo") else None
    place: dict[str, Any] = {"drop": "d", "line": number, "group": str(number), "split": "train", "schema_id": "x"}
    row = Row(**place, messages=[], weight=1.0, objective=objective, rejected=rejected, label=label)
    learnt = array("i", range(len(ids) - answer, len(ids)))
    return Example(row=row, ids=array("i", ids), learnt=learnt, weights=array("f", [1.0] * answer), num_last=answer)


def with_second(first: Example, second: Example) -> Example:
    return Example(row=first.row, ids=first.ids, learnt=first.learnt, weights=first.weights, num_last=first.num_last, second=second)


def pairs(objective: str) -> list[Example]:
    return [with_second(conversation(n, 3 + n, objective), conversation(50 + n, 6 - n, objective)) for n in range(1, 5)]


def judged() -> list[Example]:
    return [with_second(conversation(n, 2 + n, "kto", n % 2 == 0), conversation(70 + n, 4, "kto")) for n in range(1, 5)]


def padded(examples: list[Example]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ids, attention mask and mask of the answers."""
    longest = max(len(example.ids) for example in examples)
    ids, attention, answers = (torch.zeros(len(examples), longest, dtype=torch.long) for _ in range(3))
    for row, example in enumerate(examples):
        ids[row, : len(example.ids)] = torch.tensor(example.ids)
        attention[row, : len(example.ids)] = 1
        answers[row, list(example.learnt)] = 1
    return ids, attention, answers


def gradients(model: Any) -> dict[str, torch.Tensor]:
    found = {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}
    model.zero_grad()
    return found


def ours(models: tuple[Any, Any], examples: list[Example], rows_a_pass: int = 0) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradients of one step, in micro-batches of so many rows."""
    policy, reference = models
    policy.eval()
    judge = Judge(BETA)
    judge.prepare(PaddedForward(reference), examples)
    objective = MixedObjective(forward=PaddedForward(policy), model=policy, judge=judge)
    objective.begin(examples)
    weight, total = sum(map(objective.weight, examples)), 0.0
    for batch in micro_batches(objective.forward, examples, Cut(rows=rows_a_pass)):
        loss = objective.loss_sum(batch) / weight
        loss.backward()
        total += float(loss.detach())
    return total, gradients(policy)


def assert_equal(mine: tuple[float, dict[str, torch.Tensor]], theirs: tuple[float, dict[str, torch.Tensor]]) -> None:
    assert mine[0] == pytest.approx(theirs[0], rel=1e-5)
    assert mine[1].keys() == theirs[1].keys()
    worst = max(float((mine[1][name] - grad).abs().max() / grad.abs().max()) for name, grad in theirs[1].items())
    assert worst < BOUND, worst


def trl_trainer(kind: str, models: tuple[Any, Any], folder: Path, rows: list[dict[str, Any]]) -> Any:
    """TRL's own trainer around the policy, as its documentation makes one."""
    warnings.simplefilter("ignore")
    from datasets import Dataset

    if kind == "orpo":
        from trl.experimental.orpo import ORPOConfig as Config
        from trl.experimental.orpo import ORPOTrainer as Trainer
    elif kind == "kto":
        from trl import KTOConfig as Config
        from trl import KTOTrainer as Trainer
    else:
        from trl import DPOConfig as Config
        from trl import DPOTrainer as Trainer
    settings = {"output_dir": str(folder), "beta": BETA, "report_to": "none", "use_cpu": True, "per_device_train_batch_size": 4, "bf16": False}
    args = Config(gradient_checkpointing=False, **settings)
    reference = {} if kind == "orpo" else {"ref_model": models[1]}
    return Trainer(model=models[0], args=args, train_dataset=Dataset.from_list(rows), processing_class=tokenizer(), **reference)


def theirs(trainer: Any, models: tuple[Any, Any], inputs: dict[str, torch.Tensor]) -> tuple[float, dict[str, torch.Tensor]]:
    models[0].eval()
    loss = trainer.compute_loss(models[0], inputs)
    loss.backward()
    return float(loss.detach()), gradients(models[0])


PAIR = {"prompt": "a", "chosen": "b", "rejected": "c"}


def test_dpo_is_that_of_trl_whatever_the_micro_batch(models: tuple[Any, Any], tmp_path: Path) -> None:
    examples = pairs("dpo")
    ids, attention, answers = padded([*examples, *(example.second for example in examples if example.second)])
    trainer = trl_trainer("dpo", models, tmp_path, [PAIR] * 4)
    found = theirs(trainer, models, {"input_ids": ids, "attention_mask": attention, "completion_mask": answers})
    assert_equal(ours(models, examples), found)
    assert_equal(ours(models, examples, rows_a_pass=1), found)


def test_kto_is_that_of_trl_with_its_reference_point(models: tuple[Any, Any], tmp_path: Path) -> None:
    examples = judged()
    ids, attention, answers = padded(examples)
    other_ids, other_attention, other_answers = padded([example.second for example in examples if example.second])
    rows = [{"prompt": "a", "completion": "b", "label": True}, {"prompt": "a", "completion": "c", "label": False}] * 2
    trainer = trl_trainer("kto", models, tmp_path, rows)
    inputs = {"input_ids": ids, "attention_mask": attention, "completion_mask": answers, "label": torch.tensor([bool(e.row.label) for e in examples])}
    inputs |= {"KL_input_ids": other_ids, "KL_attention_mask": other_attention, "KL_completion_mask": other_answers}
    found = theirs(trainer, models, inputs)
    assert trainer._metrics["eval"]["kl"][0] > 0, "a reference point of 0 would prove nothing"
    assert_equal(ours(models, examples), found)
    assert_equal(ours(models, examples, rows_a_pass=1), found)


def test_orpo_has_the_odds_of_trl_and_imitates_the_answer_alone(models: tuple[Any, Any], tmp_path: Path) -> None:
    """TRL's imitation part also learns the prompt; ours learns the answer, as the paper has it. The odds part is compared."""
    examples = pairs("orpo")
    trainer = trl_trainer("orpo", models, tmp_path, [PAIR] * 4)
    chosen, rejected = padded(examples), padded([example.second for example in examples if example.second])
    policy = models[0]
    policy.eval()
    means = []
    for ids, attention, answers in (chosen, rejected):
        logits = policy(input_ids=ids, attention_mask=attention).logits
        means.append(trainer.get_batch_logps(logits, ids.masked_fill(answers == 0, -100), average_log_prob=True))
    loss = -means[0].mean() - trainer.odds_ratio_loss(*means)[0].mean()
    loss.backward()
    found = float(loss.detach()), gradients(policy)
    assert_equal(ours(models, examples), found)
    assert_equal(ours(models, examples, rows_a_pass=1), found)


# --- what TRL does not have


def test_each_kind_counts_by_its_share_of_the_rows_whatever_the_micro_batch(models: tuple[Any, Any]) -> None:
    compared, plain = pairs("dpo"), [conversation(n, 3 + n, "sft") for n in (31, 32)]
    expected = (4 * ours(models, compared)[0] + 2 * ours(models, plain)[0]) / 6
    mixed = [plain[0], *compared, plain[1]]
    for rows_a_pass in (0, 1, 2):
        assert ours(models, mixed, rows_a_pass)[0] == pytest.approx(expected, rel=1e-5)


def test_a_pair_of_half_the_weight_pulls_half_as_much(models: tuple[Any, Any]) -> None:
    first, second = pairs("dpo")[:2]
    halved = replace(first, row=replace(first.row, weight=0.5), weights=array("f", [0.5] * len(first.weights)))
    alone = [ours(models, [example])[0] for example in (first, second)]
    assert ours(models, [halved])[0] == pytest.approx(alone[0], rel=1e-5), "of itself alone it is the whole mean"
    assert ours(models, [halved, second])[0] == pytest.approx((0.5 * alone[0] + alone[1]) / 1.5, rel=1e-5)


def test_the_rarer_label_weighs_more_only_where_one_outweighs_the_other() -> None:
    assert label_weights(10, 10) == label_weights(4, 3) == label_weights(0, 5) == (1.0, 1.0)
    good, bad = label_weights(100, 10)
    assert (good, 100 * good / (10 * bad)) == (1.0, pytest.approx(4 / 3))
    good, bad = label_weights(10, 100)
    assert (bad, 100 * bad / (10 * good)) == (1.0, pytest.approx(4 / 3))


def test_the_share_of_held_out_answers_that_are_told_apart_is_known(models: tuple[Any, Any]) -> None:
    policy, reference = models
    examples = [*pairs("dpo"), conversation(9, 3, "sft")]
    judge = Judge(BETA)
    judge.prepare(PaddedForward(reference), examples)
    with torch.no_grad():
        losses = [judge.loss(example, own) for example, own in zip(examples, answer_losses(PaddedForward(policy), examples), strict=True)]
        same = [judge.loss(example, own) for example, own in zip(examples, answer_losses(PaddedForward(reference), examples), strict=True)]
    right, count = told_apart(examples, losses)
    assert count == 4
    assert 0 <= right <= 4
    assert told_apart(examples, [loss / 2 for loss in same])[0] == 4
    assert told_apart(examples, [loss * 2 for loss in same])[0] == 0
