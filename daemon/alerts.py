"""Watches for what `core.alerts` is about, keeps the book of what was told, and has notices sent by a background chore.

Once a second at most: the rules look, the book and the outbox are saved, then a child is asked to send what is due. A
channel that is slow or gone delays that child and nothing else.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from core.alerts import RULES, Alert, Happening, Scene, Severity, find, holds, window_key
from core.errors import IntegrityError
from core.facts import Facts
from core.measures import Measure
from core.notices import Book, turn
from core.outbox import Outbox, Record, Sent, after, due, put
from core.records import Ended, JobState, Releasing
from core.stillness import is_apart, movement, queue_should_move, should_move
from daemon import clock
from daemon.clock import monotonic_s
from daemon.metrics import knows
from daemon.tally import Tally, failure
from daemon.worker import BackgroundWorker, Chore, ChoreDone
from store.codec import read, to_plain, write
from store.paths import Home

log = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0
MOST_GAP_S = 5.0  # that the time between two looks may add: neither a sleep of the machine nor a jump of the clock makes a job look stuck
QUEUE = "queue"
SHOWN_S = 24 * 3600.0  # that a passing alert stands in status
SHOWN_FOR_S = 60.0  # that the rows are kept where the book does not change
MOST_SHOWN = 50
MOST_CAUGHT_UP = 200  # failures and refusals of an earlier daemon that are looked at after a start


class Watch:
    """For how long things have been so, in seconds of this daemon's life."""

    def __init__(self) -> None:
        self._looked_s = monotonic_s()
        self._marks: dict[str, object] = {}
        self.still_s: dict[str, float] = {}
        self.apart_s: dict[str, float] = {}
        self.true_s: dict[str, float] = {}

    def look(self, facts: Facts, measures: tuple[Measure, ...], now: datetime) -> None:
        """Add the time since the last look to what is still so, and forget what is not."""
        gap_s = min(max(0.0, monotonic_s() - self._looked_s), MOST_GAP_S)
        self._looked_s = monotonic_s()
        self.still_s = self._still(facts, now, gap_s)
        self.apart_s = {target.name: self.apart_s.get(target.name, -gap_s) + gap_s for target in facts.targets if is_apart(target)}
        true = [window_key(name, measure) for name, rule in facts.config.alerts.rules.items() for measure in measures if holds(rule, measure)]
        self.true_s = {key: self.true_s.get(key, -gap_s) + gap_s for key in true}

    def _still(self, facts: Facts, now: datetime, gap_s: float) -> dict[str, float]:
        still_s, marks = {}, {}
        for job in facts.views.active.values():
            if not should_move(job, facts):
                continue
            mark = movement(job, facts)
            known = job.id in self._marks and self._marks[job.id] == mark and mark is not None
            begun = max(0.0, (now - job.facts.since).total_seconds()) if isinstance(job.facts, Releasing) and job.id not in self._marks else 0.0
            still_s[job.id] = self.still_s.get(job.id, 0.0) + gap_s if known else begun
            marks[job.id] = mark
        if queue_should_move(facts, now):
            still_s[QUEUE] = self.still_s.get(QUEUE, -gap_s) + gap_s
        self._marks = marks
        return still_s


