"""Reads score files. All or nothing: evidence with a hole in it is no evidence.

A file is a header line and one line a row. A torn line, a number that is not finite, a row twice, a row that another
compared file does not have, or other conditions (backend, base, settings) raise EvidenceError; the verdict is then hold.
A column that all rows may lack (`correct` of files of an earlier lorad; `right` and `chosen` where nothing is a pair) is
there in every row that it concerns, or in none.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from core.errors import LoradError
from ranking.evidence import Conditions, ScoreFile, Standing

HINT = "`lorad jobs retry ID` scores again; a person may also look and approve"
TOO_SMALL = "drop more rows: of 200 conversations, 30 are held back for each of dev and gate"
OPTIONAL = ("correct", "right", "chosen")
ROUNDING = 1e-3  # nats a row: how far below 0 a sum of -log p may come out

Floats = NDArray[np.float64]


class EvidenceError(LoradError):
    """A score file is missing, damaged, or not comparable with the others."""


def missing(what: str, hint: str = HINT) -> NoReturn:
    """Raises EvidenceError."""
    raise EvidenceError(what, hint=hint, code="EVIDENCE_MISSING")


def _name(path: Path) -> str:
    """Run, folder and file: what a person needs to find it. A verdict travels, so it names no path of this box."""
    return "/".join(path.parts[-3:])


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """One score file: row i is `rows[i]` = (drop, line) of conversation `groups[i]`, with `losses[name][i]` nats over `tokens[i]` tokens."""

    model: str
    split: str
    file: ScoreFile
    conditions: Conditions
    made_up: bool
    rows: tuple[tuple[str, int], ...]
    groups: tuple[str, ...]
    tokens: Floats
    losses: Mapping[str, Floats]
    correct: Floats | None = None
    """How many of the row's tokens the model holds the likeliest; None: the file does not say."""
    right: Floats | None = None
    """Whether the better answer of a pair is preferred (1, a tie 0.5, else 0), NaN for a row that is no pair; None: there are no pairs."""
    chosen: Floats | None = None
    """Of a pair, the loss of the better answer in nats over the row's tokens; NaN as above."""

    @property
    def loss(self) -> Floats:
        """Loss of each row, of a file that is not a shift file."""
        return self.losses["loss"]

    def standing(self) -> Standing:
        """Loss per token over all rows."""
        return Standing(model=self.model, split=self.split, loss=float(self.loss.sum() / self.tokens.sum()), rows=len(self.rows), tokens=int(self.tokens.sum()))


def read_scores(key: str, path: Path) -> Scores:
    """The score file under `key` (`<split>/<model>`). Raises EvidenceError, also for a file without rows."""
    scores = _read(key, path, ("loss",))
    if not scores.rows:
        missing(f"{_name(path)} holds no rows: the job has none in its {scores.split} split", TOO_SMALL)
    return scores


def read_shift(key: str, path: Path) -> Scores:
    """The shift file under `key` (`shift…/<model>`): losses `loss_own` and `loss_shifted`. May have no rows. Raises EvidenceError."""
    return _read(key, path, ("loss_own", "loss_shifted"))


def _read(key: str, path: Path, names: tuple[str, ...]) -> Scores:
    try:
        raw = path.read_bytes()
    except OSError as error:
        missing(f"scores {key!r} cannot be read: {_name(path)}: {error.strerror}")
    if not raw.endswith(b"\n"):
        missing(f"{_name(path)} is torn: its last line has no end")
    header, *rows = [_parse(path, number, line) for number, line in enumerate(raw.splitlines(), 1)]
    split, _, model = key.rpartition("/")
    made_up, conditions = _header(path, header, model, split)
    found = [_row(path, number, row, names) for number, row in enumerate(rows, 2)]
    places = tuple(place for place, _, _ in found)
    if len(set(places)) != len(places):
        missing(f"{_name(path)} scores a row twice")
    values = np.array([numbers for _, _, numbers in found], dtype=np.float64).reshape(len(found), 1 + len(names))
    more = {name: _column(path, name, rows, values[:, 0]) for name in OPTIONAL}
    if more["correct"] is not None and np.isnan(more["correct"]).any():
        missing(f"{_name(path)} says of some rows only how many tokens are right")
    return Scores(
        model=model,
        split=split,
        file=ScoreFile(sha256=hashlib.sha256(raw).hexdigest(), rows=len(found)),
        conditions=conditions,
        made_up=made_up,
        rows=places,
        groups=tuple(group for _, group, _ in found),
        tokens=values[:, 0],
        losses={name: values[:, i] for i, name in enumerate(names, 1)},
        **more,
    )


def _column(path: Path, name: str, rows: Sequence[Mapping[str, object]], tokens: Floats) -> Floats | None:
    """A column that rows may lack, NaN where they do; None where all lack it."""
    if not any(row.get(name) is not None for row in rows):
        return None
    found = np.full(len(rows), np.nan)
    for index, row in enumerate(rows):
        if (value := row.get(name)) is not None:
            found[index] = _loss(path, index + 2, name, value)
            most = {"correct": tokens[index], "right": 1.0}.get(name, math.inf)
            if found[index] > most:
                missing(f"{_name(path)}:{index + 2} has {name} {value!r:.40}, expected at most {most:g}")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")


