"""The chore that packs an adapter of others: the same checks, the same signed folder as for a checkpoint of our own, and no verdict.

The command line has staged the adapter (a sealed folder with its config and weights) and its probe under `tmp/`; the daemon
names the version. What comes of it lies under `tmp/` until the daemon renames it into adapters/.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.errors import LoradError
from core.tasks import PackTask
from deploy.pack import RELEASE, pack
from store.child import clock
from store.codec import parse
from store.paths import Home

IMPORTED = "imported"  # the word in the manifest


def chore_import(home: Home, spec: Mapping[str, Any]) -> dict[str, Any]:
    """Pack what `spec["task"]` (a PackTask) names into `<spec["folder"]>/release`. Returns {"release": its id}.

    Repeating it packs anew. Raises LoradError as `deploy.pack.pack`.
    """
    task = parse(PackTask, json.dumps(spec["task"]))
    if not Path(task.checkpoint).is_dir():
        raise LoradError(f"{task.checkpoint!r} is gone", hint="the daemon was started anew meanwhile: import it again", code="IMPORT_GONE")
    folder = Path(spec["folder"])
    shutil.rmtree(folder / RELEASE, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    return {"release": pack(task, folder, clock())}