class Alerts:
    """The alerts of one daemon."""

    def __init__(self, tally: Tally, worker: BackgroundWorker, now: datetime) -> None:
        self._tally, self._worker, self._home = tally, worker, tally.index.home
        self._watch = Watch()
        self._looked_s = float("-inf")
        known = read_record(self._home)
        self._record = known or Record(book=Book(begun_at=now))
        self._saved = known
        self._sending: tuple[str, ...] = ()  # notices that a child is sending
        self._broken: set[str] = set()
        self._shown: tuple[Book, float, list[dict[str, Any]]] | None = None  # of which book, until when, what
        self._is_unsaved = False
        if known is not None:
            self._catch_up(now)
        worker.hear("alert", self._on_sent)

    # ---------------------------------------------------------------- once a second

    def look(self, facts: Facts, measures: tuple[Measure, ...], now: datetime) -> None:
        """Let the rules look, where a second has passed; save what is new, then have it sent."""
        if monotonic_s() - self._looked_s < LOOK_EVERY_S:
            return
        self._looked_s = monotonic_s()
        self._watch.look(facts, measures, now)
        config = facts.config.alerts
        scene = Scene(
            facts=facts,
            now=now,
            measures=measures,
            happenings=self._tally.take_happenings(),
            still_s=self._watch.still_s,
            apart_s=self._watch.apart_s,
            true_s=self._watch.true_s,
        )
        book, notices = turn(self._record.book, self._found(scene), config, now)
        for notice in notices:
            self._tally.counters.add("alerts_total", float(notice.kind not in ("resolved", "more")), labels={"rule": notice.alert.rule})
            level = logging.INFO if notice.kind == "resolved" else logging.WARNING
            log.log(level, "alert %s: %s: %s", notice.kind, notice.alert.title, notice.alert.reason, extra={"action": "alert", "rule": notice.alert.rule})
        outbox = put(self._record.outbox, notices) if config.webhook or config.urls_file else Outbox()
        self._keep(Record(book=book, outbox=outbox))
        self._send(facts, now)

    def _found(self, scene: Scene) -> dict[str, Alert]:
        try:
            found = find(scene)
        except Exception as error:  # the fan-out of monitors is a border: a rule that fails must not end the daemon
            if type(error).__name__ not in self._broken:
                self._broken.add(type(error).__name__)
                log.exception("the rules of the alerts failed", extra={"action": "alerts_failed"})
            return {key: entry.alert for key, entry in self._record.book.entries.items() if entry.is_open}
        self._broken.clear()
        return found

    def _keep(self, record: Record) -> None:
        """Save before anything is sent. On a full disk it goes on unsaved: that the disk is full must be told."""
        self._record = record
        if record == self._saved:
            return
        try:
            self._home.alerts.parent.mkdir(exist_ok=True)
            write(self._home.alerts, record)
        except OSError as error:
            if not self._is_unsaved:
                log.error("the book of alerts cannot be saved: %s", error, extra={"action": "alerts_unsaved"})
            self._is_unsaved = True
        else:
            self._saved, self._is_unsaved = record, False

    # ---------------------------------------------------------------- sending

    def _send(self, facts: Facts, now: datetime) -> None:
        pending = due(self._record.outbox, now)
        if self._sending or not pending:
            return
        config = facts.config.alerts
        channels = {"webhook": config.webhook, "webhook_key_file": config.webhook_key_file, "urls_file": config.urls_file}
        plain = [{"notice": to_plain(one.notice), "delivered": list(one.delivered)} for one in pending]
        if self._worker.submit(Chore(kind="alert", key="alert", spec={"config": channels, "pending": plain})):
            self._sending = tuple(one.notice.id for one in pending)

    def _on_sent(self, done: ChoreDone) -> None:
        """Take over what came of it. A child that left no result has sent nothing, as far as anybody knows."""
        found: Mapping[str, Any] = done.result.get("sent", {}) if done.ok else {}
        sent = {
            notice: Sent(delivered=tuple(found[notice]["delivered"]), failed=found[notice]["failed"])
            if notice in found
            else Sent(failed={"alerts": f"the child that sends failed: {done.message}"})
            for notice in self._sending
        }
        if found:
            sent = {notice: replace(one, delivered=(*one.delivered, "alerts")) for notice, one in sent.items()}
        self._sending = ()
        self._keep(replace(self._record, outbox=after(self._record.outbox, sent, clock.now())))

    # ---------------------------------------------------------------- for status

    def open(self, now: datetime) -> list[dict[str, Any]]:
        """The alerts that are open, and what has happened within a day, at most fifty."""
        if self._shown is None or self._shown[0] is not self._record.book or monotonic_s() > self._shown[1]:
            self._shown = (self._record.book, monotonic_s() + SHOWN_FOR_S, shown(self._record.book, now))
        return self._shown[2]

    def critical(self) -> tuple[Alert, ...]:
        """The critical alerts that are open."""
        return tuple(entry.alert for entry in self._record.book.entries.values() if entry.is_open and entry.alert.severity is Severity.CRITICAL)

    def notices(self) -> dict[str, Any]:
        """How the sending fares."""
        config, outbox = self._tally.index.config.alerts, self._record.outbox
        is_set = bool(config.webhook or config.urls_file)
        num_open = sum(entry.is_open for entry in self._record.book.entries.values())
        return {"open": num_open, "channels_set": is_set, "waiting": len(outbox.waiting), "given_up": outbox.given_up, "failed": dict(outbox.failed)}

    def warnings(self) -> list[str]:
        """What is wrong with the alerts of the config."""
        config = self._tally.index.config.alerts
        unknown = [f"alerts.off: there is no alert {name!r}; there are {', '.join(RULES)}" for name in config.off if name not in RULES]
        metrics = [f"alerts.rules.{name}: there is no metric {rule.metric!r} in metrics.prom" for name, rule in config.rules.items() if not knows(rule.metric)]
        return unknown + metrics

    # ---------------------------------------------------------------- after a start

    def _catch_up(self, now: datetime) -> None:
        """Failures and refusals of the last day that an earlier daemon did not get to tell."""
        index, book = self._tally.index, self._record.book
        known = {entry.alert.about for entry in book.entries.values()}
        recent = sorted((job for job in index.ended.values() if job.state is JobState.FAILED), key=lambda job: job.id)[-MOST_CAUGHT_UP:]
        for job in recent:
            assert isinstance(job.facts, Ended)
            if job.facts.at > book.begun_at and (now - job.facts.at).total_seconds() < SHOWN_S and job.id not in known:
                self._tally.happen(failure(index, job.id))
        try:
            refused = sorted(folder.name for folder in self._home.rejected.iterdir() if folder.name.startswith("drop-"))[-MOST_CAUGHT_UP:]
        except OSError:
            return
        for drop in refused:
            if drop not in known and (happening := _refusal(self._home.rejected / drop, book.begun_at, now)) is not None:
                self._tally.happen(happening)


