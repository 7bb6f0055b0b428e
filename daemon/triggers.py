"""Lets triggers fire: looks at every adapter with pending signals once a second, and begins a batch where one does.

`series/triggers.json` remembers what has fired. A firing is written down before its batch is begun, and its key makes the
batch the same at every repeat: a daemon that dies in between begins it once more at its next start, never a second one.
"""

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, tzinfo
from functools import partial
from itertools import islice
from typing import Protocol

from core.commands import Answer, Command
from core.conditions import Came, Firing, Past, Seen, Stamp
from core.config import Config
from core.errors import IntegrityError, LoradError
from core.facts import Facts
from core.learning import TriggerConfig
from core.queue import waits_of
from core.records import Queued, Ranking, StateFacts, Training
from core.signals import Counts
from core.triggers import after_firing, anchored, begun, conditions_of, covered, crons_of, files_of, first_marks, judge, passed_over, pruned, triggers_of
from daemon import clock, machine
from daemon.index import Index
from daemon.readings import Readings, opening
from daemon.schedules import TRIGGERS, Comings, Cron, Plan, check_crons, zone_of
from store.codec import read, write
from store.commands import put_answer
from store.journal import write_entry
from store.paths import Home
from store.performance import performance_of

log = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0
MOST_BEGUN = 20  # batches in one turn: each takes some ms
BY_HAND = "by hand"  # the trigger of a firing where a person named none


