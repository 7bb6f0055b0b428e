"""The config: whether it is right, what it names, and when training may run."""

from pathlib import Path

from cli.checkups.registry import Findings, Visit, check, note, ok, problem


@check()
def config(visit: Visit) -> Findings:
    """Whether config.json loads; an unknown key is named with the nearest known one."""
    if visit.trouble is not None:
        yield problem(visit.trouble.code, visit.trouble.what, visit.trouble.hint)
        return
    yield ok("CONFIG", f"{visit.config_path} is right")
    for warning in visit.warnings:
        yield note("CONFIG_WARNING", warning)


@check("config")
def named(visit: Visit) -> Findings:
    """Own schemas, profiles, times, evaluation sets and files of keys that the config names."""
    from cli.config import follow_names
    from core.errors import LoradError

    made = visit.config
    assert made is not None
    try:
        follow_names(made)
    except LoradError as error:
        yield problem(error.code, error.what, error.hint)
    for path in made.validation.references:
        if not Path(path).is_file():
            todo = "correct the path: no drop passes the gate without it"
            yield problem("REFERENCE_MISSING", f"validation.references names {path!r}, which is not there", todo)
    secrets = {"alerts.urls_file": _beside(visit, made.alerts.urls_file)}
    secrets["alerts.webhook_key_file"] = _beside(visit, made.alerts.webhook_key_file)
    for key, path in secrets.items():
        if path and not Path(path).is_file():
            yield problem("SECRET_MISSING", f"{key} names {path!r}, which is not there", "write the file, mode 0600, or take the key out")


def _beside(visit: Visit, path: str) -> str:
    return str((visit.config_path.parent / Path(path).expanduser()).resolve()) if path else ""


@check("config")
def hours(visit: Visit) -> Findings:
    """Whether the calendar lets training run now."""
    from core.windows import closed_at, in_words
    from daemon.schedules import zone_of

    assert visit.config is not None
    schedule = visit.config.schedule
    zone = zone_of(schedule)
    closed = closed_at(schedule.windows, schedule.quiet_hours, visit.now, zone)
    if closed:
        yield note("CLOSED", f"nothing trains now: {in_words(closed, zone)}", "`lorad schedule list` shows the calendar")
    elif schedule.windows or schedule.quiet_hours:
        yield ok("OPEN", "the calendar lets training run now")


@check("config")
def network(visit: Visit) -> Findings:
    """What would reach out."""
    from store.bases import base_folder
    from store.engines import choose_backend
    from store.seals import is_sealed

    made = visit.config
    assert made is not None
    wants = ["`lorad models pull`, once"] if choose_backend(made).name != "stub" and not is_sealed(base_folder(made)) else []
    wants += ["trainer children (training.network)"] if made.training.network else []
    wants += ["alerts"] if made.alerts.urls_file or made.alerts.webhook else []
    if wants:
        yield note("NETWORK", f"the network is wanted by {', '.join(wants)}; everything else runs without")
    else:
        yield ok("NETWORK_NONE", "no network is needed")
