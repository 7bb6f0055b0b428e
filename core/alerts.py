"""Alerts: which there are, and what each says. Pure. When they are told is decided in `core.notices`.

To add one, write a function here that yields an `Alert` for each thing it is about, under `@lasting` (there while
something is so: taken back once it no longer is) or `@passing` (told once). Nothing else has to change: its name is that of
the function, its docstring is what `lorad alerts list` and the how-to say of it.
"""

import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from core.facts import Facts, TargetSeen
from core.guarding import Phase
from core.logtail import without_quotes
from core.measures import Measure
from core.records import Ended, Held, Job, Ranking, Releasing, Training
from core.sections import AlertRule, AlertsConfig

OWN = "rules."  # before the names of a person's own rules


class Severity(StrEnum):
    """How much an alert matters: worth knowing, needs a person soon, needs a person now."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """What a rule found. No text of rows: it leaves the machine."""

    rule: str
    about: str = ""  # with the rule what it is known by: a job, a drop, a slot, a target, a metric
    severity: Severity
    title: str
    reason: str
    next: str  # the command to run next
    job: str = ""
    run: str = ""
    adapter: str = ""
    log: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """What an alert is known by: `<rule>/<about>`."""
        return f"{self.rule}/{self.about}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Happening:
    """Something that happened since the last look, for passing alerts. `about` is what it happened to."""

    kind: str  # drop.rejected, job.failed, daemon.restarted
    about: str = ""
    words: Mapping[str, str] = field(default_factory=dict)
    log: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Everything that rules look at."""

    facts: Facts
    now: datetime
    measures: tuple[Measure, ...] = ()
    happenings: tuple[Happening, ...] = ()
    still_s: Mapping[str, float] = field(default_factory=dict)  # job, or "queue" -> seconds without movement while it should move
    apart_s: Mapping[str, float] = field(default_factory=dict)  # target -> seconds for which it has not been reached
    true_s: Mapping[str, float] = field(default_factory=dict)  # own rule and labels -> seconds for which it has held

    @property
    def config(self) -> AlertsConfig:
        """The alerts section of the config in force."""
        return self.facts.config.alerts


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A built-in alert. `lasts`: it is there while something is so."""

    name: str
    lasts: bool
    find: Callable[[Scene], Iterator[Alert]]
    text: str  # what it tells of, in one sentence


RULES: dict[str, Rule] = {}
Find = Callable[[Scene], Iterator[Alert]]


def lasting(find: Find) -> Find:
    """Enter an alert that is there while something is so, under the function's name."""
    return _enter(find, lasts=True)


def passing(find: Find) -> Find:
    """Enter an alert that is told once for each time something happens, under the function's name."""
    return _enter(find, lasts=False)


def _enter(find: Find, *, lasts: bool) -> Find:
    name = find.__name__
    RULES[name] = Rule(name=name, lasts=lasts, find=find, text=(find.__doc__ or "").strip())
    return find


# ---------------------------------------------------------------- the built-in alerts


@lasting
def stuck_job(scene: Scene) -> Iterator[Alert]:
    """A job that should move has not moved for alerts.stuck_s."""
    for job_id, still_s in scene.still_s.items():
        job = scene.facts.jobs.get(job_id)
        if still_s < scene.config.stuck_s or isinstance(job.facts if job else None, Releasing):
            continue
        if job is None:
            reason = f"a slot is free and nothing says why the next job waits, for {_minutes(still_s)}"
            yield Alert(rule="stuck_job", about=job_id, severity=Severity.WARNING, title="the queue does not move", reason=reason, next="lorad status")
            continue
        run = _run_of(job)
        reason = f"{job.state.value} without progress for {_minutes(still_s)}"
        yield Alert(
            rule="stuck_job",
            about=job.id,
            severity=Severity.WARNING,
            title=f"{job.card.adapter}: job {job.id} is stuck",
            reason=reason,
            next=f"lorad jobs logs {job.id}",
            job=job.id,
            run=run,
            adapter=job.card.adapter,
        )


@passing
def failed_job(scene: Scene) -> Iterator[Alert]:
    """A job has failed."""
    for one in _of_kind(scene, "job.failed"):
        words = one.words
        code = f"{words['code']}: " if words.get("code") else ""
        hint = f"; {words['hint']}" if words.get("hint") else ""
        yield Alert(
            rule="failed_job",
            about=one.about,
            severity=Severity.CRITICAL,
            title=f"{words.get('adapter', '')}: job {one.about} failed",
            reason=f"{code}{without_quotes(words.get('reason', ''))}{hint}",
            next=f"lorad jobs show {one.about}",
            job=one.about,
            run=words.get("run", ""),
            adapter=words.get("adapter", ""),
            log=one.log,
        )


