"""What the daemon asks of the gate child (`gate-spec.json`) and what the child answers (`result.json`).

The child is long-lived: each line on its stdin is the path of a gate folder with a `gate-spec.json`; several may wait. It
answers inside that folder, `result.json` last. Accepted: everything that belongs to the drop lies sealed in `drop/`. Refused:
`report.json` and `report.md` lie in the gate folder itself. A repeat on the same folder starts afresh.

A drop that was accepted before may be asked about again at a deeper level (`accepted` names its rows folder): then
`drop/` holds only the files that take the place of their namesakes in that folder.

What was accepted earlier is told by a file to which the daemon only appends, one `KNOWN_LINE` a drop, and by how many
bytes of it count for this drop: the child reads what is new since it was asked last. A drop that leaves makes another
file; a child that was started again reads it from its beginning. A small drop may wait at the child behind others of its
adapter whose acceptance is not decided yet (`after`): it counts those that the child itself has just accepted.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from core.errors import ConfigError

if TYPE_CHECKING:  # its import costs more than a quick check
    from core.config import Resolved
    from core.sections import LevelName

GATE_SPEC = "gate-spec.json"
GATE_RESULT = "result.json"
ROWS_FOLDER = "rows"  # in the folder of an accepted drop
ACCEPTED_DROP = "drop"  # sub-folder with rows.jsonl.zst, index.jsonl, report.json, report.md, SEALED
QUARANTINE = "quarantine.jsonl"  # in an accepted drop: the rows that it was accepted without

CRASH_HINT = "the file lies beside this report: please report it as a bug, with the command and the end of the log below"

TRAINED = ("sft", "dpo", "kto")  # what rows teach and a backend trains; rows for another are checked, and refused at queueing


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownDrop:
    """An earlier accepted drop of the adapter: the folder with its rows and their index."""

    folder: str
    schema_id: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GateSpec:
    """Check one file. Paths are absolute; an empty one means that there is none."""

    drop: str
    adapter: str
    file: str  # path of the bytes, or of a folder with one .jsonl file and its pictures
    name: str = ""  # the file's name as the person gave it, for the report; empty: that of `file`
    accepted: str = ""  # rows folder of the drop, where it was accepted before at a lower level: those rows are checked, not `file`
    schema_id: str
    specs: Mapping[str, str] = field(default_factory=dict)  # the project's own specs: id -> path
    columns: tuple[str, ...] = ()  # extra columns that are passed through
    level: str  # quick, standard or deep
    max_row_bytes: int
    max_file_bytes: int
    base: str = ""  # folder of the sealed base: tokenizer, chat template
    max_length: int = 0  # tokens
    max_overlong_share: float = 0.05
    references: tuple[str, ...] = ()  # evaluation sets that must not be inside
    known: tuple[KnownDrop, ...] = ()  # the adapter's earlier accepted drops, in order
    known_file: str = ""  # the same, by a file that grows; see above
    known_bytes: int = 0  # as far as it counts
    known_root: str = ""  # the folder with a folder of each drop, which holds ROWS_FOLDER
    after: tuple[str, ...] = ()  # drops of the adapter that wait at the child before this one
    embedder: str = ""  # folder of the sealed sentence model
    profile: str = "default"
    limits: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # check id -> limit -> value, where the profile differs
    off: tuple[str, ...] = ()  # ids of checks that the profile turns off
    quarantine_share: float = 0.0  # share of the rows that may be put aside with their errors
    processes: int = 1
    memory_mb: int = 4096  # address space of each process
    cpu_s: int = 0  # of each process; 0: no bound


@dataclass(frozen=True, slots=True, kw_only=True)
class GateResult:
    """The gate's answer. `error` is no verdict on the file: the disk was full, the file vanished or changed; try again or reject."""

    drop: str
    verdict: Literal["accepted", "refused", "error"]
    sha256: str = ""  # of the original bytes; empty where they were not read to the end
    size_bytes: int = 0
    rows: int = 0  # kept; with `quarantined` those of the file
    quarantined: int = 0
    new_groups: int = 0  # conversations that no earlier drop has; 0: later drops are judged alike without this one
    objective: str = "sft"  # what the rows are for
    codes: tuple[str, ...] = ()  # ids of the error findings, most harmful first
    code: str = ""  # of an error: FILE_VANISHED, FILE_CHANGED, DISK_FULL, IO_ERROR, OUT_OF_MEMORY, GATE_CRASH, GATE_SPEC, …
    message: str = ""  # of the first error finding, or of the error
    hint: str = ""
    seconds: float = 0.0
    ended_at: datetime


def level_of(resolved: "Resolved", adapter: str, source: str) -> "LevelName":
    """How deep a drop is checked: what its sidecar says, else its source, else its adapter, else the config.

    Raises ConfigError for a source that the config does not know, where it knows any: a typo must not make the check shallower.
    """
    limits = resolved.config.validation
    if source and limits.sources and source not in limits.sources:
        near = difflib.get_close_matches(source, limits.sources, 1, 0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(limits.sources)}"
        raise ConfigError(f"the source {source!r} is not in validation.sources", hint=hint, code="SOURCE_UNKNOWN")
    if resolved.origins["validation.level"] in ("sidecar", "command line"):
        return limits.level
    if source in limits.sources:
        return limits.sources[source]
    return limits.levels.get(adapter, limits.level)


def first_level(level: str, background_deep: bool) -> str:
    """The level before a drop is queued. With `background_deep`, everything deeper than standard comes later."""
    return "standard" if background_deep and level != "quick" else level
