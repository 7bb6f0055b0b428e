"""What the first job will need and this machine lacks, told while nothing worse is."""

import shutil

from daemon import clock
from daemon.index import Incident, Index

CODES = ("BASE_MISSING", "RSYNC_MISSING")


def note_prerequisites(index: Index) -> None:
    """Say what is missing as the newest incident, and take it back once it is there."""
    missing: dict[str, tuple[str, str]] = {}
    if shutil.which("rsync") is None:
        hint = "install rsync (apt-get install rsync); jobs train meanwhile and wait before shipping"
        missing["RSYNC_MISSING"] = ("rsync is not on PATH: no release can be shipped", hint)
    if index.base_sha256 is None:
        hint = "run `lorad models pull`; files stay safe in drops/settling until then"
        missing["BASE_MISSING"] = (f"no base model {index.config.model_path or index.config.model_name!r}", hint)
    told = index.incident.code if index.incident else ""
    if told in CODES and told not in missing:
        index.incident = None
    for code, (what, hint) in missing.items():
        if index.incident is None:
            index.incident = Incident(clock.now(), code, what, hint)