@passing
def refused_drop(scene: Scene) -> Iterator[Alert]:
    """The gate has refused a file."""
    for one in _of_kind(scene, "drop.rejected"):
        words = one.words
        double = words.get("code") == "DUPLICATE"
        yield Alert(
            rule="refused_drop",
            about=one.about,
            severity=Severity.INFO if double else Severity.WARNING,
            title=f"{words.get('adapter', '')}: {words.get('file', 'a file')} was refused",
            reason=words.get("code") or "the report says why",
            next=f"cat {shlex.quote(f'{scene.facts.config.home}/inbox/rejected/{one.about}/report.md')}",
            adapter=words.get("adapter", ""),
        )


@lasting
def low_disk(scene: Scene) -> Iterator[Alert]:
    """The disk of home has too little room: training waits."""
    if why := scene.facts.disk.low:
        yield Alert(rule="low_disk", severity=Severity.CRITICAL, title="the disk is low", reason=f"{why}: training waits", next="lorad gc --dry-run")


@lasting
def hot_gpu(scene: Scene) -> Iterator[Alert]:
    """A device is so hot that training pauses on it."""
    for device in scene.facts.devices:
        if device.hot:
            title = f"{device.name} is too hot"
            yield Alert(rule="hot_gpu", about=f"slot {device.slot}", severity=Severity.WARNING, title=title, reason=device.hot, next="lorad status")


@lasting
def no_activation(scene: Scene) -> Iterator[Alert]:
    """A release is not live after alerts.stuck_s, or a target that serves has not been reached for so long."""
    bound_s = scene.config.stuck_s
    for job in scene.facts.views.active.values():
        waited_s = scene.still_s.get(job.id, 0.0)
        if isinstance(job.facts, Releasing) and waited_s >= bound_s:
            why = "; ".join(_trouble(target) for target in scene.facts.targets if _trouble(target)) or job.facts.reason or "no target has confirmed it"
            yield Alert(
                rule="no_activation",
                about=job.id,
                severity=Severity.CRITICAL,
                title=f"{job.card.adapter}: the release of {job.id} is not live",
                reason=f"not confirmed for {_minutes(waited_s)}: {why}",
                next="lorad status",
                job=job.id,
                run=_run_of(job),
                adapter=job.card.adapter,
            )
    for target in scene.facts.targets:
        apart_s = scene.apart_s.get(target.name, 0.0)
        if apart_s >= bound_s:
            title, reason = f"target {target.name} is not reached", f"for {_minutes(apart_s)}: {_trouble(target)}"
            yield Alert(rule="no_activation", about=f"target {target.name}", severity=Severity.CRITICAL, title=title, reason=reason, next="lorad status")


@passing
def daemon_restarted(scene: Scene) -> Iterator[Alert]:
    """The daemon runs again after an end that it did not announce: a crash, a kill, a power cut."""
    for one in _of_kind(scene, "daemon.restarted"):
        reason = f"it gave its last sign of life at {one.words.get('at', 'a time unknown')}, and did not say that it ends; jobs go on where they stood"
        yield Alert(
            rule="daemon_restarted",
            severity=Severity.WARNING,
            title="the daemon was restarted",
            reason=reason,
            next="journalctl -u lorad -n 100",
        )


@lasting
def verdict_waits(scene: Scene) -> Iterator[Alert]:
    """A verdict waits for a person: the job is held."""
    for job in scene.facts.views.active.values():
        if isinstance(job.facts, Held):
            yield Alert(
                rule="verdict_waits",
                about=job.id,
                severity=Severity.WARNING,
                title=f"{job.card.adapter}: job {job.id} waits for your decision",
                reason=job.facts.reason,
                next=f"lorad jobs show {job.id}; lorad jobs approve {job.id} --reason TEXT (or refuse)",
                job=job.id,
                run=job.facts.ranking.verdict or "",
                adapter=job.card.adapter,
            )


@lasting
def iteration_waits(scene: Scene) -> Iterator[Alert]:
    """A round of the loop waits for a person, and not with a held job: its rows, or what it made of a release that is live."""
    for seen in scene.facts.iterations:
        one = seen.iteration
        job = scene.facts.jobs.get(one.job)
        if one.pause and not (job is not None and isinstance(job.facts, Held)):
            yield Alert(
                rule="iteration_waits",
                about=one.id,
                severity=Severity.WARNING,
                title=f"{one.adapter}: an iteration waits for your decision in stage {one.state.value}",
                reason=one.pause,
                next=f"lorad iteration show {one.id}; lorad iteration continue {one.id} (or stop)",
                job=one.job,
                adapter=one.adapter,
            )


