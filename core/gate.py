"""What the daemon asks of the gate child (`gate-spec.json`) and what the child answers (`result.json`).

The child is long-lived: each line on its stdin is the path of a gate folder with a `gate-spec.json`. It answers inside
that folder, `result.json` last. Accepted: everything that belongs to the drop lies sealed in `drop/`. Refused:
`report.json` and `report.md` lie in the gate folder itself. A repeat on the same folder starts afresh.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

GATE_SPEC = "gate-spec.json"
GATE_RESULT = "result.json"
ACCEPTED_DROP = "drop"  # sub-folder with rows.jsonl.zst, index.jsonl, report.json, report.md, SEALED


@dataclass(frozen=True, slots=True, kw_only=True)
class GateSpec:
    """Check one file. Paths are absolute."""

    drop: str
    adapter: str
    file: str  # path of the bytes
    name: str = ""  # the file's name as the person gave it, for the report; empty: that of `file`
    schema_id: str
    level: str  # quick, standard or deep
    max_row_bytes: int
    max_file_bytes: int
    known_indexes: tuple[str, ...] = ()  # index.jsonl of the adapter's earlier accepted drops, in order
    tokenizer: str = ""  # tokenizer.json of the base, for its own control tokens; empty: common families only


@dataclass(frozen=True, slots=True, kw_only=True)
class GateResult:
    """The gate's answer. `error` is no verdict on the file: the disk was full, the file vanished or changed; try again or reject."""

    drop: str
    verdict: Literal["accepted", "refused", "error"]
    sha256: str = ""  # of the original bytes; empty where they were not read to the end
    size_bytes: int = 0
    rows: int = 0
    codes: tuple[str, ...] = ()  # ids of the error findings, most harmful first
    code: str = ""  # of an error: FILE_VANISHED, FILE_CHANGED, DISK_FULL, IO_ERROR, OUT_OF_MEMORY, GATE_SPEC, …
    message: str = ""  # of the first error finding, or of the error
    hint: str = ""
    seconds: float = 0.0
    ended_at: datetime