def _parse(path: Path, number: int, line: bytes) -> dict[str, object]:
    try:
        value = json.loads(line, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        missing(f"{_name(path)}:{number} is not JSON: {error}")
    if not isinstance(value, dict):
        missing(f"{_name(path)}:{number} is not an object")
    return value


def _header(path: Path, header: dict[str, object], model: str, split: str) -> tuple[bool, Conditions]:
    if header.get("header") is not True:
        missing(f"{_name(path)} has no header line")
    if header.get("model") != model:
        missing(f"{_name(path)} scores model {header.get('model')!r}, expected {model!r}")
    # A shift file lies under shift/, shift-dev/ or shift-gate/, a second look under noise-gate/; the header names the split of its rows.
    if not split.startswith(("shift", "noise")) and header.get("split") != split:
        missing(f"{_name(path)} scores split {header.get('split')!r}, expected {split!r}")
    backend, base, settings, made_up = (header.get(name) for name in ("backend", "base_sha256", "settings", "made_up"))
    if not (isinstance(backend, str) and isinstance(base, str) and isinstance(settings, dict) and isinstance(made_up, bool)):
        missing(f"{_name(path)}: the header does not name backend, base_sha256, settings and made_up")
    return made_up, Conditions(backend=backend, base_sha256=base, settings=settings)


def _row(path: Path, number: int, row: dict[str, object], names: tuple[str, ...]) -> tuple[tuple[str, int], str, tuple[float, ...]]:
    drop, line, group, tokens = (row.get(name) for name in ("drop", "line", "group", "tokens"))
    if not (isinstance(drop, str) and type(line) is int and isinstance(group, str) and group and type(tokens) is int and 0 < tokens < 1 << 31):
        missing(f"{_name(path)}:{number} is not a scored row: drop {drop!r}, line {line!r}, group {group!r}, tokens {tokens!r}")
    return (drop, line), group, (float(tokens), *(_loss(path, number, name, row.get(name)) for name in names))


def _loss(path: Path, number: int, name: str, value: object) -> float:
    try:
        if not isinstance(value, bool) and isinstance(value, int | float) and math.isfinite(value) and value >= -ROUNDING:
            return float(value)
    except OverflowError:  # an integer too large for a float
        pass
    missing(f"{_name(path)}:{number} has {name} {value!r:.40}, expected a finite sum of -log p")


def path_of(scores: Mapping[str, str], key: str) -> Path:
    """Where the score file under `key` lies. Raises EvidenceError where nobody scored it."""
    if key not in scores:
        missing(f"nobody scored {key!r}")
    return Path(scores[key])


def check_conditions(files: Sequence[Scores], backend: str, other: Scores | None = None) -> Conditions:
    """The conditions that all files share. Raises EvidenceError where one was made under others, or not by `backend`.

    Args: other: one more file, of which the base may be another.
    """
    first = files[0]
    if first.conditions.backend != backend:
        missing(f"{first.split}/{first.model} was scored by {first.conditions.backend!r}, the job is of {backend!r}")
    if other is not None and has_other_base(other, first):  # which brings its own chat template
        own = first.conditions
        settings = {**other.conditions.settings, "template": own.settings.get("template")} if "template" in own.settings else other.conditions.settings
        other = replace(other, conditions=replace(other.conditions, base_sha256=own.base_sha256, settings=settings))
    files = files if other is None else [*files, other]
    for one in files[1:]:
        if one.conditions != first.conditions or one.made_up != first.made_up:
            missing(f"{one.split}/{one.model} was scored under other conditions than {first.split}/{first.model}: {one.conditions} and {first.conditions}")
    return first.conditions


def has_other_base(one: Scores, other: Scores) -> bool:
    """Whether two files are of models on different bases: then tokens, and losses per token, are not comparable."""
    return one.conditions.base_sha256 != other.conditions.base_sha256


def aligned(scores: Scores, to: Scores) -> Scores:
    """`scores` in the row order of `to`. Raises EvidenceError unless both have the same rows with the same groups and,
    on the same base, the same token counts."""
    place = {row: i for i, row in enumerate(scores.rows)}
    names = f"{scores.split}/{scores.model} and {to.split}/{to.model}"
    if place.keys() != set(to.rows):
        only = sorted(place.keys() ^ set(to.rows))
        missing(f"{names} do not score the same rows: {len(only)} stand in one of them only, the first is line {only[0][1]} of {only[0][0]!r}")
    order = [place[row] for row in to.rows]
    groups = tuple(scores.groups[i] for i in order)
    same_tokens = has_other_base(scores, to) or np.array_equal(scores.tokens[order], to.tokens)
    if groups != to.groups or not same_tokens:
        missing(f"{names} do not agree on the groups or token counts of their rows")
    losses = {name: values[order] for name, values in scores.losses.items()}
    more: dict[str, Any] = {name: None if (values := getattr(scores, name)) is None else values[order] for name in OPTIONAL}
    for name, values in more.items():
        if not has_other_base(scores, to) and (values is None) != (getattr(to, name) is None):
            missing(f"{names}: only one of them says what is {name}")
    return replace(scores, rows=to.rows, groups=groups, tokens=scores.tokens[order], losses=losses, **more)
