"""What runs: the daemon, its units, and what keeps the queue waiting."""

import json
import shutil
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from cli.checkups.machine import asked, installed
from cli.checkups.registry import Findings, Visit, check, note, ok, problem

FRESH = timedelta(seconds=30)  # a daemon that lives writes its status every second
UNITS = ("lorad.service", "lorad-serve.service", "lorad-gc.timer")
SYSTEMD = Path("/run/systemd/system")


@check("home")
def daemon(visit: Visit) -> Findings:
    """Whether a daemon runs on this home, since when, and whether it moves."""
    assert visit.home is not None
    found = _json(visit.home.status)
    if not visit.daemon_runs:
        last = f"; the last word of one is of {found['at'][:19]}Z" if found else ""
        yield note("DAEMON_DOWN", f"no daemon runs on {visit.home.root}{last}", "`lorad daemon`")
        return
    held = _json(visit.home.lock)
    pid = held.get("pid") or found.get("daemon", {}).get("pid", "unknown")
    age = visit.now - datetime.fromisoformat(found["at"]) if found else None
    if age is None or age > FRESH:
        silent = f"has not told anything for {age.total_seconds():.0f} s" if age is not None else "has told nothing yet"
        todo = "look at its log; end it (kill) and start it again: it goes on from what is there"
        yield problem("DAEMON_SILENT", f"the daemon (pid {pid}) runs, but {silent}", todo)
        return
    since = found.get("daemon", {}).get("started_at", "")[:19]
    yield ok("DAEMON", f"the daemon runs (pid {pid}, since {since}Z)")
    version, mine = held.get("version", ""), installed("lorad")
    if version and mine and version != mine:
        yield note("DAEMON_OLD", f"the daemon that runs is lorad {version}; {mine} is installed", "restart it")
    for warning in found.get("daemon", {}).get("warnings", ()):
        yield note("DAEMON_WARNS", str(warning))
    if error := found.get("error"):
        yield problem(str(error.get("code", "DAEMON_ERROR")), f"the daemon says: {error.get('what', '')}", str(error.get("hint", "")))


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


@check("home")
def queue(visit: Visit) -> Findings:
    """Whether a person has paused the queue."""
    from store.pauses import read_pause

    assert visit.home is not None
    pause = read_pause(visit.home) if visit.home.root.is_dir() else None
    if pause is not None:
        yield note("QUEUE_PAUSED", f"the queue is {pause.words}, since {pause.at:%Y-%m-%d %H:%M}Z", "`lorad jobs resume`")


@check("config", "home")
def in_force(visit: Visit) -> Findings:
    """Whether the daemon goes by the config as it stands."""
    from core.config import changed_keys, resolve
    from core.errors import ConfigError
    from store.config_file import read_layer

    assert visit.home is not None
    assert visit.config is not None
    if not visit.daemon_runs or not visit.home.config_in_force.exists():
        return
    try:
        changed = changed_keys(resolve({"config.json": read_layer(visit.home.config_in_force)}).config, visit.config)
    except ConfigError:
        return  # another lorad wrote it
    if changed:
        yield note("CONFIG_NOT_IN_FORCE", f"the daemon goes by another {', '.join(changed)}", "`lorad reload`")


@check()
def units(visit: Visit) -> Findings:
    """The systemd units: installed, enabled, active."""
    if not SYSTEMD.is_dir() or shutil.which("systemctl") is None:
        yield ok("UNITS_NONE", "systemd does not run here: start `lorad daemon` and `lorad serve` by hand or by another supervisor")
        return
    told = asked("systemctl", "show", "--property=Id,LoadState,UnitFileState,ActiveState", *UNITS)
    units = [dict(line.partition("=")[::2] for line in block.splitlines()) for block in told.split("\n\n") if block]
    present = [unit for unit in units if unit.get("LoadState") == "loaded"]
    if not present:
        yield note("UNITS_MISSING", "lorad's units are not installed", "scripts/install sets them up; without them nothing starts after a reboot")
        return
    for unit in present:
        name, state, enabled = unit.get("Id", ""), unit.get("ActiveState", ""), unit.get("UnitFileState", "")
        if state == "failed":
            yield problem("UNIT_FAILED", f"{name} has failed", f"journalctl -u {name} -n 50")
        elif state != "active" or enabled not in ("enabled", "static", "indirect"):
            yield note("UNIT_OFF", f"{name} is {state}, {enabled or 'not enabled'}", f"systemctl enable --now {name}")
        else:
            yield ok("UNIT", f"{name} is active and {enabled}")
