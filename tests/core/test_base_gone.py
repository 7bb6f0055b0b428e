"""Without a base model nothing new is queued, and whoever asks is told why."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from core.calendar import decide_due
from core.commands import Command, CommandKind
from core.config import Config
from core.facts import Due, Facts
from core.jobviews import EndedJob
from core.records import Ended
from core.requests import decide_requests
from core.steps import FireDue, Reply, RetryJob

AT = datetime(2026, 3, 1, tzinfo=UTC)


def facts(base: str | None, **more: Any) -> Facts:
    return Facts(instance="this", config=Config(allow_stub=True), backend="stub", base_sha256=base, **more)


def test_a_retry_is_answered_with_no_until_the_base_is_there() -> None:
    job = EndedJob(id="job-9", adapter="a/main", drop="drop-1", identity="i", state="failed", facts=Ended(at=AT))
    asked = Command(id="command-1", kind=CommandKind.RETRY, job="job-9", made_at=AT, expires_at=AT.replace(hour=1))
    seen = facts(None, ended={"job-9": job}, commands=(asked,))
    (step,) = decide_requests(seen, AT)
    assert isinstance(step, Reply)
    assert (step.answer.ok, step.answer.code) == (False, "BASE_MISSING")
    (step,) = decide_requests(replace(seen, base_sha256="base"), AT)
    assert isinstance(step, RetryJob)


def test_a_training_of_the_schedule_is_skipped_with_the_reason() -> None:
    due = Due(entry="nightly", does="train", adapter="a/main", drop="drop-1", at=AT)
    (step,) = decide_due(facts(None, due=(due,)))
    assert isinstance(step, FireDue)
    assert step.skip == "there is no base model"
    (step,) = decide_due(facts("base", due=(due,)))
    assert isinstance(step, FireDue)
    assert step.skip == ""
