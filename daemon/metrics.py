"""metrics.prom: how things stand in numbers, in Prometheus's text form, for the node exporter's textfile collector.

To add a metric: a line in `METRICS`, and its measures in `measures_of` (what is so now) or a count in `daemon.tally` (what
has happened). Labels are few words of lorad's own: no ids, users or paths.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Literal, NamedTuple

from core.measures import Measure
from daemon.clock import monotonic_s, wall_s
from daemon.standing import Standing
from daemon.tally import Tally
from store.durable import replace_file
from store.paths import Home

PREFIX = "lorad_"
WRITE_EVERY_S = 5.0


class Metric(NamedTuple):
    """What a metric is to Prometheus: its type and its help text."""

    kind: Literal["gauge", "counter", "histogram", "summary"]
    text: str


METRICS: dict[str, Metric] = {
    "up": Metric("gauge", "1 while the daemon runs; 0 once it has ended in order. A dead daemon leaves 1: watch last_tick_timestamp_seconds."),
    "start_timestamp_seconds": Metric("gauge", "When the daemon started."),
    "last_tick_timestamp_seconds": Metric("gauge", "When the daemon last looked at everything; old: it hangs or is dead."),
    "intake_files_total": Metric("counter", "Files that were taken from the inbox, by what came of them."),
    "intake_waiting": Metric("gauge", "Files that lie in the inbox, or are on their way through the gate."),
    "gate_seconds": Metric("histogram", "From the moment a file goes to the gate to the verdict, by level."),
    "queue_depth": Metric("gauge", "Jobs that have not ended, by state and by priority (high, normal, low)."),
    "queue_oldest_seconds": Metric("gauge", "How long ago the oldest job was made that still waits to train; 0: none waits."),
    "queue_paused": Metric("gauge", "1 while a person has paused all training."),
    "queue_closed": Metric("gauge", "1 while windows or quiet hours let nothing train."),
    "job_state": Metric("gauge", "Jobs by state."),
    "job_seconds": Metric("summary", "From the first training to the end of a job, by the state it ended in."),
    "train_loss": Metric("gauge", "Loss of the last step, by slot."),
    "train_step": Metric("gauge", "Steps done, by slot."),
    "train_steps_wanted": Metric("gauge", "Steps of the whole training, by slot."),
    "train_tokens_per_second": Metric("gauge", "Tokens that are learnt from, by slot."),
    "train_tokens_total": Metric("counter", "Tokens that trainings have gone through."),
    "trainable_token_ratio": Metric("gauge", "Share of the tokens that the loss is made of, by slot."),
    "oom_retries_total": Metric("counter", "Attempts with a smaller micro-batch after a want of memory."),
    "gate_verdict_total": Metric("counter", "Verdicts on checkpoints: promote, hold, refuse."),
    "adapter_score": Metric("gauge", "What a verdict measured of the release that an adapter serves, by measure."),
    "adapter_regressions": Metric("gauge", "Measures by which an adapter is proven to be worse than before."),
    "adapter_user_satisfaction": Metric("gauge", "Of the answers of the live release that users rated within a day, the share they liked."),
    "adapter_user_satisfaction_answers": Metric("gauge", "How many answers that is taken over."),
    "adapter_correction_rate": Metric("gauge", "Of the answers of the live release that anybody judged within a day, the share that was wrong."),
    "adapter_correction_rate_answers": Metric("gauge", "How many answers that is taken over."),
    "adapter_incidents_total": Metric("counter", "Rollbacks and failed restores of an adapter's releases, by the word of the first target."),
    "signals": Metric("gauge", "Signals of users by adapter and standing; rows are those pending that triggers count."),
    "signals_total": Metric("counter", "Signals that were stored, by where they lay then."),
    "rollback_total": Metric("counter", "Rollbacks, by who asked."),
    "skill_level": Metric("gauge", "Level at which a skill is learnt."),
    "skill_accuracy": Metric("gauge", "Share of unseen rows of its level that what serves answered right in the last evaluation, by skill."),
    "skill_baseline": Metric("gauge", "The same of the base itself, by skill."),
    "target_reachable": Metric("gauge", "1 where the inference box answers, by the target's name in the config."),
    "disk_free_bytes": Metric("gauge", "Free space of the disk that holds home."),
    "disk_free_inodes": Metric("gauge", "Free inodes of the disk that holds home, where it counts them."),
    "disk_total_bytes": Metric("gauge", "Size of the disk that holds home."),
    "disk_low": Metric("gauge", "1 while training waits for space."),
    "home_bytes": Metric("gauge", "What lorad holds, by the last count."),
    "gpu_celsius": Metric("gauge", "Temperature of a GPU."),
    "gpu_free_bytes": Metric("gauge", "Free memory of a GPU."),
    "cpu_celsius": Metric("gauge", "Temperature of the processor, where it has a sensor and training runs on it."),
    "slot_held": Metric("gauge", "1 while training in the slot pauses for heat."),
    "alerts_total": Metric("counter", "Alerts that were told, by rule."),
    "alerts_open": Metric("gauge", "Alerts that are open."),
    "alerts_waiting": Metric("gauge", "Notices that a channel has not taken yet."),
    "log_lines_dropped": Metric("gauge", "Log lines that nobody read, since the daemon started."),
}


def measures_of(standing: Standing, tally: Tally, now: datetime) -> tuple[Measure, ...]:
    """Everything that is measured now, counts included."""
    parts = (_of_daemon(standing), _of_queue(standing, tally, now), _of_training(standing), _of_signals(standing), _of_machine(standing))
    return (*(measure for part in parts for measure in part), *tally.counters.measures())


def _of_daemon(standing: Standing) -> Iterator[Measure]:
    yield Measure("up", float(standing.daemon["state"] == "running"))
    yield Measure("start_timestamp_seconds", datetime.fromisoformat(standing.daemon["started_at"]).timestamp())
    yield Measure("last_tick_timestamp_seconds", wall_s())
    yield Measure("log_lines_dropped", standing.daemon["log_lines_dropped"])
    for target in standing.targets:
        yield Measure("target_reachable", float(target["reachable"]), (("target", target["name"]),))


def _of_queue(standing: Standing, tally: Tally, now: datetime) -> Iterator[Measure]:
    yield Measure("intake_waiting", sum(standing.drops.values()))
    for state, count in standing.queue.items():
        yield Measure("job_state", count, (("state", state),))
    for state, priority in sorted({("queued", "high"), ("queued", "normal"), ("queued", "low"), *tally.depth}):
        yield Measure("queue_depth", tally.depth[state, priority], (("state", state), ("priority", priority)))
    oldest = standing.schedule["oldest_queued_at"]
    yield Measure("queue_oldest_seconds", max(0.0, (now - datetime.fromisoformat(oldest)).total_seconds()) if oldest else 0)
    yield Measure("queue_paused", float(bool(standing.schedule["paused"])))
    yield Measure("queue_closed", float(bool(standing.schedule["closed"])))


def _of_training(standing: Standing) -> Iterator[Measure]:
    names = {"loss": "train_loss", "step": "train_step", "total_steps": "train_steps_wanted"}
    names |= {"tokens_per_s": "train_tokens_per_second", "supervised_share": "trainable_token_ratio"}
    for job in standing.at_work:
        if job["stage"] == "train":
            slot = (("slot", str(job["slot"])),)
            yield from (Measure(name, job[key], slot) for key, name in names.items() if job[key] is not None)


def _of_signals(standing: Standing) -> Iterator[Measure]:
    for adapter, counts in standing.feedback.items():
        for name in ("rows", "pending", "review", "quarantined", "capped", "rejected", "queued"):
            yield Measure("signals", counts[name], (("adapter", adapter), ("standing", name)))


def _of_machine(standing: Standing) -> Iterator[Measure]:
    disk, mount = standing.disk, (("mount", "home"),)
    yield Measure("disk_free_bytes", disk["free_bytes"], mount)
    yield Measure("disk_total_bytes", disk["total_bytes"], mount)
    if disk["free_inodes"] is not None:
        yield Measure("disk_free_inodes", disk["free_inodes"], mount)
    yield Measure("disk_low", float(bool(disk["low"])), mount)
    yield Measure("home_bytes", disk["home_bytes"])
    told = set()
    for device in standing.devices:
        name = device["name"].split(" ")[0]
        part = "cpu" if name == "cpu" else "gpu"
        labels = () if part == "cpu" else ((part, name),)
        yield Measure("slot_held", float(bool(device["held"])), (("slot", str(device["slot"])),))
        if name in told:
            continue  # several slots of one device
        told.add(name)
        if device["celsius"] is not None:
            yield Measure(f"{part}_celsius", device["celsius"], labels)
        if part == "gpu" and device["free_bytes"] is not None:
            yield Measure("gpu_free_bytes", device["free_bytes"], labels)


# ---------------------------------------------------------------- the file


def text_of(measures: Iterable[Measure]) -> str:
    """The measures in Prometheus's text form, each metric with its help and type."""
    lines: dict[str, list[str]] = {}
    for measure in measures:
        labels = ",".join(f'{key}="{_escaped(value)}"' for key, value in measure.labels)
        name = f"{PREFIX}{measure.name}{{{labels}}}" if labels else f"{PREFIX}{measure.name}"
        lines.setdefault(family(measure.name), []).append(f"{name} {_number(measure.value)}")
    parts = []
    for name, samples in lines.items():
        metric = METRICS.get(name)
        if metric is None:
            continue  # a count that another version of lorad kept
        parts += [f"# HELP {PREFIX}{name} {metric.text}", f"# TYPE {PREFIX}{name} {metric.kind}", *samples]
    return "\n".join(parts) + "\n"


def family(name: str) -> str:
    """The metric that a measure belongs to: of a histogram's or summary's parts their common name."""
    whole = name.removesuffix("_bucket").removesuffix("_sum").removesuffix("_count")
    return whole if whole in METRICS else name


def knows(name: str) -> bool:
    """Whether metrics.prom may have a measure of this name."""
    return family(name.removeprefix(PREFIX)) in METRICS


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")


class MetricsFile:
    """Writes home/metrics.prom, at most every five seconds unless it must."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._at_s = float("-inf")

    def write(self, measures: Iterable[Measure], *, must: bool = False) -> None:
        """Show the measures. Raises OSError."""
        if not must and monotonic_s() - self._at_s < WRITE_EVERY_S:
            return
        self._at_s = monotonic_s()
        replace_file(self._home.metrics, text_of(measures), durable=False)