class Buffer(Protocol):
    """The pending signals, as far as triggers need them: `daemon.feedback`."""

    def counts(self) -> Mapping[str, Counts]:
        """The counts of every adapter that has signals; from memory."""

    def begin_batch(self, adapter: str, trigger: str, key: str, now: datetime) -> str:
        """Have a batch made of all pending rows; durable when it returns. The same key gives the same batch. Raises OSError."""

    def is_making(self, adapter: str) -> bool:
        """Whether a batch of the adapter is on its way to the inbox."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """`triggers.json`."""

    pasts: Mapping[str, Past] = field(default_factory=dict)  # by adapter
    plans: Mapping[str, Plan] = field(default_factory=dict)  # when a cron comes next, by its key
    came: Mapping[str, Came] = field(default_factory=dict)  # its newest time, by its key
    format: int = 1


@dataclass(frozen=True, slots=True)
class Clocks:
    """The clocks of a daemon."""

    now: Callable[[], datetime] = clock.now
    elapsed_s: Callable[[], float] = clock.elapsed_s
    boot: Callable[[], str] = machine.boot_id

    def stamp(self) -> Stamp:
        """The present."""
        return Stamp(at=self.now(), elapsed_s=self.elapsed_s(), boot=self.boot())


def read_memory(home: Home) -> Memory:
    """What triggers.json says; nothing where it is missing or damaged: then each trigger begins anew."""
    try:
        return read(Memory, home.triggers)
    except FileNotFoundError:
        return Memory()
    except IntegrityError as error:
        log.warning("%s; the triggers begin anew", error.what, extra={"action": "record_damaged"})
        return Memory()


class Triggers:
    """The triggers of one home. `turn` once a tick.

    Args: is_stopped: whether a person stopped the continuous mode of an adapter. tell: is told of every firing.
    """

    def __init__(self, index: Index, buffer: Buffer, is_stopped: Callable[[str], bool], tell: Callable[..., None], clocks: Clocks | None = None) -> None:
        self._home = index.home
        self._buffer = buffer
        self._is_stopped = is_stopped
        self._tell = tell
        self._clocks = clocks or Clocks()
        self._memory = read_memory(self._home)
        self._config: Config | None = None
        self._triggers: Mapping[str, TriggerConfig] = {}
        self._files: frozenset[str] = frozenset()
        self._least_rows = 1
        self._zone: tzinfo = UTC
        self._opens: Callable[[datetime], datetime | None] = lambda at: at
        self._comings = Comings(self._memory.plans, self._keep_plans, now=self._clocks.now, elapsed_s=self._clocks.elapsed_s)
        self.readings = Readings(partial(performance_of, self._home), self._clocks.elapsed_s)
        self._looked = replace(self._clocks.stamp(), elapsed_s=float("-inf"))
        self._dirty = False
        self._grew: dict[str, tuple[int, float]] = {}  # adapter -> signals that ever became pending, and since when it is so many
        self._ripe: dict[tuple[str, str], float] = {}  # (trigger, adapter) -> since when it would fire, but for rows that keep coming in
        self._follow(index.config)

    # ---------------------------------------------------------------- a look

    def turn(self, facts: Facts) -> None:
        """Fire what is to fire. Raises OSError; the next turn goes on."""
        now = self._clocks.stamp()
        if facts.stopping or now.elapsed_s - self._looked.elapsed_s < LOOK_EVERY_S:
            return
        if now.at < self._looked.at:  # somebody set the clock back
            self._anchor(now)
        self._looked = now
        if facts.config is not self._config:
            self._follow(facts.config)
        self._notice(now)
        waits = waits_of(facts)
        for adapter, counts in sorted(self._buffer.counts().items()):
            calm_s = self._calm_s(adapter, counts, now)
            if self._may_matter(adapter, counts):
                busy = "a batch of it is being made" if self._buffer.is_making(adapter) else busy_with(adapter, facts)
                known = {"stopped": self._is_stopped(adapter), "busy": busy, "waits": waits.all or waits.barred}
                seen = replace(self._seen(adapter, counts, now, facts), calm_s=calm_s, **known)  # type: ignore[arg-type]
                self._look_at(seen)
            else:
                self._forget_ripe(adapter)
        self._save()  # what fires is durable before anything comes of it
        self._finish()
        self._save()

    def _follow(self, config: Config) -> None:
        """Go by this config from now on. Raises ConfigError, and nothing has changed, where a cron text is wrong."""
        check_crons(config)
        triggers, zone = triggers_of(config), zone_of(config.schedule)
        crons = crons_of(triggers)
        self._config, self._triggers, self._zone, self._opens = config, triggers, zone, opening(config.schedule)
        self._files, self._least_rows = frozenset(files_of(triggers)), min(trigger.min_rows for trigger in triggers.values())
        pasts = {adapter: pruned(past, triggers) for adapter, past in self._memory.pasts.items()}
        came = {key: one for key, one in self._memory.came.items() if key in crons}
        self._memory = replace(self._memory, pasts=pasts, came=came)
        self._anchor(self._clocks.stamp())
        self._comings.follow({key: Cron(cron) for key, cron in crons.items()}, {key: f"{cron} {zone}" for key, cron in crons.items()}, zone, TRIGGERS)

    def _anchor(self, now: Stamp) -> None:
        """Let nothing that is remembered lie ahead."""
        pasts = {adapter: anchored(past, now) for adapter, past in self._memory.pasts.items()}
        came = {key: replace(one, at=min(one.at, now.at), noticed=one.noticed.anchored(now)) for key, one in self._memory.came.items()}
        self._memory = replace(self._memory, pasts=pasts, came=came)

    def _notice(self, now: Stamp) -> None:
        """Remember which times of cron texts have come."""
        for key, at in self._comings.look().items():
            self._memory = replace(self._memory, came={**self._memory.came, key: Came(at=at, noticed=now)})
            self._comings.fired(key, at)  # which writes both

    def _calm_s(self, adapter: str, counts: Counts, now: Stamp) -> float:
        if adapter not in self._grew or self._grew[adapter][0] != counts.arrived:
            self._grew[adapter] = (counts.arrived, now.elapsed_s)
        return now.elapsed_s - self._grew[adapter][1]

    def _may_matter(self, adapter: str, counts: Counts) -> bool:
        """Whether a closer look could change anything; of a thousand adapters few have many new rows."""
        past = self._memory.pasts.get(adapter, Past())
        if past.new_rows(counts.rows, counts.arrived, counts.faulty) >= self._least_rows:
            return True
        is_open = any(key not in past.done or one.at > past.done[key] for key, one in self._memory.came.items())
        return is_open or any(key not in past.marks for key in self._files)

    def _seen(self, adapter: str, counts: Counts, now: Stamp, facts: Facts) -> Seen:
        mine = [one for config in self._triggers.values() if covered(config, adapter) for one in conditions_of(config)]
        live = facts.targets[0].live.get(adapter) if facts.targets else None
        return Seen(
            adapter=adapter,
            now=now,
            rows=counts.rows,
            arrived=counts.arrived,
            quarantined=counts.faulty,
            oldest_at=counts.oldest_at,
            came=self._memory.came,
            comes={key: plan.comes_at for key, plan in self._comings.plans.items()},
            readings=self.readings.measures(adapter, [one for one in mine if one.metric], live, now.at),
            marks=self.readings.marks([one.changed for one in mine if one.changed]),
            zone=self._zone,
            opens=self._opens,
        )

    def _look_at(self, seen: Seen) -> None:
        """Fire the first trigger that does; pass over times of cron texts for which too little is there."""
        past = self._memory.pasts.get(seen.adapter, Past())
        before = past
        for name, config in self._triggers.items():
            if not covered(config, seen.adapter):
                continue
            past = replace(past, marks={**past.marks, **first_marks(name, config, seen, past)})
            found = judge(name, config, seen, past, self._ripe_s(name, seen))
            if found.fires:
                firing = Firing(key=key_of(name, seen), trigger=name, stamp=seen.now, rows=seen.rows, why=found.why)
                past = after_firing(past, firing, config, seen)
                self._forget_ripe(seen.adapter)
                break
            if not found.pours:
                self._ripe.pop((name, seen.adapter), None)
            if not found.holds and (times := passed_over(name, config, seen, past)):
                past = replace(past, done={**past.done, **times})
                self._note(seen.now.at, "trigger.passed_over", trigger=name, adapter=seen.adapter, reason=found.words)
        if past != before:
            self._remember(seen.adapter, past)

    def _ripe_s(self, name: str, seen: Seen) -> float:
        return seen.now.elapsed_s - self._ripe.setdefault((name, seen.adapter), seen.now.elapsed_s)

    def _forget_ripe(self, adapter: str) -> None:
        """What has waited for calm has been answered, or has gone: what comes now waits anew."""
        for key in [key for key in self._ripe if key[1] == adapter]:
            del self._ripe[key]

    # ---------------------------------------------------------------- firing

    def _begin(self, adapter: str, firing: Firing) -> str:
        batch = self._buffer.begin_batch(adapter, firing.trigger, firing.key, firing.stamp.at)
        self._remember(adapter, begun(self._memory.pasts[adapter], firing.key, batch))
        fields = {"trigger": firing.trigger, "adapter": adapter, "rows": firing.rows, "reason": firing.why, "actor": firing.actor, "batch": batch}
        self._note(firing.stamp.at, "trigger.fired", **fields)
        return batch

    def _finish(self) -> None:
        """Begin the batches of firings that were written down, some of them in one turn."""
        fired = ((adapter, firing) for adapter, past in self._memory.pasts.items() for firing in past.firings if not firing.batch)
        for adapter, firing in list(islice(fired, MOST_BEGUN)):
            self._begin(adapter, firing)

    def fire(self, command: Command, now: datetime) -> None:
        """Carry out `lorad trigger fire`: whatever the conditions say, all that is pending becomes a drop. Raises OSError."""
        adapter, name = command.adapter, command.details.get("name", "")
        past = self._memory.pasts.get(adapter, Past())
        try:
            known = next((one for one in past.firings if one.key == command.id), None)  # by a daemon that was killed before it answered
            batch = known.batch or self._begin(adapter, known) if known is not None else self._fire_by_hand(command, name, past)
        except LoradError as error:
            put_answer(self._home, Answer(command=command.id, ok=False, message=error.what, hint=error.hint, code=error.code))
            return
        self._save()
        put_answer(self._home, Answer(command=command.id, ok=True, message=f"the pending rows of {adapter} become a drop: {batch}", made=batch))

    def _fire_by_hand(self, command: Command, name: str, past: Past) -> str:
        config = self._triggers.get(name)
        if name and config is None:
            raise LoradError(f"no trigger {name!r}", hint=f"there are {', '.join(self._triggers)}", code="TRIGGER_UNKNOWN")
        counts = self._buffer.counts().get(command.adapter, Counts())
        if not counts.rows and not counts.mistakes:
            what = f"{command.adapter} has no pending row that could be trained on"
            raise LoradError(what, hint="`lorad feedback status` counts what waits, and for what", code="NOTHING_PENDING")
        paths = [one.changed for one in conditions_of(config) if one.changed] if config is not None else []
        known = {"rows": counts.rows, "arrived": counts.arrived, "quarantined": counts.faulty, "marks": self.readings.marks(paths)}
        seen = Seen(adapter=command.adapter, now=self._clocks.stamp(), came=self._memory.came, **known)  # type: ignore[arg-type]
        why = command.reason or "asked for"
        firing = Firing(key=command.id, trigger=name or BY_HAND, stamp=seen.now, rows=counts.rows, why=why, actor=command.actor or "a person")
        self._remember(command.adapter, after_firing(past, firing, config, seen))
        self._save()
        return self._begin(command.adapter, firing)

    # ---------------------------------------------------------------- memory

    def _remember(self, adapter: str, past: Past) -> None:
        self._memory = replace(self._memory, pasts={**self._memory.pasts, adapter: past})
        self._dirty = True

    def _keep_plans(self, plans: Mapping[str, Plan]) -> None:
        self._memory = replace(self._memory, plans=plans)
        self._write()

    def _save(self) -> None:
        if self._dirty:
            self._write()

    def _write(self) -> None:
        self._home.triggers.parent.mkdir(exist_ok=True)
        write(self._home.triggers, self._memory)
        self._dirty = False

    def _note(self, now: datetime, action: str, **fields: object) -> None:
        write_entry(self._home.journal, now, action, **fields)
        self._tell(now, action, **fields)
        words = " ".join(f"{key}={value}" for key, value in fields.items() if value not in (None, ""))
        log.info("%s %s", action, words, extra={"action": action})


def key_of(trigger: str, seen: Seen) -> str:
    """Names a firing, the same at every repeat of it."""
    return hashlib.sha256(f"{trigger} {seen.adapter} {seen.now.at.isoformat()} {seen.arrived}".encode()).hexdigest()[:12]


def busy_with(adapter: str, facts: Facts) -> str:
    """What is on its way for an adapter and would learn too little if another came behind it, in words; empty: nothing."""
    return next(_on_its_way(adapter, facts), "")


def _on_its_way(adapter: str, facts: Facts) -> Iterator[str]:
    """Not what waits for a person, for a time of its own or for a box: that may take days."""
    for job in facts.views.active.values():
        if job.card.adapter == adapter and isinstance(job.facts, Training | Ranking):
            yield f"{job.id} is {job.state.value}: what it learns comes first"
    queue = facts.views.queued
    waiting = [line[0] for name, _, line in queue.lines() if name == adapter]
    waiting += [job.id for job in queue.special.values() if job.card.adapter == adapter and _goes_on(job.facts)]
    if waiting:
        yield f"{min(waiting)} is queued: what it learns comes first"
    for seen in facts.drops.values():
        if seen.drop.claim.adapter == adapter:
            yield f"{seen.drop.id} is {seen.drop.state.value}: what it learns comes first"


def _goes_on(work: StateFacts) -> bool:
    return isinstance(work, Queued) and not work.paused and work.not_before is None
