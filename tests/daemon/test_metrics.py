"""metrics.prom: what stands in it, in which form, and which counts outlive the daemon."""

import re
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from core.alerts import RULES
from core.facts import DeviceSeen, DiskSeen
from core.measures import Measure
from core.records import ChildRef, JobState, Kind, Queued, Ranking, Training, VerdictWord
from daemon.counters import Counters
from daemon.index import Index
from daemon.metrics import METRICS, MetricsFile, family, measures_of, text_of
from daemon.standing import Look, Process, standing_of
from daemon.tally import Tally

sys.path.insert(0, str(Path(__file__).parent))
from filled_index import AT, drop, ended, facts_of, index_of, queued

SAMPLE = re.compile(r'lorad_[a-z_]+(\{[a-z]+="[^"\n]*"(,[a-z]+="[^"\n]*")*\})? -?[0-9.e+]+')


@pytest.fixture
def index(tmp_path: Path) -> Index:
    return index_of(tmp_path)


@pytest.fixture
def tally(index: Index) -> Tally:
    return Tally(index, Counters.load(index.home.counters))


def measured(tally: Tally, **more: object) -> dict[str, float]:
    """Every measure as `name{labels}`."""
    standing = standing_of(Look(facts=facts_of(tally.index, **more), now=AT, progress={}), tally, Process.this("test", AT))
    found = measures_of(standing, tally, AT + timedelta(days=1))
    return {measure.name + "".join(f"{{{key}={value}}}" for key, value in measure.labels): measure.value for measure in found}


def test_every_line_is_of_the_text_form_and_every_family_has_help_and_type_once(tally: Tally) -> None:
    devices = (DeviceSeen(slot=0, name="cuda:0 RTX 4090", celsius=61, free_bytes=5, total_bytes=9), DeviceSeen(slot=1, name="cuda:0 RTX 4090", celsius=61))
    tally.index.keep_drop(drop(1))
    tally.counters.observe("gate_seconds", 3.0, {"tier": "quick"})
    standing = standing_of(Look(facts=facts_of(tally.index, devices=devices), now=AT, progress={}), tally, Process.this("test", AT))
    lines = text_of(measures_of(standing, tally, AT)).splitlines()
    samples = [line for line in lines if not line.startswith("#")]
    assert [line for line in samples if not SAMPLE.fullmatch(line)] == []
    assert len({line.rsplit(" ", 1)[0] for line in samples}) == len(samples), "no sample twice"
    families = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(families) == len(set(families))
    assert 'lorad_gpu_celsius{gpu="cuda:0"} 61' in samples
    assert 'lorad_gate_seconds_bucket{tier="quick",le="2"} 0' in samples
    assert 'lorad_gate_seconds_bucket{tier="quick",le="10"} 1' in samples


def test_no_id_user_or_path_is_a_label(tally: Tally) -> None:
    job = queued(1)
    tally.index.keep_job(job)
    tally.index.keep_job(ended(job, JobState.FAILED, reason="x"))
    text = text_of([Measure(name, value, ()) for name, value in [("up", 1.0)]]) + "\n".join(measured(tally))
    for secret in (job.id, job.card.drop, "user01", str(tally.index.home.root)):
        assert secret not in text


def test_queue_depth_and_age_follow_every_change(tally: Tally) -> None:
    index = tally.index
    jobs = [queued(0), queued(1, priority=10), queued(2, priority=-3)]
    for job in jobs:
        index.keep_job(job)
    found = measured(tally)
    assert [found[f"queue_depth{{state=queued}}{{priority={word}}}"] for word in ("high", "normal", "low")] == [1, 1, 1]
    assert found["queue_oldest_seconds"] == 24 * 3600
    index.keep_job(ended(jobs[0]))
    found = measured(tally)
    assert found["queue_depth{state=queued}{priority=normal}"] == 0
    assert found["job_state{state=released}"] == 1
    assert found["job_seconds_sum{state=released}"] == 24 * 3600


def test_verdicts_smaller_batches_and_files_are_counted_as_they_happen(tally: Tally) -> None:
    index, job = tally.index, queued(1)
    child = ChildRef(run="01-train", kind=Kind.TRAIN, instance="test", slot=0, started_at=AT)
    index.keep_job(job)
    index.keep_job(replace(job, state=JobState.TRAINING, facts=Training(since=AT, child=child)))
    index.keep_job(replace(job, facts=Queued(since=AT, micro_batch=4)))
    index.keep_job(replace(job, state=JobState.TRAINING, facts=Training(since=AT, child=child, micro_batch=4)))
    index.keep_job(replace(job, state=JobState.RANKING, facts=Ranking(since=AT, candidates=())))
    index.keep_job(replace(job, state=JobState.RANKING, facts=Ranking(since=AT, candidates=(), word=VerdictWord.HOLD)))
    index.keep_job(replace(job, state=JobState.RANKING, facts=Ranking(since=AT, candidates=(), word=VerdictWord.HOLD, looks=1)))
    tally.on_told("drop.accepted", {"drop": "drop-1"})
    found = measured(tally)
    assert (found["oom_retries_total"], found["gate_verdict_total{verdict=hold}"], found["intake_files_total{result=accepted}"]) == (1, 1, 1)
    assert found["gate_verdict_total{verdict=promote}"] == 0, "what has not happened yet is told as none"


def test_tokens_of_every_run_of_a_job_are_counted_once(tally: Tally) -> None:
    for tokens in (100, 300, 300, 400, 50, 80):  # the fifth is of another run
        tally.count_tokens({"job-1": {"stage": "train", "tokens": tokens}})
    assert measured(tally)["train_tokens_total"] == 480


def test_counts_outlive_the_daemon_and_a_damaged_file_begins_anew(index: Index, tally: Tally) -> None:
    tally.on_told("drop.accepted", {})
    tally.counters.save()
    assert measured(Tally(index, Counters.load(index.home.counters)))["intake_files_total{result=accepted}"] == 1
    index.home.counters.write_text('{"counts": [["x"')
    assert measured(Tally(index, Counters.load(index.home.counters)))["intake_files_total{result=accepted}"] == 0


def test_the_file_is_written_at_most_every_five_seconds(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    file, now_s = MetricsFile(index.home), [100.0]
    monkeypatch.setattr("daemon.metrics.monotonic_s", lambda: now_s[0])
    inodes = []
    for second in (100.0, 101.0, 104.9, 105.1):
        now_s[0] = second
        file.write([Measure("up", 1)])
        inodes.append(index.home.metrics.stat().st_mtime_ns)
    assert inodes[0] == inodes[1] == inodes[2] != inodes[3]
    assert index.home.metrics.read_text().splitlines()[-1] == "lorad_up 1"


def test_what_is_measured_is_named_in_the_table_and_in_the_user_guide(tally: Tally) -> None:
    devices = (DeviceSeen(slot=0, name="cuda:0 X", celsius=61, free_bytes=5), DeviceSeen(slot=1, name="cpu", celsius=40))
    tally.counters.observe("gate_seconds", 1, {"tier": "quick"})
    names = {family(name.split("{")[0]) for name in measured(tally, devices=devices, disk=DiskSeen(free_inodes=7))}
    assert names <= set(METRICS)
    guide = (Path(__file__).parents[2] / "docs" / "user-guide.md").read_text()
    assert {name for name in METRICS if f"`{name}`" not in guide} == set()
    howto = (Path(__file__).parents[2] / "docs" / "howto" / "alerts.md").read_text()
    assert {name for name in RULES if f"`{name}`" not in howto} == set()
