"""N01 to N04: rows as tokens of the job's own base, and what does not fit into max_length.

All rows are counted, fast and nearly exact. Rows near max_length or over it are tokenised as the trainer does it, so
that the border is the trainer's; up to a number of rows and of tokens, above which the fast count must do.
"""

import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import LoradError
from rendering.specs import Message
from validation import loaded
from validation.case import Case
from validation.checks.registry import Check, Need, entered
from validation.context import Batch, Context, Sheet
from validation.findings import Level, Problem, Severity

if TYPE_CHECKING:
    from rendering.counting import Conversation, Counts
    from rendering.tokens import Encoding
    from validation.survey import Survey

NEAR = 0.97  # of max_length: from here on the fast count is not trusted
EXACT_ROWS = 2_000  # a process
EXACT_TOKENS = 4_000_000
SHARES = (5, 50, 95, 99)
MOST_DROPPED = 0.5  # share of the rows; a file that loses more is not mended by it
FIT_STEP = 64  # a max_length that is proposed is a multiple of this
GENERIC = "lorad models template > %s"
DROP = "lorad fix {file} -o {out} --schema %s --repair drop --ids %s"


def needs_base(context: Context) -> str:
    """Why checks that need the base's tokenizer and template cannot run."""
    try:
        return "" if context.renderer else "no base model is named: `lorad check` takes --model NAME or PATH, a config names one; the stub backend has none"
    except LoradError as error:
        return f"{error.what}; {error.hint}"


def needs_length(context: Context) -> str:
    """The same, for those that compare with max_length."""
    return needs_base(context) or ("" if context.around.max_length else "max_length is not known: pass --max-length, or name a config")


@dataclass(frozen=True, slots=True)
class Long:
    """A row of more tokens than max_length. `first` is the place of the first learnt token, `kept` of `learnt` are before the cut."""

    case: Case
    total: int
    first: int
    learnt: int
    kept: int
    broken: bool  # an answer is cut before the token that ends it


class Ledger:
    """Counts the rows of each batch once, for all checks that ask."""

    def __init__(self, context: Context) -> None:
        renderer = context.renderer
        assert renderer is not None, "needs_base has answered"
        self._renderer = renderer
        self._counter = loaded.counter(renderer)
        self.note = self._counter.note
        """Why rows are not counted the fast way; empty: they are."""
        self._max_length = context.around.max_length
        self._batch: Batch | None = None
        self._long: list[Long] = []
        self._rows_left, self._tokens_left = EXACT_ROWS, EXACT_TOKENS

    def long_rows(self, batch: Batch, sheet: Sheet) -> list[Long]:
        """The rows over max_length. Sets `tokens` and `answer_tokens` of every case that is looked at, and enters the figures into the sheet."""
        if self._batch is not batch:
            self._batch = batch
            counts = self._counter.plain_counts(batch.plain.texts, batch.plain.sizes) if batch.plain else None
            if counts:
                self._count_plain(batch.cases, *counts, sheet)
            else:
                self._count(batch.cases, sheet)
        return self._long

    def _count(self, cases: Sequence[Case], sheet: Sheet) -> None:
        counts = self._counts([case.messages if case.plain is None else case.plain for case in cases], cases)
        for case, (total, answer) in zip(cases, counts, strict=True):
            case.tokens, case.answer_tokens = total, answer
        if cases[0].spec.objective == "dpo":
            self._count_rejected(cases)
        self._long = list(self._measured(cases, sheet)) if self._max_length else []
        prompts = [total - answer for total, answer in counts]
        for name, values in (("total", [case.tokens for case in cases]), ("target", [answer for _, answer in counts]), ("prompt", prompts)):
            sheet.counter(f"tokens.{name}").update(map(str, values))

    def _count_plain(self, cases: Sequence[Case], total: "Counts", learnt: "Counts", sheet: Sheet) -> None:
        """The same for plain rows: only the long ones are looked at."""
        import numpy as np

        prompts = total - learnt
        self._long = []
        if self._max_length:
            places = np.flatnonzero(total >= NEAR * self._max_length).tolist()
            for place in places:
                cases[place].tokens, cases[place].answer_tokens = int(total[place]), int(learnt[place])
            self._long = list(self._measured([cases[place] for place in places], sheet))
            total[places] = [cases[place].tokens for place in places]
        for name, values in (("total", total), ("target", learnt), ("prompt", prompts)):
            different, counts = np.unique(values, return_counts=True)
            sheet.counter(f"tokens.{name}").update(dict(zip(map(str, different.tolist()), counts.tolist(), strict=True)))

    def _counts(self, conversations: "Sequence[Conversation]", cases: Sequence[Case]) -> list[tuple[int, int]]:
        """(all tokens, learnt tokens) of each; zeros for a conversation that cannot be written as text at all, which N05 names."""
        try:
            return self._counter.counts(conversations, [() if case.plain else case.tools for case in cases])
        except LoradError:
            if len(cases) == 1:
                return [(0, 0)]
        return [count for one, case in zip(conversations, cases, strict=True) for count in self._counts([one], [case])]

    def _count_rejected(self, cases: Sequence[Case]) -> None:
        """Both answers of a pair have to fit: the row is as long as the longer conversation."""
        pairs = [(case, case.rejected) for case in cases if case.rejected]
        counts = self._counts([rejected for _, rejected in pairs], [case for case, _ in pairs])
        for (case, _), (total, _answer) in zip(pairs, counts, strict=True):
            case.tokens = max(case.tokens, total)

    def _measured(self, cases: Sequence[Case], sheet: Sheet) -> Iterator[Long]:
        near = NEAR * self._max_length
        for case in cases:
            if case.tokens < near:
                continue
            long = self._exact(case)
            sheet.counter("tokens.long")["estimated" if long is None else "exact"] += 1
            if long is None:
                first = case.tokens - case.answer_tokens
                kept = min(max(self._max_length - first, 0), case.answer_tokens)
                long = Long(case, case.tokens, first, case.answer_tokens, kept, 0 < kept < case.answer_tokens)
            case.tokens = long.total
            if long.total > self._max_length:
                yield long

    def _exact(self, case: Case) -> Long | None:
        """The row as the trainer sees it; None where the budget is spent, or the template cannot render it (N05 and N07 say that)."""
        if self._rows_left <= 0 or case.tokens > self._tokens_left:
            return None
        self._rows_left -= 1
        self._tokens_left -= case.tokens
        conversations: list[list[Message]] = [case.messages]
        if case.spec.objective == "dpo" and case.rejected:
            conversations.append(case.rejected)
        try:
            seen = [self._cut(case, self._renderer.encode(messages, tools=case.tools)) for messages in conversations]
        except LoradError:
            return None
        worst = max(seen, key=lambda one: (one.learnt > 0 and not one.kept, one.broken, one.total))
        return Long(case, max(one.total for one in seen), worst.first, worst.learnt, worst.kept, worst.broken)

    def _cut(self, case: Case, encoding: "Encoding") -> Long:
        supervised, most = encoding.supervised, self._max_length
        learnt = sum(supervised[1:])  # the first token of all has no context to be predicted from
        first = supervised.index(True, 1) if learnt else len(supervised)
        broken = len(supervised) > most and supervised[most] and supervised[most - 1]
        return Long(case, len(encoding.ids), first, learnt, sum(supervised[1:most]), broken)


