"""What a loaded model makes of suites and of held-out questions, beside the losses: see `trainer.suiteresults`, `trainer.backends.generating`."""

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import torch

from core.answering import NO_RULES, AnswerRules
from core.config import Config
from core.errors import ChildError, LoradError
from core.exits import ChildExit
from core.tasks import ScoreModel, ScoreTask, SuiteOf
from rendering.answers import question_of
from rendering.profiles import profile_of, with_system
from rendering.rows import Row
from rendering.specs import Message
from rendering.suites import Choices, Suite, Written, value_of
from rendering.tokens import Renderer
from store.codec import to_plain
from trainer.backends.batches import Cut, Forward, micro_batches
from trainer.backends.families import forward_for
from trainer.backends.generating import Generating, Prompt
from trainer.examples import Example, example_of
from trainer.run import RunFolder
from trainer.scores import GREEDY, Answer, Header, rows_to_answer, write_answers
from trainer.stopping import Sequential, place_of
from trainer.suiteresults import Result, ResultCache, Value, is_harness, key_of, model_sha256, suite_of, write_suite

log = logging.getLogger(__name__)

PIECE = 32  # items between two looks of the sequential test


def rules_sha256(rules: AnswerRules) -> str:
    """Of a profile's rules; empty for none."""
    return "" if rules == NO_RULES else hashlib.sha256(json.dumps(to_plain(rules), sort_keys=True).encode()).hexdigest()


