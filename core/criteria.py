"""What each stage of an iteration is measured by: the bounds of `criteria` in the config against what was seen. Pure.

A criterion that was missed before the release is live holds the job for a person; after that it takes the release back where
that is proven, else it asks. What depends on hardware (latency, answers a second, use of the box) only warns where the box
has no GPU, unless `criteria.hardware` says otherwise.
"""

from collections.abc import Iterator

from core.facts import Facts, TargetSeen
from core.guarding import Phase
from core.iterations import Criterion, Gated, IterationSeen, Measured, Weight
from core.learning import CriteriaConfig
from core.safeguards import result_of
from core.trends import share_interval
from core.wire import TrialResult, WatchState

MISSING = frozenset({"S02", "M07", "M08", "C01"})  # findings of the gate: a key or a text that is not there
UNTOKENISED = frozenset({"N02", "N05", "N06", "N08"})  # rows that the tokenizer or the template loses, or that leave nothing to learn
GPU = "gpu"


def of_gate(gated: Gated, bounds: CriteriaConfig) -> tuple[Criterion, ...]:
    """What the rows are measured by that a training will see."""
    share = gated.untokenised / gated.rows if gated.rows else 0.0
    return (_most("missing values", gated.missing, bounds.max_missing_values), _most("share of rows not tokenised", share, bounds.max_token_error_share))


def of_training(measured: Measured, bounds: CriteriaConfig) -> tuple[Criterion, ...]:
    """What a training is measured by."""
    found = []
    if bounds.max_gradient_norm:
        found.append(_most("gradient norm", measured.gradient_norm, bounds.max_gradient_norm, why="no step told of one"))
    if bounds.patience:
        name, why = "checkpoints since the best", "no dev loss was measured"
        found.append(_most(name, measured.steps_since_best, bounds.patience, weight=Weight.WARNS, why=why))  # the best one is taken all the same
    return tuple(found)


def of_verdict(measured: Measured, bounds: CriteriaConfig) -> tuple[Criterion, ...]:
    """What the candidate is measured by, beside its verdict."""
    found = []
    if bounds.max_perplexity:
        why = "the stub's losses prove nothing" if measured.made_up else "no loss was measured on the gate split"
        found.append(_most("perplexity", None if measured.made_up else measured.perplexity, bounds.max_perplexity, why=why))
    if bounds.primary_metric:
        value, name = measured.primary, bounds.primary_metric
        if value is None:  # it was asked for: nothing that was not measured goes live by it
            found.append(Criterion(name=name, bound=bounds.min_primary, at_least=True, met=False, why="the verdict has no such metric"))
        else:
            found.append(Criterion(name=name, value=value, bound=bounds.min_primary, at_least=True, met=value >= bounds.min_primary))
    return tuple(found)


def of_security(measured: Measured) -> tuple[Criterion, ...]:
    """The checks of the security scan."""
    return tuple(Criterion(name=look.name, met=not look.found, why=look.found) for look in measured.looks)


def of_rehearsal(trial: TrialResult, target: TargetSeen, bounds: CriteriaConfig) -> tuple[Criterion, ...]:
    """What a rehearsal on the first target is measured by."""
    weight, share = hardware_weight(target, bounds), trial.errors / trial.requests if trial.requests else 0.0
    found = [_most("error share", share, bounds.max_error_share)]
    if bounds.max_latency_ms:
        found.append(_most("ms to the first token", trial.latency_ms, bounds.max_latency_ms, weight=weight))
    if bounds.min_requests_s:
        met = trial.requests_s >= bounds.min_requests_s
        found.append(Criterion(name="answers a second", value=trial.requests_s, bound=bounds.min_requests_s, at_least=True, met=met, weight=weight))
    return tuple(found)


def of_live(seen: IterationSeen, target: TargetSeen, facts: Facts) -> tuple[Criterion, ...]:
    """What a release is measured by while it serves and is watched."""
    return tuple(_of_live(seen, target, facts.config.criteria))


def _of_live(seen: IterationSeen, target: TargetSeen, bounds: CriteriaConfig) -> Iterator[Criterion]:
    state, weight = watch_of(target, seen.iteration.adapter, seen.iteration.release), hardware_weight(target, bounds)
    if state is not None and state.answers + state.errors:
        yield _errors(state, bounds)
        if bounds.max_latency_ms and state.latency_ms:
            yield _most("ms to the first token", state.latency_ms, bounds.max_latency_ms, weight=weight)
    capacity = target.observed.capacity if target.observed else None
    for name, share in sorted(capacity.use.items()) if capacity else ():
        yield _most(f"use of {name}", share, bounds.max_use_share, weight=weight)
    yield _none("critical alerts", seen.critical, Weight.ROLLS_BACK)
    if seen.elsewhere:
        yield _none("critical alerts of the machine", seen.elsewhere, Weight.WARNS)  # another release would change nothing about them


def _errors(state: WatchState, bounds: CriteriaConfig) -> Criterion:
    """The share of failed answers; missed only where it is proven, as one error of twenty proves nothing."""
    total = state.answers + state.errors
    share, low = state.errors / total, share_interval(state.errors, total)[0]
    why = "" if share <= bounds.max_error_share or low > bounds.max_error_share else f"not proven: {state.errors} of {total}"
    return Criterion(name="error share", value=share, bound=bounds.max_error_share, met=low <= bounds.max_error_share, weight=Weight.ROLLS_BACK, why=why)


def watch_of(target: TargetSeen, alias: str, release: str) -> WatchState | None:
    """How the target's watch over this release stands; None where there is none."""
    active = target.observed.active if target.observed else None
    state = active.watches.get(alias) if active else None
    return state if state is not None and state.release == release and state.phase != Phase.ROLLED_BACK else None


def trial_result(target: TargetSeen, seen: IterationSeen, release: str) -> TrialResult | None:
    """What the target says of the rehearsal that its job asked for."""
    return result_of(target, release, seen.iteration.job)


def hardware_weight(target: TargetSeen, bounds: CriteriaConfig) -> Weight:
    """What follows where a bound is missed that a faster machine would meet."""
    capacity = target.observed.capacity if target.observed else None
    has_gpu = capacity is not None and GPU in capacity.use
    holds = has_gpu if bounds.hardware == "auto" else bounds.hardware == "holds"
    return Weight.ASKS if holds else Weight.WARNS


def _most(name: str, value: float | None, bound: float, *, weight: Weight = Weight.ASKS, why: str = "") -> Criterion:
    if value is None:
        return Criterion(name=name, bound=bound, weight=weight, why=why)
    return Criterion(name=name, value=value, bound=bound, met=value <= bound, weight=weight)


def _none(name: str, found: tuple[str, ...], weight: Weight) -> Criterion:
    return Criterion(name=name, value=len(found), bound=0, met=not found, weight=weight, why="; ".join(found[:3]))
