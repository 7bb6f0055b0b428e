"""Reads what a suite gave: the value of each of its items under one model. All or nothing, as score files."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from core.tasks import RankTask
from ranking.evidence import Rules, ScoreFile
from ranking.scores import missing, path_of
from ranking.statistics import Floats

AUTO = "auto"
CONDITIONS = ("backend", "made_up", "settings")  # of a header


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteResult:
    """The value of each item of a suite under one model, from 0 to 1.

    A generated suite may stop early, once a sequential test against the model `against` has proven `outcome` (the rule stands in
    the file): then there are fewer than `num_items` values, and they are fit for that comparison alone.
    """

    name: str
    model: str
    conditions: Mapping[str, Any]
    items: tuple[str, ...]
    groups: tuple[str, ...]
    values: Floats
    num_items: int
    is_generated: bool
    against: str
    outcome: str
    file: ScoreFile

    @property
    def is_whole(self) -> bool:
        """Whether every item of the suite was asked."""
        return len(self.items) == self.num_items


def read_suite_result(key: str, path: Path) -> SuiteResult:
    """The file under `suite/<name>/<model>`. Raises EvidenceError: all or nothing, as score files."""
    _, name, model = key.split("/", 2)
    try:
        raw = path.read_bytes()
        header, *rows = [json.loads(line) for line in raw.splitlines()]
        items = tuple(str(row["item"]) for row in rows)
        suite, stopping = header["suite"], header.get("stopping") or {}
        result = SuiteResult(
            name=name,
            model=model,
            conditions={key: header[key] for key in CONDITIONS} | {"suite": suite},
            items=items,
            groups=tuple(str(row.get("group") or row["item"]) for row in rows),
            values=np.array([_value(row["value"]) for row in rows], dtype=np.float64),
            num_items=int(suite["items"]),
            is_generated=bool(suite["generated"]),
            against=str(stopping.get("against", "")),
            outcome=str(stopping.get("outcome", "")),
            file=ScoreFile(sha256=hashlib.sha256(raw).hexdigest(), rows=len(items)),
        )
        is_other = header["header"] is not True or header["model"] != model or suite["name"] != name
    except OSError as error:
        missing(f"{key} cannot be read: {error.strerror}")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        missing(f"{key} is damaged")
    if not raw.endswith(b"\n") or not items or len(set(items)) != len(items):
        missing(f"{key} is torn, empty, or scores an item twice")
    if is_other or (not result.is_whole and not result.outcome) or len(items) > result.num_items:
        missing(f"{key} is that of another suite or model, or lacks items")
    return result


def _value(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or not 0 <= value <= 1:
        raise ValueError("not a value from 0 to 1")
    return float(value)


def suite_names(task: RankTask, rules: Rules) -> tuple[str, ...]:
    """The suites that the verdict asks for: those that config names, and those that any of the models was scored on."""
    scored = {key.split("/", 2)[1] for key in task.scores if key.startswith("suite/")}
    return tuple(sorted(scored | {name for name in rules.suites if name != AUTO}))


def paired_suite(task: RankTask, name: str, before: str, after: str) -> tuple[SuiteResult, SuiteResult]:
    """A suite's results of two models, on the same items in the same order. Raises EvidenceError where they are not comparable."""
    one, other = (read_suite_result(key, path_of(task.scores, key)) for key in (f"suite/{name}/{before}", f"suite/{name}/{after}"))
    if _comparable(one) != _comparable(other):
        missing(f"suite {name} was scored under other conditions for {after} than for {before}")
    if not one.is_whole or (not other.is_whole and other.against != before):
        missing(f"suite {name} stopped early for {before if not one.is_whole else after}, against another model than the one it is compared with")
    place = {item: index for index, item in enumerate(one.items)}
    if strangers := set(other.items) - place.keys():
        missing(f"suite {name}: {len(strangers)} items were asked of {after} and not of {before}")
    order = [place[item] for item in other.items]
    one = replace(one, items=other.items, groups=tuple(one.groups[index] for index in order), values=one.values[order])
    if other.groups != one.groups:
        missing(f"suite {name}: the groups of its items differ")
    return one, other


def _comparable(result: SuiteResult) -> dict[str, Any]:
    """What must be the same for two models; the chat template belongs to the base, which may be another one."""
    found = dict(result.conditions)
    return found | {"settings": {key: value for key, value in found["settings"].items() if key != "template"}}