@dataclass(slots=True, kw_only=True)
class Examining:
    """Answers and suites of one score task, model after model. Generated suites of the one that is probed, the candidate, are
    compared with the first other one's as they go (`trainer.stopping`)."""

    task: ScoreTask
    config: Config
    renderer: Renderer
    run: RunFolder
    header: Header
    """That of score files, without model and split."""
    cut: Callable[[], Cut]
    """How large a forward pass may be just now."""
    rules: AnswerRules = field(init=False)
    generating: Generating = field(init=False)
    cache: ResultCache = field(init=False)
    suites: list[Suite] = field(init=False)
    references: dict[str, tuple[str, Result]] = field(default_factory=dict)
    """Of each generated suite, the first whole result, and whose it is."""

    def __post_init__(self) -> None:
        self.rules = profile_of(self.config.profile, self.config.profiles).record.rules
        self.generating = Generating(renderer=self.renderer, rules=self.rules, beat=self.run.beat)
        self.cache = ResultCache.of(self.task, self.run)
        self.suites = [suite_of(suite) for suite in self.task.suites if not is_harness(suite)]

    def examine(self, model: ScoreModel, network: Any, rows: Sequence[Row]) -> None:
        """Write the answers and the suite files of one model. Raises ChildError."""
        header = replace(self.header, model=model.id)
        if self.task.answers:
            self._answers(header, network, rows)
        suites = {suite.name: suite for suite in self.suites}
        asked = model_sha256(model, self.header.base_sha256) if self.task.suites else ""
        for named in self.task.suites:
            suite = suites.get(named.name)
            own = self._header_of(header, suite)
            key = key_of(asked, named, own.settings)
            result = self.cache.get(key, named)
            if result is None:
                self.run.report("suite", last=True, model=model.id, suite=named.name)
                result = self._ask(named, suite, network, self._test(named, model.id))
                if result.is_whole:
                    self.cache.put(key, result)
            if result.generated and result.is_whole:
                self.references.setdefault(named.name, (model.id, result))
            write_suite(self.run, own, result)

    def _test(self, named: SuiteOf, model: str) -> Sequential | None:
        """The sequential test of the candidate; None for other models, and without a reference."""
        if named.name not in self.references or model != self.task.probe:
            return None
        against, result = self.references[named.name]
        margin = self.config.ranking.suite_margins.get(named.name, self.config.ranking.suite_margin)
        return Sequential(against=against, reference={value.item: value.value for value in result.values}, margin=margin)

    def _header_of(self, header: Header, suite: Suite | None) -> Header:
        if suite is not None and not suite.is_generated:
            return replace(header, rules=rules_sha256(self.rules))
        longest = suite.max_new_tokens if suite is not None else self.config.ranking.max_new_tokens
        return replace(header, decoding=GREEDY, rules=rules_sha256(self.rules), max_new_tokens=longest)

    def _ask(self, named: SuiteOf, suite: Suite | None, network: Any, test: Sequential | None) -> Result:
        if suite is None:
            from trainer.backends.harness import run_task

            return run_task(named, network, self.renderer)
        items = sorted(suite.items, key=lambda item: place_of(item.id))
        values = self._likelihoods(network, [item for item in items if isinstance(item, Choices)])
        values |= self._written(network, [item for item in items if isinstance(item, Written)], suite.max_new_tokens, test)
        found = tuple(Value(item=item.id, group=item.group, value=values[item.id]) for item in items if item.id in values)
        stopped = {"against": test.against, "outcome": test.outcome} if test is not None and suite.is_generated else {}
        return Result(suite=named, values=found, num_items=len(items), generated=suite.is_generated, **stopped)  # type: ignore[arg-type]

    # ---------------------------------------------------------------- by likelihood

    @torch.inference_mode()
    def _likelihoods(self, network: Any, items: Sequence[Choices]) -> dict[str, float]:
        """Of each item, the right choice's share of the probability of all its choices, each as a whole turn."""
        if not items:
            return {}
        examples = [[self._choice(item, choice) for choice in item.choices] for item in items]
        longest = max(len(example.ids) for choices in examples for example in choices)
        forward = forward_for(network, self.config.model_copy(update={"max_length": max(longest, self.config.max_length)}))
        values: dict[str, float] = {}
        for item, choices in zip(items, examples, strict=True):
            self.run.rest()
            # Item by item: what its choices begin with is computed once (`batches.pack`), which is most of them.
            logps = [logp for batch in micro_batches(forward, choices, self.cut()) for logp in _logps(forward, batch)]
            values[item.id] = float(torch.tensor(logps, dtype=torch.float64).softmax(0)[item.right])
            self.run.report("suite", rows=len(values), total_rows=len(items))
        return values

    def _choice(self, item: Choices, choice: Message) -> Example:
        before = [msgspec.structs.replace(message, weight=0.0) for message in with_system(item.messages, self.rules.system)]
        messages = [*before, msgspec.structs.replace(choice, weight=1.0)]
        row = Row(drop="", line=0, group=item.group, split="gate", schema_id="", messages=messages, weight=1.0, tools=item.tools)
        try:
            example = example_of(row, self.renderer.encode(messages, item.tools))
        except LoradError as error:
            raise _unfit(item.id, error) from None
        return example

    # ---------------------------------------------------------------- by what it writes

    def _written(self, network: Any, items: Sequence[Written], max_new_tokens: int, test: Sequential | None) -> dict[str, float]:
        """Values of the items that were asked: all, or the first ones, where the sequential test had enough."""
        values: dict[str, float] = {}
        # Without a test all are sorted by length together; with one, pieces keep the order of the hashes, as the test needs it.
        pieces = [items] if test is None else [items[start : start + PIECE] for start in range(0, len(items), PIECE)]
        for piece in pieces:
            prompts = [self._prompt(item.id, with_system(item.messages, self.rules.system), item.tools, max_new_tokens) for item in piece]
            for batch in self.generating.answers(network, prompts):
                values |= {piece[place].id: value_of(piece[place], answer.text) for place, answer in batch}
                self.run.report("suite", rows=len(values), total_rows=len(items))
            if test is not None:
                for item in piece:
                    test.hear(item.id, values[item.id])
                if test.outcome:
                    return values
        return values

    def _prompt(self, id: str, messages: Sequence[Message], tools: Any, max_new_tokens: int) -> Prompt:
        question = next((message.content for message in reversed(messages) if message.role == "user"), "")
        try:
            return Prompt(self.renderer.prompt(messages, tools), question, max_new_tokens)
        except LoradError as error:
            raise _unfit(id, error) from None

    def _answers(self, header: Header, network: Any, rows: Sequence[Row]) -> None:
        asked = rows_to_answer(rows, self.task.answers)
        prompts = []
        for row in asked:
            question = question_of(row)
            assert question is not None, "rows_to_answer leaves those out"
            prompts.append(self._prompt(f"{row.drop}:{row.line}", question.prompt, row.tools, self.config.ranking.max_new_tokens))
        found: dict[int, Answer] = {}
        for batch in self.generating.answers(network, prompts):
            found |= dict(batch)
            self.run.report("answer", model=header.model, rows=len(found), total_rows=len(asked))
        own = replace(header, decoding=GREEDY, rules=rules_sha256(self.rules), max_new_tokens=self.config.ranking.max_new_tokens)
        write_answers(self.run, own, [(row, found[place]) for place, row in enumerate(asked)])


def _logps(forward: Forward, examples: Sequence[Example]) -> list[float]:
    """Log-probability (nats) of the learnt tokens of each example, in order."""
    return [-float(own.double().sum()) for own in forward.token_losses(examples).split([len(example.learnt) for example in examples])]


def _unfit(id: str, error: LoradError) -> ChildError:
    hint = "leave the suite out of ranking.suites, or change the item"
    return ChildError(f"{id!r} cannot be put to this base: {error.what}", hint=hint, code="SUITE_UNFIT", exit_code=ChildExit.BAD_DATA)
