"""What the training box asks of the boxes' own guards, and what it does about their word: rehearsals, terms, rollbacks by proof. Pure.

A release goes back by itself in two ways. The box that serves it sees it fail in its watch and says so in its ledger; or what
was counted of it while it served (feedback, incidents) is proven to be worse than of the release that it replaced. What was
known at its verdict never undoes a release: then a person has decided.
"""

from collections.abc import Iterator

from core.deployment import DeployConfig, RehearsalConfig
from core.facts import Facts, TargetSeen
from core.records import JobState
from core.steps import SetTerms, SetTrial, SetWish, Step
from core.wire import Terms, Trial, TrialResult, Watch, Wish


def terms_of(deploy: DeployConfig) -> Terms:
    """What the config says for every alias of every target."""
    watch = Watch(**deploy.watch.model_dump()) if deploy.watch.window_s > 0 else None
    return Terms(watch=watch, sets={persona: dict(scales) for persona, scales in deploy.sets.items()})


def trial_of(rehearsal: RehearsalConfig, trial: str, alias: str) -> Trial:
    """A rehearsal by the criteria of the config."""
    return Trial(id=trial, alias=alias, **rehearsal.model_dump(exclude={"enabled"}))


def result_of(target: TargetSeen, release: str, trial: str) -> TrialResult | None:
    """What a target says of a rehearsal; None while it has not ended."""
    active = target.observed.active if target.observed else None
    result = active.trials.get(release) if active else None
    return result if result is not None and result.id == trial else None


def ask_trial(target: TargetSeen, release: str, trial: Trial) -> Iterator[Step]:
    """The step that asks for a rehearsal, unless it is asked for already."""
    asked = target.desired.trials.get(release) if target.desired else None
    if asked is None or asked.id != trial.id:
        yield SetTrial(target=target.name, release=release, trial=trial)


def mend_terms(facts: Facts) -> Iterator[Step]:
    """Where a target has a wish by other terms than those of the config in force."""
    terms = terms_of(facts.config.deploy)
    for target in facts.targets:
        desired, seen = target.desired, target.observed
        if desired is None or not desired.aliases or Terms(watch=desired.watch, sets=desired.sets) == terms:
            continue
        if seen is not None and seen.reachable and (seen.active is None or seen.active.fence_seen <= desired.fence):  # else it is not ours to ask
            yield SetTerms(target=target.name, terms=terms)


def go_back(facts: Facts) -> Iterator[Step]:
    """Wishes for the release before, where what serves is proven to be worse by what was counted of it."""
    if facts.config.deploy.watch.window_s <= 0:
        return
    behind = {job.card.adapter for job in facts.views.active.values() if job.state is JobState.RELEASING}
    for one in facts.regressions:
        if not one.counted or one.goes_back_to is None or one.adapter in behind:
            continue
        back = one.goes_back_to or None
        if back is not None and (back not in facts.releases or any(back in seen.touched for seen in facts.forgets)):
            continue
        for target in facts.targets:
            wish = Wish(release=back, replaces=one.release)
            is_asked = target.desired is not None and target.desired.aliases.get(one.adapter) == wish
            if target.live.get(one.adapter) == one.release and back not in target.refused and not is_asked:
                yield SetWish(target=target.name, alias=one.adapter, wish=wish, reason=one.sentence)
