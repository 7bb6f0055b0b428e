"""The page of a job as `lorad jobs report` writes it: the ranking's files, and what the job's record adds."""

from pathlib import Path

from cli.jobs import evidence
from core.records import Ended, Job
from ranking.page.document import document
from ranking.page.gathering import Absent, gather
from store.durable import replace_file
from store.paths import Home


def write_report(home: Home, job: Job, out: Path) -> tuple[Path, tuple[Absent, ...]]:
    """(the page's path, what it does not have). Raises OSError where it cannot be written."""
    order, verdict = evidence(home, job)
    facts = job.facts
    when = facts.at if isinstance(facts, Ended) else facts.since
    heading = {"job": job.id, "adapter": job.card.adapter, "file": job.card.file, "state": job.state.value, "since": f"{when:%Y-%m-%d %H:%M} UTC"}
    if isinstance(facts, Ended) and facts.by != "lorad":
        heading["decided by"] = f"{facts.by}: {facts.reason}"
    material = gather(home.runs(job.id), job.id, verdict.parent if verdict else None, order.parent if order else None, heading)
    replace_file(out, document(material), durable=False)
    return out.absolute(), material.absent
