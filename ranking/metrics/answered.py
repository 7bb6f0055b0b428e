"""Files of answers: what one model said to held-out rows. All or nothing, as score files."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ranking.evidence import ScoreFile
from ranking.metrics.metric import Place
from ranking.scores import missing

OWN_HEADER = ("header", "model", "adapter", "base_sha256")  # what may differ between the answers of two models that are compared


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """One file of answers: `texts` by row, `conditions` under which they were given."""

    model: str
    base_sha256: str
    file: ScoreFile
    conditions: Mapping[str, Any]
    texts: Mapping[Place, str]
    groups: Mapping[Place, str]

    def check_alike(self, other: "Answers") -> None:
        """Raises EvidenceError unless the other model answered the same rows under equal conditions."""
        same_base = self.base_sha256 == other.base_sha256
        one, two = (found.conditions if same_base else _of_any_base(found.conditions) for found in (self, other))
        if one != two:
            missing(f"{self.model!r} and {other.model!r} answered under other conditions: {self.conditions} and {other.conditions}")
        if self.groups != other.groups:
            strangers = len(self.groups.items() ^ other.groups.items())
            missing(f"{self.model!r} and {other.model!r} did not answer the same rows: {strangers} stand in one file only")


def read_answers(key: str, path: Path) -> Answers:
    """The answers under `key` (`answers/<split>/<model>`). Raises EvidenceError for a file that is missing, torn, or of another model or split."""
    _, split, model = key.split("/", 2)
    name = "/".join(path.parts[-3:])
    try:
        raw = path.read_bytes()
        header, *lines = [json.loads(line) for line in raw.splitlines()]
    except OSError as error:
        missing(f"answers {key!r} cannot be read: {name}: {error.strerror}")
    except (ValueError, RecursionError) as error:
        missing(f"{name} is not JSON Lines with a header: {error}")
    if not raw.endswith(b"\n"):
        missing(f"{name} is torn: its last line has no end")
    if not isinstance(header, dict) or header.get("header") is not True or header.get("model") != model or header.get("split") != f"answers/{split}":
        missing(f"{name} has no header that names the model {model!r} and the split 'answers/{split}'")
    found: dict[Place, tuple[str, str]] = {}
    for number, line in enumerate(lines, 2):
        place, group, answer = _answer(f"{name}:{number}", line)
        if place in found:
            missing(f"{name}:{number} answers a row twice")
        found[place] = (group, answer)
    return Answers(
        model=model,
        base_sha256=str(header.get("base_sha256")),
        file=ScoreFile(sha256=hashlib.sha256(raw).hexdigest(), rows=len(found)),
        conditions={name: value for name, value in header.items() if name not in OWN_HEADER},
        texts={place: answer for place, (_, answer) in found.items()},
        groups={place: group for place, (group, _) in found.items()},
    )


def _answer(where: str, line: object) -> tuple[Place, str, str]:
    match line:
        case {"drop": str(drop), "line": int(number), "group": str(group), "answer": str(answer)} if group and not isinstance(number, bool):
            return (drop, number), group, answer
    missing(f"{where} is no answer to a row")


def _of_any_base(conditions: Mapping[str, Any]) -> dict[str, Any]:
    """What must be equal across bases too: how answers come about. Templates, precision and lengths are those of each base."""
    settings = conditions.get("settings", {})
    return {name: settings.get(name) for name in ("decoding", "seed", "rules", "max_new_tokens")}
