"""Everything that one verdict rests on, read and laid side by side: score files of the gate split, which rows are this drop's."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from core.errors import IntegrityError
from core.tasks import RankTask
from ranking.evidence import BASE, Comparison, Conditions, Rules, ScoreFile
from ranking.metrics.held import Held
from ranking.scores import Scores, aligned, check_conditions, has_other_base, missing, path_of, read_scores, read_shift
from ranking.statistics import Floats, Mask, Paired, compare
from rendering.rows import read_rows

BITS = math.log(2)
SEED_NOISE = 0.01
"""Nats per token. Trainings of the real base that differ by their seed alone lie up to 0.006 apart, truly so: without this
one in ten A/A comparisons is promoted, with it none of 200 (`scripts/bench ranking`)."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The score files of one verdict; all are in the row order of `incumbent`.

    Where the incumbent stands on another base, tokens are not the same and losses per token not comparable: then a row's
    loss is told in bits per byte of its answers.
    """

    task: RankTask
    rules: Rules
    incumbent: Scores
    best: Scores
    rivals: tuple[Scores, ...]  # other candidates that were scored on the gate split, at an earlier look
    again: Scores | None  # the incumbent, scored once more
    shifts: tuple[Scores, ...]
    base: Scores | None
    conditions: Conditions

    @property
    def files(self) -> dict[str, ScoreFile]:
        """Each file that was read, by its key."""
        read = (self.incumbent, self.best, *self.rivals, *self.shifts, *([self.base] if self.base else []), *([self.again] if self.again else []))
        return {f"{scores.split}/{scores.model}": scores.file for scores in read}

    @property
    def other_base(self) -> bool:
        """Whether incumbent and candidate stand on different bases."""
        return has_other_base(self.incumbent, self.best)

    @cached_property
    def held(self) -> Held:
        """Rows and answers, where a metric asks for them."""
        return Held(self.task)

    @cached_property
    def this(self) -> Mask:
        """Which rows are of this drop."""
        return np.array([drop == self.task.this_drop for drop, _ in self.incumbent.rows], dtype=np.bool_)

    @cached_property
    def pooled(self) -> tuple[str, ...]:
        """Earlier drops, latest first, that are judged with this one because its own held-out conversations are too few."""
        groups = {group for group, mine in zip(self.incumbent.groups, self.this, strict=True) if mine}
        taken: list[str] = []
        for drop in sorted({drop for drop, _ in self.incumbent.rows if drop != self.task.this_drop}, reverse=True):  # ids grow with time
            if not groups or len(groups) >= self.rules.min_gate_groups:
                break
            taken.append(drop)
            groups |= {group for group, (of, _) in zip(self.incumbent.groups, self.incumbent.rows, strict=True) if of == drop}
        return tuple(taken)

    @cached_property
    def judged(self) -> Mask:
        """Which rows the leg of this drop looks at: its own, and those of the drops pooled with it."""
        return self.this | np.array([drop in self.pooled for drop, _ in self.incumbent.rows], dtype=np.bool_)

    @property
    def margin(self) -> float:
        """`rules.margin` in the unit of `losses`."""
        return self.rules.margin * self._unit

    @cached_property
    def _unit(self) -> float:
        """Nats per token in the unit of `losses`."""
        return float(self.best.tokens.sum() / self._bytes.sum()) / BITS if self.other_base else 1.0

    @cached_property
    def _bytes(self) -> Floats:
        try:
            sizes = {
                (row.drop, row.line): sum(len(turn.content.encode()) for turn in row.messages if turn.role == "assistant") for row in read_rows(self.task.rows)
            }
        except IntegrityError as error:
            missing(f"rows cannot be read, so that models on different bases cannot be compared: {error.what}")
        if lost := [place for place in self.incumbent.rows if place not in sizes]:
            missing(f"line {lost[0][1]} of {lost[0][0]!r} is not among the rows, so that models on different bases cannot be compared")
        return np.array([max(1, sizes[place]) for place in self.incumbent.rows], dtype=np.float64)

    def losses(self, before: Scores, after: Scores) -> Paired:
        """The losses of two models on all rows."""
        if has_other_base(before, after):
            return Paired(
                before=before.loss / BITS / self._bytes,
                after=after.loss / BITS / self._bytes,
                weights=self._bytes,
                groups=before.groups,
                measure="bits per byte",
            )
        return Paired(before=before.loss / before.tokens, after=after.loss / before.tokens, weights=before.tokens, groups=before.groups)

    @cached_property
    def noise(self) -> float:
        """A difference of losses below this is none: what another seed of the same training gives, or more where the incumbent
        differs by more from itself, scored twice."""
        if self.again is None:
            return SEED_NOISE * self._unit
        found = compare(self.losses(self.incumbent, self.again), self.rules).difference
        return max(SEED_NOISE * self._unit, abs(found.low), abs(found.high))

    def compared(self, mask: Mask, after: Scores | None = None) -> Comparison | None:
        """Loss of incumbent and candidate on some of the rows; None where there are none."""
        paired = self.losses(self.incumbent, after or self.best).taken(mask)
        return compare(paired, self.rules, margin=self.margin, noise=self.noise) if paired else None


def gather(task: RankTask, rules: Rules) -> Evidence:
    """Read the score files of a verdict. Raises EvidenceError where one is missing, damaged or not comparable with the others."""

    def read(key: str) -> Scores:
        return read_scores(key, path_of(task.scores, key))

    incumbent, best = read(f"gate/{task.incumbent}"), read(f"gate/{task.best}")
    shift_keys = sorted(key for key in task.scores if key.startswith("shift") and key.endswith(f"/{task.best}")) or [f"shift/{task.best}"]
    shifts = tuple(read_shift(key, path_of(task.scores, key)) for key in shift_keys)
    base = next((read(key) for key in (f"gate/{BASE}", f"dev/{BASE}") if key in task.scores), None)
    rivals = tuple(read(f"gate/{one.id}") for one in task.candidates if one.id != task.best and f"gate/{one.id}" in task.scores)
    again = read(f"noise-gate/{task.incumbent}") if f"noise-gate/{task.incumbent}" in task.scores else None
    own = [best, *shifts, *rivals, *([base] if base and base.model != task.incumbent else [])]
    conditions = check_conditions(own, task.backend, incumbent)
    if again is not None and again.conditions != incumbent.conditions:
        missing(f"noise-gate/{task.incumbent} was scored under other conditions than gate/{task.incumbent}")
    return Evidence(
        task=task,
        rules=rules,
        incumbent=incumbent,
        best=aligned(best, incumbent),
        rivals=tuple(aligned(rival, incumbent) for rival in rivals),
        again=aligned(again, incumbent) if again is not None else None,
        shifts=shifts,
        base=base,
        conditions=conditions,
    )
