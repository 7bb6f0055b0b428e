"""Regression suites: what a candidate must not answer worse than the incumbent.

A suite passes where its interval proves "not worse than the margin". A suite refuses where worse is proven: beyond the margin
by its mean, and by Holm's rule over all suites, so that many suites do not refuse by luck. In between it is held where the
mean is beyond the margin. Where only the interval is too wide to say, all suites together must prove it: one suite of some hundred
items rarely can. A suite of less than FEWEST_ITEMS that are generated only warns: its interval is wider than any useful margin.

Against the base, where nothing of the adapter is live yet, suites only warn: an adapter gives up some of what its base can do so as
to do what it is made for, and nobody was served better before. A suite that config calls critical refuses there too.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from core.tasks import RankTask
from ranking.evidence import BASE, Comparison, Leg, LegResult, Rules, ScoreFile
from ranking.legs import leg
from ranking.report import signed
from ranking.statistics import Paired, compare, holm
from ranking.suiteresults import SuiteResult, paired_suite, suite_names

FEWEST_ITEMS = 200
NOT_WORSE = "not worse"


def compared(before: SuiteResult, after: SuiteResult, rules: Rules) -> Comparison:
    """Both models on a suite."""
    return compare(_paired(before, after), rules, margin=rules.margin_of(before.name))


def _paired(before: SuiteResult, after: SuiteResult) -> Paired:
    weights = np.ones(len(before.values))
    return Paired(before=before.values, after=after.values, weights=weights, groups=before.groups, measure="mean value of an item", higher_is_better=True)


def suite_legs(task: RankTask, rules: Rules) -> tuple[list[Leg], dict[str, ScoreFile]]:
    """A leg for each suite, one for all together, and the files that were read. Raises EvidenceError."""
    assert task.best is not None
    names = suite_names(task, rules)
    pairs = [paired_suite(task, name, task.incumbent, task.best) for name in names]
    files = {f"suite/{one.name}/{one.model}": one.file for pair in pairs for one in pair}
    if not pairs:
        return [leg("suites", LegResult.SKIPPED, "no suite is asked for")], files
    stopped = {pair[0].name: pair[1].outcome for pair in pairs if not pair[1].is_whole}
    strong = [pair for pair in pairs if not _is_small(pair[0]) and pair[0].name not in stopped]
    found = {pair[0].name: compared(*pair, rules) for pair in pairs}
    p_values = dict(zip((pair[0].name for pair in strong), holm([found[pair[0].name].p or 0.0 for pair in strong]), strict=True))
    legs = []
    for name in names:
        if name in p_values:
            legs.append(_strong(name, replace(found[name], p=p_values[name]), rules))
        else:
            legs.append(_stopped(name, found[name], stopped[name], rules) if name in stopped else _small(name, found[name]))
    if any(one.result is LegResult.WARNED for one in legs if one.name.removeprefix("suite ") in p_values):
        legs.append(_together(strong, rules))
    return [_against_the_base(one, rules) for one in legs] if task.incumbent == BASE else legs, files


def _against_the_base(found: Leg, rules: Rules) -> Leg:
    if found.passed or found.name.removeprefix("suite ") in rules.critical_suites:
        return found
    return leg(found.name, LegResult.WARNED, f"{found.reason}; a first release is compared with the base, and only warned of", found.comparison)


def _is_small(result: SuiteResult) -> bool:
    return result.is_generated and result.num_items < FEWEST_ITEMS


def _text(name: str, found: Comparison) -> str:
    return (
        f"suite {name} goes from {found.before:.1%} to {found.after:.1%} on {found.rows} items "
        f"({signed(100 * found.difference.mean)} points, 95 % interval {signed(100 * found.difference.low)} to {signed(100 * found.difference.high)})"
    )


def _allowed(margin: float) -> str:
    return f"{100 * margin:g} points less are allowed"


def _small(name: str, found: Comparison) -> Leg:
    text = _text(name, found)
    if found.is_worse:
        return leg(f"suite {name}", LegResult.WARNED, f"{text}: worse, but fewer than {FEWEST_ITEMS} items only warn", found)
    return leg(f"suite {name}", LegResult.PASSED, f"{text}; fewer than {FEWEST_ITEMS} items only warn", found)


def _stopped(name: str, found: Comparison, outcome: str, rules: Rules) -> Leg:
    """A suite that stopped once its sequential test had proven something; the interval, of as many items as that took, only illustrates."""
    text, allowed = _text(name, found), _allowed(rules.margin_of(name))
    if outcome == NOT_WORSE:
        return leg(f"suite {name}", LegResult.PASSED, f"{text}: the sequential test proved it not worse, {allowed}", found)
    result = LegResult.REGRESSION if rules.is_critical(name) else LegResult.UNPROVEN
    return leg(f"suite {name}", result, f"{text}: the sequential test proved it worse, {allowed}", found)


def _strong(name: str, found: Comparison, rules: Rules) -> Leg:
    margin, text = rules.margin_of(name), _text(name, found)
    if found.is_not_worse(margin):
        return leg(f"suite {name}", LegResult.PASSED, f"{text}: not worse, {_allowed(margin)}", found)
    if found.gain.mean < -margin and found.is_worse:
        critical = rules.is_critical(name)
        why = "worse" if critical else "worse, and the suite is not critical: a person must look"
        return leg(f"suite {name}", LegResult.REGRESSION if critical else LegResult.UNPROVEN, f"{text}: {why}, {_allowed(margin)}", found)
    if found.gain.mean < -margin:
        return leg(f"suite {name}", LegResult.UNPROVEN, f"{text}: worse by its mean, not proven; {_allowed(margin)}", found)
    return leg(f"suite {name}", LegResult.WARNED, f"{text}: its interval is wider than the margin ({_allowed(margin)})", found)


def _together(pairs: Sequence[tuple[SuiteResult, SuiteResult]], rules: Rules) -> Leg:
    """All suites that may refuse as one, each item of the same weight."""
    columns = [_paired(*pair) for pair in pairs]
    groups = [f"{pair[0].name}/{group}" for pair in pairs for group in pair[0].groups]
    before, after, weights = (np.concatenate([getattr(column, name) for column in columns]) for name in ("before", "after", "weights"))
    paired = Paired(before=before, after=after, weights=weights, groups=groups, measure="mean value of an item", higher_is_better=True)
    margin = rules.suite_margin
    found = compare(paired, rules, margin=margin)
    text = _text("items of all suites together", found).removeprefix("suite ")
    if found.is_not_worse(margin):
        return leg("suites together", LegResult.PASSED, f"{text}: not worse, {_allowed(margin)}", found)
    return leg("suites together", LegResult.UNPROVEN, f"{text}: no proof that it is not worse, {_allowed(margin)}", found)