def _refusal(folder: Path, since: datetime, now: datetime) -> Happening | None:
    """That a drop was refused within the last day and after `since`, by what lies in its folder."""
    try:
        claim, report = (json.loads((folder / name).read_bytes()) for name in ("claim.json", "report.json"))
        claimed_at = datetime.fromisoformat(claim["claimed_at"])
        code = next((str(finding["id"]) for finding in report["findings"] if finding["severity"] == "error"), "")
        words = {"adapter": str(claim["adapter"]), "file": str(claim["file"]), "code": code}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    is_new = claimed_at > since and (now - claimed_at).total_seconds() < SHOWN_S
    return Happening(kind="drop.rejected", about=folder.name, words=words) if is_new else None


def shown(book: Book, now: datetime) -> list[dict[str, Any]]:
    """What status shows of the book: what is open first, then what has happened, newest first."""
    entries = [entry for entry in book.entries.values() if entry.is_open or _is_recent(entry.alert, entry.opened_at, now)]
    entries.sort(key=lambda entry: (entry.is_open, entry.opened_at), reverse=True)
    rows = []
    for entry in entries[:MOST_SHOWN]:
        plain = to_plain(entry.alert)
        times = {"open": entry.is_open, "opened_at": entry.opened_at.isoformat(), "told_at": entry.told_at.isoformat() if entry.told_at else None}
        rows.append(plain | times | {"untold": entry.untold})
    return rows


def _is_recent(alert: Alert, opened_at: datetime, now: datetime) -> bool:
    passes = alert.rule in RULES and not RULES[alert.rule].lasts
    return passes and (now - opened_at).total_seconds() < SHOWN_S


def read_record(home: Home) -> Record | None:
    """`series/alerts.json`; None where there is none, or it is damaged: then the book begins anew."""
    try:
        return read(Record, home.alerts)
    except FileNotFoundError:
        return None
    except IntegrityError as error:
        log.warning("%s; the book of alerts begins anew", error.what, extra={"action": "record_damaged"})
        return None


def unclean_end(status: Mapping[str, Any] | None, instance: str) -> Happening | None:
    """That the daemon before this one ended without saying so, by the status that it left."""
    before = (status or {}).get("daemon", {})
    if not before or before.get("state") == "stopped" or before.get("instance") == instance:
        return None
    return Happening(kind="daemon.restarted", words={"at": str((status or {}).get("at", ""))[:19] + "Z"})
