"""The GGUF form of a release's adapter, asked of a trainer child: for boxes that serve by llama.cpp."""

import logging
import os
import subprocess
import sys
from pathlib import Path

from core.errors import LoradError
from core.exits import ChildExit
from core.tasks import ExitNote, ExportTask
from store.bases import gguf_of
from store.codec import read_if_whole
from store.encryption import ADAPTER_GGUF
from store.runs import EXIT, LOG, SPEC, write_spec

log = logging.getLogger(__name__)

ASKED = "gguf"  # folder below the run: the child's own
FORM = "form"
TIME_LIMIT_S = 600.0


def add_gguf(folder: Path, base: Path, run: Path) -> bool:
    """Put `adapter.gguf` beside the adapter in `folder`, where the base has a GGUF file and the adapter has that form.

    Returns whether it is there. What llama.cpp cannot load is left out, and the log says why: other engines serve the release.
    Runs a child and writes below `run`. Raises LoradError where the child fails otherwise.
    """
    if gguf_of(base) is None:
        return False
    asked = run / ASKED
    asked.mkdir()
    write_spec(asked, ExportTask(form="gguf", adapter=str(folder), base=str(base), out=str(asked / FORM)))
    note = _ask(asked)
    if note is not None and note.code == ChildExit.DONE:
        os.replace(asked / FORM / ADAPTER_GGUF, folder / ADAPTER_GGUF)
        return True
    if note is not None and note.code == ChildExit.BAD_SPEC:
        log.warning("no %s: %s (%s)", ADAPTER_GGUF, note.reason, note.error, extra={"action": "gguf_left_out"})
        return False
    reason = note.reason if note else f"its log is {asked / LOG}"
    raise LoradError(f"the GGUF form was not made: {reason}", hint="`lorad jobs retry ID` packs it again", code=(note.error if note else "") or "GGUF_FAILED")


def _ask(run: Path) -> ExitNote | None:
    """How the child ended; it ends with this process's group, or here."""
    assert (run / SPEC).is_file()
    with open(run / LOG, "wb") as out:
        process = subprocess.Popen([sys.executable, "-m", "trainer", str(run)], stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        try:
            process.wait(TIME_LIMIT_S)
        except subprocess.TimeoutExpired:
            raise LoradError(f"the GGUF form took longer than {TIME_LIMIT_S:.0f} s", hint="`lorad jobs retry ID` packs it again", code="GGUF_FAILED") from None
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    return read_if_whole(ExitNote, run / EXIT)
