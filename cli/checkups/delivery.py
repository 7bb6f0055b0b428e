"""The targets: whether each can be reached, and what its link last saw."""

import os
from datetime import timedelta
from pathlib import Path

from cli.checkups.registry import Findings, Visit, check, note, ok, problem

STALE = timedelta(seconds=60)  # the link looks every few seconds
SILENT = timedelta(seconds=30)  # a serving process rewrites out/capacity.json every ten


@check("config", "home")
def targets(visit: Visit) -> Findings:
    """Every target of the config, and the serving process behind it."""
    assert visit.config is not None
    for target in visit.config.deploy.targets:
        if target.kind == "local":
            yield from _folder(target.name, Path(target.path))
        yield from _seen(visit, target.name)


def _folder(name: str, path: Path) -> Findings:
    from store.paths import Box

    if not path.is_dir():

        def mend() -> str:
            Box(path).prepare()
            return f"made {path}"

        yield problem("TARGET_MISSING", f"target {name}: there is no folder {path}", "`lorad init` makes it", mend)
    elif not os.access(path / "in" if (path / "in").is_dir() else path, os.W_OK | os.X_OK):
        yield problem("TARGET_SHUT", f"target {name}: {path} is not writable for this user", "give its in/ folder to lorad's user or group")
    else:
        yield ok("TARGET", f"target {name}: {path}")


def _seen(visit: Visit, name: str) -> Findings:
    from store.targets import observed_of

    assert visit.home is not None
    observed = observed_of(visit.home, name)
    if observed is None:
        yield note("TARGET_UNSEEN", f"target {name}: nobody has looked at it yet", "`lorad daemon` does, while it runs")
        return
    if not visit.daemon_runs:
        return
    if visit.now - observed.at > STALE:
        yield problem("LINK_SILENT", f"target {name}: its link last looked at {observed.at:%Y-%m-%d %H:%M:%S}Z", f"see {visit.home.target(name) / 'link.log'}")
    elif not observed.reachable:
        yield problem(observed.code or "TARGET_UNREACHABLE", f"target {name} is not reached: {observed.reason}", observed.hint or "start `lorad serve` there")
    elif observed.capacity is not None and visit.now - observed.capacity.at > SILENT:
        text = f"target {name}: its serving process last spoke at {observed.capacity.at:%Y-%m-%d %H:%M:%S}Z"
        yield problem("SERVING_SILENT", text, "start `lorad serve` there")
    else:
        yield ok("TARGET_SEEN", f"target {name}: reached at {observed.at:%H:%M:%S}Z")
