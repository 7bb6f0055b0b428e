"""The chore "iteration": reads what a training, its verdict and its candidate say, and scans rows, answers and weights.

The scan asks what the gate and packing ask, once more and of everything that would go live: keys and tokens in the rows and
in the candidate's own answers, phrases that fix an answer, files of the adapter that no server should load. What it finds is
told by code, name and line, never by text.
"""

import json
import math
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from core.errors import LoradError
from core.iterations import Looked, Measured
from daemon.findings import in_words
from store.codec import to_plain
from store.drops import rows_folder
from store.paths import Home
from store.rowprints import lines_of
from store.runs import read_exit

SECRET, TRIGGER = "D07", "D12"
UNREADABLE = ("F", "J", "S")  # first letters of the checks of file, JSON and schema
PLAIN = "gate-scan-"  # begins the name of the folder with unpacked rows below tmp/, as `store.holdings` knows it
LOSS = "loss per token"


def chore_measure(home: Home, spec: Mapping[str, Any]) -> dict[str, Any]:
    """What was measured, as a plain `Measured`. It may be repeated. Raises OSError, LoradError.

    `spec`: job, verdict (its run), candidate {path, sha256}, dev_losses of the checkpoints, answers [path], metric; rows [{drop,
    schema_id, columns}] and specs {id: path} to read them by. Paths of runs are relative to `runs/<job>/`.
    """
    runs = home.runs(str(spec["job"]))
    verdict = _json(runs / str(spec["verdict"]) / "verdict.json")
    norm, steps = _of_steps(runs)
    measured = Measured(
        of=str(spec["verdict"]),
        gradient_norm=norm,
        steps=steps,
        steps_since_best=since_best(spec.get("dev_losses") or ()),
        made_up=bool(verdict.get("made_up")),
        perplexity=_perplexity(verdict),
        primary=_primary(verdict, str(spec.get("metric", ""))),
        looks=tuple(_looks(home, runs, spec)),
    )
    return {"measured": to_plain(measured)}


# ---------------------------------------------------------------- the training and its verdict


def _of_steps(runs: Path) -> tuple[float | None, int]:
    """(the largest gradient norm of all training runs of a job, steps that were done). A line that a crash tore is left out."""
    largest, steps = None, 0
    for run in sorted(runs.glob("*-train")):
        note = read_exit(run)
        steps = max(steps, note.steps if note else 0)
        for line in lines_of(run / "progress.jsonl"):
            norm = _number(line, "grad_norm")
            if norm is not None and (largest is None or norm > largest):
                largest = norm
    return largest, steps


def _number(line: bytes, key: str) -> float | None:
    if key.encode() not in line:
        return None
    try:
        value = json.loads(line).get(key)
    except (ValueError, AttributeError):
        return None
    return float(value) if isinstance(value, int | float) and not math.isnan(value) else None


def since_best(dev_losses: Iterable[float | None]) -> int | None:
    """How many checkpoints came after the one with the best dev loss; None where none was measured."""
    losses = [loss for loss in dev_losses if loss is not None]
    return len(losses) - 1 - losses.index(min(losses)) if losses else None


