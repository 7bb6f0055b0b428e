"""Tasks of lm-evaluation-harness as suites, by name (`lm_eval:TASK`), where the package lm-eval is installed."""

from typing import Any

from core.errors import ChildError
from core.exits import ChildExit
from core.tasks import SuiteOf
from rendering.suites import HARNESS
from rendering.tokens import Renderer
from trainer.backends.generating import as_served
from trainer.suiteresults import Result, Value

METRICS = ("acc", "exact_match", "acc_norm")
"""Which of a task's own metrics is the value of an item: the first of these that it has."""


def run_task(suite: SuiteOf, network: Any, renderer: Renderer) -> Result:
    """Every document of the task as an item. Raises ChildError: the package, the task, its data or a usable metric is missing.

    Its data must lie in the cache of the `datasets` package: children have no network unless training.network is true.
    """
    name = suite.name.removeprefix(HARNESS)
    try:
        from lm_eval import simple_evaluate
        from lm_eval.models.huggingface import HFLM
    except ImportError as error:
        raise _missing(
            suite, f"needs the package lm-eval, which is not installed ({error})", "pip install lm-eval, or leave it out of ranking.suites"
        ) from None
    from transformers import PreTrainedTokenizerFast

    inner = network.get_base_model() if hasattr(network, "get_base_model") else network
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=renderer.tokenizer, eos_token=renderer.eos_token, pad_token=renderer.eos_token)
    tokenizer.name_or_path = inner.config.model_type
    try:
        with as_served(network):
            found = simple_evaluate(model=HFLM(pretrained=network, tokenizer=tokenizer, batch_size=8), tasks=[name], log_samples=True, bootstrap_iters=0)
    except (KeyError, ValueError, OSError) as error:
        hint = "`lm-eval ls tasks` names the tasks; run it once with network, so that its data is in the cache"
        raise _missing(suite, f"does not run: {type(error).__name__}: {error}", hint) from error
    samples = [(task, sample) for task, own in sorted(found["samples"].items()) for sample in own]
    values = tuple(_value(suite, task, sample) for task, sample in samples)
    if not values:
        raise _missing(suite, "holds no documents", "choose another task")
    return Result(suite=suite, values=values, num_items=len(values), generated=True)


def _value(suite: SuiteOf, task: str, sample: dict[str, Any]) -> Value:
    metric = next((metric for metric in METRICS if metric in sample), None)
    if metric is None:
        raise _missing(suite, f"has none of the metrics {', '.join(METRICS)}", "choose another task, or write a suite of your own")
    item = f"{task}/{sample['doc_id']}"
    return Value(item=item, group=item, value=min(1.0, max(0.0, float(sample[metric]))))


def _missing(suite: SuiteOf, what: str, hint: str) -> ChildError:
    return ChildError(f"the suite {suite.name!r} {what}", hint=hint, code="SUITE_HARNESS", exit_code=ChildExit.BAD_SPEC)
