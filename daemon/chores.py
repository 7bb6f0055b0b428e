"""The child of a background chore: `python -m daemon.chores FOLDER` does what `chore.json` there says and writes `result.json`.

To add a chore: write a function (home, spec) -> dict of plain JSON values in the module that owns the matter and name it
in TABLE. It must be safe to repeat: the daemon may die beside it. A `message` in what it returns is told to people.
"""

import contextlib
import importlib
import logging
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from core.errors import LoradError
from store.child import log_to_stderr
from store.chores import read_chore, write_result
from store.paths import Home

log = logging.getLogger(__name__)

Work = Callable[[Home, Mapping[str, Any]], dict[str, Any]]

TABLE: dict[str, str] = {
    "trash": "store.trash:empty_trash",
    "statistics": "store.collection:chore_survey",
    "reserve": "store.reserve:make_reserve",
    "compress": "store.rotation:compress_parts",
    "snapshot": "store.snapshots:chore_snapshot",
    "backup": "store.archives:chore_backup",
    "alert": "daemon.channels:send",
    "recall": "store.recall:chore_recall",
    "forget": "store.rebuilding:chore_forget",
    "import": "deploy.importing:chore_import",
    "iteration": "daemon.measuring:chore_measure",
    "batch": "feedback.batch:chore_batch",
    "signals": "feedback.importers.reading:chore_signals",
    "peers": "feedback.peers:chore_peers",
    "draw": "corpus.curriculum.generation:chore_draw",
    "exam": "corpus.curriculum.generation:chore_exam",
    "marks": "corpus.curriculum.generation:chore_marks",
    "weaknesses": "feedback.weaknesses:chore_weaknesses",
}
URGENT = frozenset({"alert", "trash"})  # not at low priority: a person, or a full disk, waits for it


def work_of(kind: str) -> Work:
    """The function of a kind, imported now. Raises KeyError for an unknown kind."""
    module, _, name = TABLE[kind].partition(":")
    return cast(Work, getattr(importlib.import_module(module), name))


def main(folder: Path) -> int:
    """Do the chore of `folder`. Returns the exit status: 0 where it was done."""
    home, kind, spec = read_chore(folder)
    if kind not in URGENT:
        with contextlib.suppress(OSError):  # the hardened unit lets nobody set priorities
            os.nice(10)
    try:
        result = work_of(kind)(home, spec)
    except Exception as error:  # the border of the child: whatever happens becomes a result
        hint = f": {error.hint}" if isinstance(error, LoradError) and error.hint else ""
        what = error.what if isinstance(error, LoradError) else str(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
        log.exception("%s", what, extra={"action": "chore_failed"})
        write_result(folder, ok=False, message=f"{what}{hint}", result={"code": getattr(error, "code", "") or "CHORE_FAILED"})
        return 1
    write_result(folder, ok=True, message=str(result.get("message", "")), result=result)
    return 0


if __name__ == "__main__":
    log_to_stderr()
    sys.exit(main(Path(sys.argv[1])))
