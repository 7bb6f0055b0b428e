"""What a training was, for whoever looks at it afterwards: report.md to read, report.json to compute with, loss.svg to see.

Everything in them comes from files of the run folder and from `Story`. The learnt spans of three rows lie apart, in
`samples/`, because row text may lie nowhere else.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from store.durable import replace_file
from store.runs import PROGRESS, SETTINGS
from trainer.curve import PICTURE, Curve, draw

REPORT_JSON = "report.json"
REPORT_TEXT = "report.md"
SAMPLES = "samples"
SPANS = "supervised.md"
ROWS_SHOWN = 3
RISES = 0.01
"""Nats per token by which the last dev loss stands above the best before it is called a rise: below, it is noise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A row whose learnt spans are shown: the text of each span that the model learns to say, its end token included."""

    drop: str
    line: int
    spans: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StageTold:
    """A stage as it went; without a last step it was not trained."""

    name: str
    rows: int
    first_step: int
    last_step: int | None
    """Its last checkpoint: a stage ends with one."""
    layer: str = ""
    ranks: tuple[int, int]
    beside: bool = False
    min_gain: float = 0.0
    began: float | None = None
    """Dev loss (nats per token) as it began."""
    best: float | None = None
    """The least of its checkpoints."""

    @property
    def gained(self) -> float | None:
        """How far the dev loss fell within it."""
        return self.began - self.best if self.began is not None and self.best is not None else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """What the files of a run do not say by themselves."""

    base: str
    backend: str
    why: str
    """Why this backend was chosen."""
    start: str = ""
    """Where the training started, and why."""
    stages: tuple[StageTold, ...] = ()
    path: str
    """Which way rows go through the model, and why."""
    device: str
    train_rows: int
    repeated_rows: int = 0
    """Those of them that the adapter it started from had learnt already."""
    dev_rows: int
    overlong: int
    silent: int
    supervised_share: float
    """Learnt tokens among all, 0 to 1."""
    longest: int
    batch_size: int
    micro_batch: int
    memory_mb: int
    gpu_use: float | None = None
    warnings: tuple[str, ...] = ()
    shown: tuple[Shown, ...] = field(default=(), repr=False)


def read_curve(root: Path) -> Curve:
    """The curve that progress.jsonl tells of; torn lines are left out."""
    losses, dev, rates, pace, shares, total = [], [], [], [], [], 0
    for line in _lines(root / PROGRESS):
        step = line.get("step")
        if not isinstance(step, int):
            continue
        total = int(line.get("total_steps") or total)
        if line["stage"] == "train" and line.get("loss") is not None:
            losses.append((step, float(line["loss"])))
            rates.append((step, float(line.get("lr") or 0)))
            pace.append(float(line.get("tokens_per_s") or 0))
            shares.append(float(line.get("share_of_limit") or 0))
        elif line["stage"] == "dev" and line.get("dev_loss") is not None:
            dev.append((step, float(line["dev_loss"])))
    return Curve(losses=losses, dev=dev, rates=rates, total_steps=total, pace=pace, shares=shares)


def _lines(path: Path) -> list[dict[str, Any]]:
    found = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else ():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and "stage" in line:
            found.append(line)
    return found


def write_report(root: Path, story: Story) -> None:
    """Write report.json, report.md, loss.svg and samples/supervised.md of a training that came to its end."""
    curve = read_curve(root)
    settings = _settings(root)
    facts = {key: value for key, value in asdict(story).items() if key != "shown"}
    facts |= {"curve": asdict(curve), "judgement": judgement(curve), "settings": settings}
    replace_file(root / REPORT_JSON, json.dumps(facts, indent=1) + "\n")
    replace_file(root / REPORT_TEXT, _text(story, curve, settings))
    if curve.losses:
        draw(curve, root)
    if story.shown:
        (root / SAMPLES).mkdir(exist_ok=True)
        replace_file(root / SAMPLES / SPANS, _spans_text(story.shown))


def _settings(root: Path) -> dict[str, Any]:
    try:
        found = json.loads((root / SETTINGS).read_bytes())
    except (OSError, ValueError):
        return {}
    values = found.get("values") if isinstance(found, dict) else None
    return values if isinstance(values, dict) else {}


def judgement(curve: Curve) -> str:
    """One sentence: whether the model learnt something that holds for rows it was not trained on."""
    if len(curve.dev) < 2:
        return "There are too few dev losses to say whether it learnt more than its own rows; the verdict of the ranking says it."
    best_step, best = min(curve.dev, key=lambda point: point[1])
    last_step, last = curve.dev[-1]
    first = curve.dev[0][1]
    if last > best + RISES:
        return (
            f"The dev loss was best at step {best_step} ({best:.3f}) and rose to {last:.3f} afterwards: from there it learnt its rows by heart."
            " The ranking judges each checkpoint, so the better one is not lost; fewer epochs or a lower learning rate would save the time."
        )
    if best_step == last_step and first - last > RISES:
        return f"The dev loss fell from {first:.3f} to {last:.3f} and was best at the end: it learnt what holds for other rows too, and more epochs may help."
    return f"The dev loss hardly moved between checkpoints ({first:.3f} to {last:.3f}): the gain came before the first of them, or there was little to learn."


def _text(story: Story, curve: Curve, settings: Mapping[str, Any]) -> str:
    parts = [_headline(story, curve), _learning(curve), *_stages(story.stages), _rows(story), _speed(story, curve)]
    if story.warnings:
        parts.append("## Warnings\n\n" + "\n".join(f"- {warning}" for warning in story.warnings))
    if settings:
        parts.append(_settings_table(settings))
    parts.append(
        "## What comes next\n\nThe kept checkpoints are scored on dev rows, the best of them against what is live on rows that nobody has used;"
        " `lorad jobs show` has the verdict. A falling train loss alone promotes nothing."
    )
    return "\n\n".join(parts) + "\n"


def _headline(story: Story, curve: Curve) -> str:
    steps = f"{curve.losses[-1][0]} of {curve.total_steps} steps" if curve.losses else "no step"
    return (
        f"# Training of {story.base}\n\n{steps}, {story.batch_size} rows each, on {story.device} with backend {story.backend} ({story.why})."
        f"\n\n{_sentence(story.path)} {_sentence(story.start)}".rstrip()
    )


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}." if text else ""


def _learning(curve: Curve) -> str:
    rows = [f"| {step} | {loss:.4f} | {math.exp(min(loss, 20)):.2f} |" for step, loss in curve.dev]
    table = "\n\n| step | dev loss (nats per token) | perplexity |\n| --- | --- | --- |\n" + "\n".join(rows) if rows else ""
    losses = [loss for _, loss in curve.losses]
    tenth = max(1, len(losses) // 10)
    train = (
        f" Train loss: {sum(losses[:tenth]) / tenth:.3f} over the first tenth of the steps, {sum(losses[-tenth:]) / tenth:.3f} over the last." if losses else ""
    )
    picture = f"\n\n![Loss over the steps]({PICTURE})" if losses else ""
    return f"## Did it learn?\n\n{judgement(curve)}{train}{table}{picture}"


def _stages(stages: Sequence[StageTold]) -> Iterator[str]:
    if not stages:
        return
    rows = []
    for stage in stages:
        steps = f"{stage.first_step} to {stage.last_step}" if stage.last_step else "not trained"
        place = "beside the others" if stage.beside else "on top"
        layer = f"{stage.layer}, {stage.ranks[1] - stage.ranks[0]} ranks {place}" if stage.layer else "the whole adapter"
        losses = " | ".join("" if value is None else f"{value:.4f}" for value in (stage.began, stage.best, stage.gained))
        rows.append(f"| {stage.name} | {layer} | {stage.rows} | {steps} | {losses} | {stage.min_gain or ''} |")
    yield (
        "## Stages\n\nDev losses in nats per token: as the stage began, the best of its checkpoints, and what it gained, beside what it was to gain.\n\n"
        "| stage | trains | rows | steps | began | best | gained | wanted |\n| --- | --- | --- | --- | --- | --- | --- | --- |\n" + "\n".join(rows)
    )


def _rows(story: Story) -> str:
    repeated = f" ({story.repeated_rows} of them repeated from what it had learnt before)" if story.repeated_rows else ""
    lines = [
        f"- {story.train_rows} train rows{repeated}, {story.dev_rows} dev rows; the longest has {story.longest} tokens.",
        f"- {story.supervised_share:.0%} of the tokens are learnt (what the assistant says, and the token that ends a turn); the others are context.",
        f"- Left out: {story.overlong} rows over max_length, {story.silent} rows with nothing to learn.",
    ]
    if story.shown:
        lines.append(f"- What is learnt of {len(story.shown)} rows, word for word: [{SAMPLES}/{SPANS}]({SAMPLES}/{SPANS}).")
    return "## What was learnt from\n\n" + "\n".join(lines)


def _speed(story: Story, curve: Curve) -> str:
    pace = sorted(curve.pace)
    told = [f"- {pace[len(pace) // 2]:,.0f} tokens/s at the median step." if pace else "- No step was timed."]
    if shares := sorted(share for share in curve.shares if share):
        told.append(f"- {shares[len(shares) // 2]:.0%} of what this device's matrix products alone would allow.")
    if story.gpu_use is not None:
        told.append(f"- The GPU worked {story.gpu_use:.0%} of the time.")
    told.append(f"- At most {story.memory_mb:,} MiB of memory; forward passes of up to {story.micro_batch or story.batch_size} rows.")
    return "## Speed and memory\n\n" + "\n".join(told)


def _settings_table(settings: Mapping[str, Any]) -> str:
    rows = [
        f"| `{key}` | {entry.get('value')} | {entry.get('origin')} | {entry.get('why', '')} |"
        for key, entry in settings.items()
        if isinstance(entry, Mapping) and (entry.get("origin") != "default" or entry.get("why"))
    ]
    table = "| key | value | from | why |\n| --- | --- | --- | --- |\n" + "\n".join(rows)
    return f"## Settings\n\nWhat somebody set, and what lorad chose by the data; {SETTINGS} has all of them.\n\n{table}"


def _spans_text(shown: Sequence[Shown]) -> str:
    parts = ["# What the model learns to say\n\nDecoded from the very tokens that carry the loss. Everything else of a row is context only.\n"]
    for row in shown:
        spans = "\n\n".join("\n".join(f"    {line}" for line in span.split("\n")) for span in row.spans)
        parts.append(f"## Drop {row.drop}, line {row.line}\n\n{spans}\n")
    return "\n".join(parts)