def ledger(context: Context) -> Ledger:
    """The ledger of this process."""
    return context.once("ledger", lambda: Ledger(context))


# --- N01


def _percentile(histogram: Counter[int], share: int) -> int:
    """The smallest value that `share` percent of the rows do not exceed (nearest rank)."""
    wanted = -(-sum(histogram.values()) * share // 100)
    seen = 0
    for value, rows in sorted(histogram.items()):
        seen += rows
        if seen >= wanted:
            return value
    return 0


def _histogram(survey: "Survey", name: str) -> Counter[int]:
    return Counter({int(value): rows for value, rows in survey.sheet.counter(f"tokens.{name}").items()})


def _figures(survey: "Survey") -> dict[str, Any]:
    figures: dict[str, Any] = {}
    sums = {}
    for name in ("total", "prompt", "target"):
        histogram = _histogram(survey, name)
        figures[name] = {f"p{share}": _percentile(histogram, share) for share in SHARES} | {"max": max(histogram, default=0)}
        sums[name] = sum(value * rows for value, rows in histogram.items())
    figures["supervised_share"] = round(sums["target"] / max(1, sums["target"] + sums["prompt"]), 4)
    if note := ledger(survey.context).note:
        figures["note"] = note
    most = survey.context.around.max_length
    if most:
        long = survey.sheet.counter("tokens.long")
        figures["max_length"] = most
        figures["over_max_length"] = len(survey.sheet.column("tokens.overlong"))
        figures["near_or_over_counted_exactly"] = long["exact"]
        figures["near_or_over_estimated"] = long["estimated"]
    return figures


def _token_statistics(survey: "Survey") -> Iterator[Problem]:
    from rendering.folders import template_is_generic

    if not survey.sheet.num_rows:
        return
    figures = _figures(survey)
    survey.stats["tokens"] = figures
    total, target = figures["total"], figures["target"]
    message = (
        f"half of the rows have up to {total['p50']:,} tokens, 99% up to {total['p99']:,}, the longest {total['max']:,}; "
        f"half of the answers up to {target['p50']:,}; {figures['supervised_share']:.0%} of all tokens are learnt"
    )
    if survey.context.spec.family == "vision":
        message += "; pictures are not counted"
    if figures.get("near_or_over_estimated"):
        message += f"; {figures['near_or_over_estimated']:,} long rows were counted by the fast way alone"
    yield Problem(message=message, count=survey.sheet.num_rows)
    renderer = survey.context.renderer
    if renderer is not None and template_is_generic(renderer):
        yield Problem(
            message="the base has no chat template: the tokens were counted as generic ChatML, and N05 to N08 had nothing to check",
            kind="generic",
            why="without a template nobody can say which text the model will be trained on and asked with",
            hint="put the chat_template.jinja of the model's instruct version into its folder, or the generic one",
            fix=GENERIC % shlex.quote(str(Path(survey.context.around.base, "chat_template.jinja"))),
        )


@entered(
    Check(
        *("N01", "tok.stats", Severity.INFO, Need.BATCH, "compare them with max_length: a row over it is left out of the training"),
        why="the length of the rows decides memory and time of the training, and which rows take part in it",
        level=Level.STANDARD,
        rank=-20,
        ready=needs_base,
        conclude=_token_statistics,
    )
)
def token_statistics(batch: Batch, sheet: Sheet) -> None:
    """How many tokens the rows have, and how many of them are learnt."""
    ledger(batch.context).long_rows(batch, sheet)


# --- N02 to N04


@entered(
    Check(
        *("N02", "tok.all_masked", Severity.ERROR, Need.BATCH, "raise max_length, shorten the prompt, or leave the row out"),
        why="cut at max_length such a row holds nothing to learn: its loss is 0 or NaN while the run looks fine",
        level=Level.STANDARD,
        rank=-19,
        ready=needs_length,
    )
)
def nothing_left_to_learn(batch: Batch, sheet: Sheet) -> Iterator[tuple[int, Problem]]:
    """After a cut at max_length no learnt token is left."""
    most = batch.context.around.max_length
    for long in ledger(batch.context).long_rows(batch, sheet):
        if long.learnt and not long.kept and long.case.row.weight:
            message = f"the prompt alone has {long.first:,} tokens, max_length is {most:,}: no token of the answer is left"
            yield long.case.line, Problem(message=message, fix=DROP % (batch.context.spec.id, "N02"))


def _overlong(survey: "Survey") -> Iterator[Problem]:
    context, lines = survey.context, survey.sheet.column("tokens.overlong")
    share = len(lines) / max(1, survey.sheet.num_rows)
    allowed = context.around.max_overlong_share
    if share <= min(context.limit("N03", "warn_share"), allowed):
        return
    histogram = _histogram(survey, "total")
    p99, longest = _percentile(histogram, 99), max(histogram, default=0)
    fits = -(-p99 // FIT_STEP) * FIT_STEP
    refused = share > allowed
    rows = f"{len(lines):,} of {survey.sheet.num_rows:,} rows ({share:.1%})"
    message = f"{rows} are longer than max_length {context.around.max_length:,}; the longest has {longest:,} tokens"
    hint = f"max_length {fits:,} fits 99% of the rows (p99 is {p99:,} tokens); or split the long rows"
    yield Problem(
        message=f"{message}; at most {allowed:.1%} may be left out (training.max_overlong_share)" if refused else message,
        hint=hint,
        lines=tuple(lines),
        count=len(lines),
        severity=Severity.ERROR if refused else None,
        fix=DROP % (context.spec.id, "N03") if share <= MOST_DROPPED else "",
    )


@entered(
    Check(
        *("N03", "tok.over_length", Severity.WARNING, Need.BATCH, "raise max_length, or split the long rows"),
        why="the trainer leaves out every row over max_length, so nothing of it is learnt",
        level=Level.STANDARD,
        rank=-18,
        limits={"warn_share": 0.01},
        ready=needs_length,
        conclude=_overlong,
    )
)
def over_length(batch: Batch, sheet: Sheet) -> None:
    """More rows than a few are over max_length; more than the trainer leaves out is an error."""
    sheet.column("tokens.overlong").extend(long.case.line for long in ledger(batch.context).long_rows(batch, sheet))


@entered(
    Check(
        *("N04", "tok.cut_target", Severity.WARNING, Need.BATCH, "raise max_length, or split the long rows: an answer must end inside it"),
        why="an answer that is cut teaches the model to stop in the middle, or never to stop",
        level=Level.STANDARD,
        rank=-17,
        limits={"warn_share": 0.005},
        ready=needs_length,
    )
)
def cut_target(batch: Batch, sheet: Sheet) -> Iterator[tuple[int, Problem]]:
    """A cut at max_length would take more than half of what is learnt, or the end of an answer."""
    most = batch.context.around.max_length
    for long in ledger(batch.context).long_rows(batch, sheet):
        if long.kept and long.case.row.weight and (long.broken or long.kept < long.learnt / 2):
            end = " and not the end of the answer" if long.broken else ""
            message = f"a cut at max_length {most:,} would keep {long.kept:,} of {long.learnt:,} answer tokens{end} (the row has {long.total:,})"
            yield long.case.line, Problem(message=message, fix=DROP % (batch.context.spec.id, "N04"))