def _comparisons(verdict: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for leg in verdict.get("legs") or ():
        yield from ((str(leg["name"]), one) for one in (leg.get("comparison"), *(leg.get("also") or ())) if one)


def _perplexity(verdict: Mapping[str, Any]) -> float | None:
    """Of the candidate on this drop's rows of the gate split."""
    for name, one in _comparisons(verdict):
        if name == "this drop" and one.get("measure", LOSS) == LOSS:
            return math.exp(min(float(one["after"]), 700.0))
    return None


def _primary(verdict: Mapping[str, Any], metric: str) -> float | None:
    """The candidate's value of a metric that the verdict shows."""
    if not metric:
        return None
    for one in verdict.get("metrics") or ():
        if one["metric"] == metric and one.get("value"):
            return float(one["value"]["mean"])
    return next((float(one["after"]) for _, one in _comparisons(verdict) if one.get("measure") == metric), None)


def _json(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise LoradError(
            f"{path} cannot be read: {error}", hint="`lorad jobs retry ID` after `lorad jobs cancel` judges again", code="VERDICT_UNREADABLE"
        ) from None
    return found if isinstance(found, dict) else {}


# ---------------------------------------------------------------- the security scan


def _looks(home: Home, runs: Path, spec: Mapping[str, Any]) -> Iterator[Looked]:
    found: dict[str, list[str]] = {SECRET: [], TRIGGER: []}
    for rows in spec["rows"]:
        findings, unread = _in_rows(home, rows, spec["specs"])
        for finding in findings:
            found[str(finding["id"])].append(f"{rows['drop']}: {in_words(finding)}")
        if unread:  # what the gate could read and this cannot was not looked at
            found[SECRET].append(f"{rows['drop']}: {unread} rows could not be read")
    answers = [f"{Path(path).name}, line {number}: {title}" for path in spec.get("answers") or () for number, title in secrets_in(runs / path)]
    yield Looked(name="secrets in rows", found="; ".join(found[SECRET][:3]))
    yield Looked(name="secrets in answers", found="; ".join(answers[:3]))
    yield Looked(name="trigger phrases", found="; ".join(found[TRIGGER][:3]))
    yield Looked(name="adapter files", found=_in_files(runs, spec["candidate"]))


def _in_rows(home: Home, rows: Mapping[str, Any], specs: Mapping[str, str]) -> tuple[list[dict[str, Any]], int]:
    """(findings of secrets and trigger phrases in the rows of a drop, rows that are not of its schema). Unpacks them below tmp/ while it reads.

    Rows that the gate put aside are left out, as nothing trains on them; lines are told as they are in the drop.
    """
    from rendering.ownspecs import load_specs
    from rendering.rows import INDEX, index_of
    from validation.checks import CHECKS
    from validation.examination import Setting
    from validation.validators import DataValidator

    off = frozenset(check.id for check in CHECKS if check.id not in (SECRET, TRIGGER) and check.id[0] not in UNREADABLE)
    source = rows_folder(home, str(rows["drop"]))
    kept = sorted({row.line for row in index_of(source / INDEX)})
    wanted = frozenset(kept)
    folder = Path(tempfile.mkdtemp(prefix=PLAIN, dir=home.tmp))
    try:
        path = folder / "rows.jsonl"
        with open(path, "wb") as file:
            file.writelines(line for number, line in enumerate(lines_of(source / "rows.jsonl.zst"), 1) if number in wanted)
        validator = DataValidator(specs=load_specs(specs, Path()), setting=Setting(off=off))
        findings = validator.check_file(path, str(rows["schema_id"]), "DEEP", columns=tuple(rows["columns"])).to_plain()["findings"]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    unread = sum(int(finding["count"]) for finding in findings if finding["id"][0] in UNREADABLE and finding["severity"] == "error")
    told = (finding | {"lines": [kept[line - 1] for line in finding["lines"]]} for finding in findings if finding["id"] in (SECRET, TRIGGER))
    return list(told), unread


def secrets_in(path: Path) -> Iterator[tuple[int, str]]:
    """(line, what it has the shape of) of keys and tokens in a candidate's answers."""
    from validation.checks.secrets import compiled

    patterns = compiled()
    for number, line in enumerate(lines_of(path), 1):
        for span in patterns.in_text(_answer(line)):
            yield number, span.title


def _answer(line: bytes) -> str:
    try:
        found = json.loads(line)
    except ValueError:
        return ""
    return str(found.get("answer", "")) if isinstance(found, dict) else ""


def _in_files(runs: Path, candidate: Mapping[str, Any]) -> str:
    """What no server should load of the candidate's checkpoint; empty: nothing."""
    from deploy.checkpoint import check_checkpoint

    try:
        check_checkpoint(runs / str(candidate["path"]), str(candidate["sha256"]))
    except LoradError as error:
        return f"{error.code}: {error.what.replace(str(runs), runs.name)}"
    return ""
