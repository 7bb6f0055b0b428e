"""Legs that look at other files than scores: the gate's report on the drop, and whether a server could load the candidate."""

import json
from pathlib import Path
from typing import Any

from core.config import Config
from core.errors import LoradError
from core.servable import unserved
from core.tasks import RankTask
from ranking.evidence import Leg, LegResult, ScoreFile
from ranking.legs import leg
from ranking.scores import missing
from store.seals import check_seal, hash_file

REPORT = "report.json"
COHERENCE = "D10"  # of the gate: answers fit their questions no better than shuffled ones do
WHERE = "gate's report"


def gate_report(task: RankTask) -> tuple[Leg, dict[str, ScoreFile]]:
    """Whether the gate doubted that answers belong to their questions. Raises EvidenceError where its report is gone or damaged."""
    source = next((source for source in task.rows if source.drop == task.this_drop), None)
    if source is None:
        missing(f"the job does not name the rows of {task.this_drop!r}, so the gate's report on them is not to be found")
    path = Path(source.folder, REPORT)
    try:
        findings = json.loads(path.read_bytes())["findings"]
        doubts = [finding for finding in findings if finding["id"] == COHERENCE]
    except OSError as error:
        missing(f"the gate's report on {task.this_drop!r} cannot be read: {error.strerror}")
    except (ValueError, KeyError, TypeError, RecursionError):
        missing(f"the gate's report on {task.this_drop!r} is damaged")
    file = {f"report/{task.this_drop}": ScoreFile(sha256=hash_file(path), rows=0)}
    if not doubts:
        return leg(WHERE, LegResult.PASSED, "the gate found no fault with how answers belong to their questions"), file
    count = max(int(doubt.get("count") or 0) for doubt in doubts)
    words = f"the gate warned that answers of the drop may not belong to their questions ({COHERENCE}, {count} rows): a person must look at the drop's report"
    return leg(WHERE, LegResult.UNPROVEN, words), file


def servability(task: RankTask) -> Leg:
    """Whether what was judged is there to be served: the sealed checkpoint itself, of a kind that servers load, with its probe."""
    name = "servability"
    chosen = next(candidate for candidate in task.candidates if candidate.id == task.best)
    if not task.checkpoint or not task.probe:
        return leg(name, LegResult.UNPROVEN, "the checkpoint's probe is missing, so no server could prove what it loads")
    try:
        if check_seal(Path(task.checkpoint)) != chosen.sha256:
            return leg(name, LegResult.UNPROVEN, "the checkpoint is not the one that was scored")
        if faults := [*_unserved(task.settings), *_unfit(json.loads(Path(task.checkpoint, "adapter_config.json").read_bytes()), task.settings)]:
            return leg(name, LegResult.UNPROVEN, f"no server would load it: {'; '.join(faults)}")
        probe = [json.loads(line) for line in Path(task.probe).read_bytes().splitlines()]
    except LoradError as error:
        return leg(name, LegResult.UNPROVEN, f"the checkpoint is damaged: {error.what.rpartition('/')[2]}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return leg(name, LegResult.UNPROVEN, "the checkpoint's config or probe is missing or damaged")
    if not probe or all(line["base"] == line["adapter"] for line in probe):
        return leg(name, LegResult.UNPROVEN, "the candidate answers every prompt of the probe exactly as its base does: it changes nothing")
    return leg(name, LegResult.PASSED, "the sealed checkpoint is one that servers load, and its probe is there")


def _unserved(settings: Any) -> list[str]:
    return [f"{key}: {why}" for key, why in unserved(Config.model_validate(settings))]


def _unfit(shape: dict[str, Any], settings: Any) -> list[str]:
    most = Config.model_validate(settings).serving.max_rank
    found = [f"rank {shape['r']} is above serving.max_rank {most}"] if int(shape.get("r") or 0) > most else []
    return found + (["it uses DoRA"] if shape.get("use_dora") else [])