@passing
def iteration_went_back(scene: Scene) -> Iterator[Alert]:
    """A round of the loop has ended with its release taken back."""
    for one in _of_kind(scene, "iteration.rolled_back"):
        yield Alert(
            rule="iteration_went_back",
            about=one.about,
            severity=Severity.WARNING,
            title=f"{one.words.get('adapter', '')}: the release of an iteration was taken back",
            reason=one.words.get("reason", ""),
            next=f"lorad iteration show {one.about}",
            job=one.words.get("job", ""),
            adapter=one.words.get("adapter", ""),
        )


@lasting
def quality_fell(scene: Scene) -> Iterator[Alert]:
    """What an adapter serves is proven to be worse than before: by a verdict's measures, by feedback, or by incidents."""
    for one in scene.facts.regressions:
        yield Alert(
            rule="quality_fell",
            about=f"{one.adapter}, {one.measure}",
            severity=Severity.WARNING,
            title=f"{one.adapter}@v{one.version} got worse",
            reason=f"{one.sentence}, since {one.since:%Y-%m-%d %H:%M}",
            next=f"lorad adapters history {one.adapter}",
            adapter=one.adapter,
        )


@lasting
def rolled_back(scene: Scene) -> Iterator[Alert]:
    """A box has rolled a release back by its own guard; it is there until another release of the adapter is live."""
    for target in scene.facts.targets:
        active = target.observed.active if target.observed else None
        for alias, state in sorted(active.watches.items()) if active else ():
            if state.phase == Phase.ROLLED_BACK:
                yield Alert(
                    rule="rolled_back",
                    about=f"{alias}, target {target.name}",
                    severity=Severity.CRITICAL,
                    title=f"{alias}: target {target.name} went back to {state.before[:12] if state.before else 'the base model'}",
                    reason=f"release {state.release[:12]}: {state.reason}",
                    next=f"lorad adapters history {alias}",
                    adapter=alias,
                )


def own_rules(scene: Scene) -> Iterator[Alert]:
    """The rules of config (alerts.rules)."""
    for name, rule in scene.config.rules.items():
        for measure in scene.measures:
            key = window_key(name, measure)
            if key not in scene.true_s or scene.true_s[key] < rule.for_s:
                continue
            bound = f"above {rule.above:g}" if rule.above is not None else f"below {rule.below:g}"
            held = f" for {_minutes(rule.for_s)}" if rule.for_s else ""
            yield Alert(
                rule=f"{OWN}{name}",
                about=",".join(f"{label}={value}" for label, value in measure.labels),
                severity=Severity(rule.severity),
                title=f"{name}: {measure.words} is {bound}",
                reason=f"it is {measure.value:g}, {bound}{held} (alerts.rules.{name})",
                next="lorad status",
            )


def _of_kind(scene: Scene, kind: str) -> Iterator[Happening]:
    return (one for one in scene.happenings if one.kind == kind)


def _trouble(target: TargetSeen) -> str:
    seen = target.observed
    return f"{seen.code}: {seen.reason}" + (f" ({seen.hint})" if seen.hint else "") if seen and seen.code else ""


def _run_of(job: Job) -> str:
    return job.facts.child.run if isinstance(job.facts, Training | Ranking | Releasing) and job.facts.child else ""


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"


def window_key(name: str, measure: Measure) -> str:
    """What the window of an own rule is known by."""
    return f"{name}/{measure.labels}"


def holds(rule: AlertRule, measure: Measure) -> bool:
    """Whether the measure is that of the rule, and beyond its bound."""
    if measure.name != rule.metric.removeprefix("lorad_"):
        return False
    return measure.value > rule.above if rule.above is not None else rule.below is not None and measure.value < rule.below


def happened(job: str, ended: Ended, adapter: str, run: str, log: tuple[str, ...]) -> Happening:
    """That a job has failed."""
    words = {"code": ended.code, "reason": ended.reason, "hint": ended.hint, "adapter": adapter, "run": run}
    return Happening(kind="job.failed", about=job, words=words, log=log)


def find(scene: Scene) -> dict[str, Alert]:
    """What all rules say now, by key; of what alerts.off names nothing."""
    found = (alert for rule in RULES.values() if rule.name not in scene.config.off for alert in rule.find(scene))
    return {alert.key: alert for alert in (*found, *own_rules(scene))}
