"""What a support bundle holds, file by file. Nothing is copied as it stands: each record is read and its known fields taken over."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli.checkups.registry import Answer, Visit
from cli.masking import LEAST_SECRET, SECRET_KEYS, Scrubber, secrets_in, without_secrets
from store.paths import Home

JOBS = 30  # the newest, and those on their way
DROPS = 20
LINES = 300  # of a log
TAIL_BYTES = 128 << 10
WORDS_BYTES = 4 << 20  # of the journal, in which words of people are looked for
ABOUT = """A support bundle of lorad.

Inside: the config without secrets, the newest status, the ends of journal, status log and logs, what `lorad doctor` says, versions,
the newest jobs with their records, verdicts and progress, and what the gate found (ids, counts and lines, never messages).
Not inside: text of rows, corrections, keys, API keys, addresses for alerts, words that a person wrote as a reason or a note.
Names of files, adapters, hosts and folders are inside. Look through it before you send it: it is plain text.
"""
_FILE_KEYS = re.compile(r"""(?:urls_file|webhook_key_file|encryption_key)["']?\s*:\s*["']([^"']+)""")
_VALUE_KEYS = re.compile(rf"""(?:{"|".join(SECRET_KEYS)})\w*["']?\s*:\s*["']([^"']+)""", re.IGNORECASE)
FROM_PEOPLE = frozenset({"notes", "actor", "message"})  # words of a person, and answers that repeat them


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Where the bundle is made from."""

    visit: Visit
    answer: Answer
    scrub: Scrubber


def found_of(visit: Visit, answer: Answer) -> Found:
    """With a scrubber that knows the secrets of this machine."""
    return Found(visit=visit, answer=answer, scrub=Scrubber(_secrets(visit)))


def _secrets(visit: Visit) -> frozenset[str]:
    files: list[Path] = []
    values: list[str] = []
    if visit.home is not None and visit.home.keys.is_dir():
        files += [path for path in visit.home.keys.iterdir() if path.is_file() and path.suffix != ".pub"]
    config = visit.config
    if config is not None:
        names = [config.alerts.urls_file, config.alerts.webhook_key_file, config.deploy.encryption_key]
        values.append(config.alerts.webhook)
    else:  # a config that does not load: its secrets are found by their names
        raw = _raw(visit.config_path)
        names = [match[1] for match in _FILE_KEYS.finditer(raw)]
        values += [match[1] for match in _VALUE_KEYS.finditer(raw)]
    files += [visit.config_path.parent / Path(name).expanduser() for name in names if name]
    words = _words_of_people(visit.home) if visit.home is not None else frozenset()
    return secrets_in(files, values) | {word for word in words if len(word) >= LEAST_SECRET}


def _words_of_people(home: Home) -> frozenset[str]:
    """Reasons and notes that people gave: a reason goes on into records, status and doctor, where nothing tells it from lorad's own."""
    found: set[str] = set()
    for line in _tail(home.journal, WORDS_BYTES, None):
        with suppress(ValueError, AttributeError):
            entry = json.loads(line)
            if str(entry.get("action", "")).startswith("command."):
                found |= {str(entry.get(key, "")) for key in ("reason", "message")}
    with suppress(OSError, ValueError, AttributeError):
        found.add(str(json.loads(home.paused.read_text()).get("reason", "")))
    for path in _newest(home.root.glob("jobs/*/*/*/*.json")) + _newest(home.root.glob("jobs/*/*/*.json")):
        with suppress(OSError, ValueError, AttributeError):
            record = json.loads(path.read_text())
            if record.get("by", "lorad") != "lorad":
                found.add(str(record.get("reason", "")))
            found.add(str(record.get("job", {}).get("notes", "")))
    return frozenset(found)


def _newest(paths: Iterator[Path]) -> list[Path]:
    return sorted(paths, key=lambda path: path.parent.name)[-4 * JOBS :]


def _raw(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def entries(found: Found) -> Iterator[tuple[str, str]]:
    """(name, text) of every file of the bundle. A part that cannot be read says so and is no end."""
    yield "README.txt", ABOUT
    for name, make in _PARTS.items():
        try:
            parts = list(make(found))
        except Exception as error:  # a border: a bundle of a damaged home must still come about; what failed is told by its class alone
            parts = [(f"{name}.txt", f"this part could not be read: {type(error).__name__}\n")]
        yield from ((path, found.scrub.secrets(text)) for path, text in parts if text)


def _json(found: Found, values: Any) -> str:
    return json.dumps(found.scrub.plain(values), indent=1, ensure_ascii=False) + "\n"


Parts = Iterator[tuple[str, str]]


def _versions(found: Found) -> Parts:
    import platform
    from importlib.metadata import distributions

    named = {dist.metadata["Name"]: dist.version for dist in distributions() if dist.metadata["Name"]}
    machine = {"python": platform.python_version(), "system": platform.platform(), "machine": platform.machine()}
    yield "versions.json", _json(found, {**machine, "packages": dict(sorted(named.items()))})


def _doctor(found: Found) -> Parts:
    from cli.doctor import as_plain

    told = as_plain(found.answer)
    if found.visit.trouble is not None:  # a config that cannot be read may quote its secrets in the words about it
        told["findings"] = [{"code": one["code"], "level": one["level"]} for one in told["findings"]]
    quoting = [one for one in told["findings"] if one["level"] == "problem" and one["code"].startswith("CONFIG_")]  # what the daemon says of a refused one
    told["findings"] = [{"code": one["code"], "level": one["level"]} if one in quoting else one for one in told["findings"]]
    yield "doctor.json", _json(found, told)


def _config(found: Found) -> Parts:
    visit = found.visit
    if visit.config is None:
        code = visit.trouble.code if visit.trouble else "CONFIG_MISSING"
        yield "config.json", _json(found, {"trouble": code})
        return
    yield "config.json", _json(found, {"values": without_secrets(visit.config.model_dump(mode="json")), "warnings": list(visit.warnings)})


def _status(found: Found) -> Parts:
    home = _home(found)
    if home.status.exists():
        yield "status.json", _json(found, _known(json.loads(home.status.read_text())))
    yield "status-tail.jsonl", _lines(found, home.status_log)
    yield "journal-tail.jsonl", _lines(found, home.journal)
    yield "series-tail.jsonl", _lines(found, home.root / "series" / "runs.jsonl")


def _home(found: Found) -> Home:
    if found.visit.home is None:
        raise FileNotFoundError("home")
    return found.visit.home


def _known(values: Any) -> Any:
    """A record without words of people, and with failures' reasons without the messages of foreign exceptions."""
    from core.logtail import without_quotes

    if isinstance(values, Mapping):
        kept = {key: _known(value) for key, value in values.items() if key not in FROM_PEOPLE}
        if str(kept.get("action", "")).startswith(("command.", "config.")) or str(kept.get("code", "")).startswith("CONFIG_"):
            for key in ("reason", "what", "text"):  # a config that was refused is quoted in the words about it
                kept.pop(key, None)
        return kept
    if isinstance(values, list | tuple):
        return [_known(value) for value in values]
    return without_quotes(values) if isinstance(values, str) else values


def _tail(path: Path, num_bytes: int = TAIL_BYTES, num_lines: int | None = LINES) -> list[str]:
    """The last lines of a file, at most so many; none where it is not there."""
    try:
        with open(path, "rb") as file:
            start = max(0, file.seek(0, 2) - num_bytes)
            file.seek(start)
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return []
    lines = lines[1 if start else 0 :]
    return lines if num_lines is None else lines[-num_lines:]


def _lines(found: Found, path: Path) -> str:
    """The end of a log of JSON lines."""
    kept = []
    for line in _tail(path):
        with suppress(ValueError):
            kept.append(json.dumps(found.scrub.plain(_known(json.loads(line))), ensure_ascii=False))
    return "".join(f"{line}\n" for line in kept)


def _logs(found: Found) -> Parts:
    home = _home(found)
    for path in (*sorted(home.root.glob("*.log*")), *sorted(home.root.glob("targets/*/link.log"))):
        yield f"logs/{path.relative_to(home.root)}", _log(found, path)


def _log(found: Found, path: Path) -> str:
    """The lines of a log that cannot quote a row (`core.logtail`)."""
    from core.logtail import shareable

    return "".join(f"{found.scrub.text(line)}\n" for line in shareable(_tail(path), LINES))


# ---------------------------------------------------------------- jobs and drops


def _jobs(found: Found) -> Parts:
    from core.records import ENDED
    from store.jobs import folders

    home = _home(found)
    everything = sorted(folders(home), key=lambda pair: pair[1].name) if (home.root / "jobs").is_dir() else []
    chosen = {folder: state for state, folder in (*[pair for pair in everything if pair[0] not in ENDED][-JOBS:], *everything[-JOBS:])}
    for folder, state in chosen.items():
        for name in ("job.json", f"{state.value}.json"):
            with suppress(OSError, ValueError):
                yield f"jobs/{folder.name}/{name}", _json(found, {"state": state.value, **_known(json.loads((folder / name).read_text()))})
        with suppress(OSError, ValueError, KeyError):
            frozen = json.loads((folder / "config.json").read_text())
            yield f"jobs/{folder.name}/config.json", _json(found, {"values": without_secrets(frozen["values"]), "origins": frozen["origins"]})
        yield from _runs(found, home.runs(folder.name))


def _runs(found: Found, runs: Path) -> Parts:
    for run in sorted(runs.iterdir()) if runs.is_dir() else ():
        for name in ("exit.json", "verdict.json", "ranking.json"):
            with suppress(OSError, ValueError):
                yield f"jobs/{runs.name}/{run.name}/{name}", _json(found, _known(json.loads((run / name).read_text())))
        if (run / "progress.jsonl").exists():
            yield f"jobs/{runs.name}/{run.name}/progress-tail.jsonl", _lines(found, run / "progress.jsonl")
        yield f"jobs/{runs.name}/{run.name}/log.txt", _log(found, run / "log.txt")


def _drops(found: Found) -> Parts:
    """What the gate said of the newest drops, accepted and refused: ids, counts, lines."""
    home = _home(found)
    reports = [*home.root.glob("drops/*/*/rows/report.json"), *home.rejected.glob("*/report.json")]
    for path in sorted(reports, key=lambda path: _drop_of(path))[-DROPS:]:
        with suppress(OSError, ValueError):
            yield f"drops/{_drop_of(path)}.json", _json(found, _report(json.loads(path.read_text())))


def _drop_of(path: Path) -> str:
    return path.parent.parent.name if path.parent.name == "rows" else path.parent.name


def _report(report: Mapping[str, Any]) -> dict[str, Any]:
    """Of a report: the verdict, numbers, and of each finding what no row can speak through."""
    numbers = {key: value for key, value in report.items() if isinstance(value, int | float | bool)}
    words = {key: report.get(key) for key in ("verdict", "level", "schema_id", "profile", "sha256")}
    findings = [
        {"id": one.get("id"), "severity": one.get("severity"), "count": one.get("count"), "lines": list(one.get("lines") or [])[:5]}
        for one in report.get("findings", ())
        if isinstance(one, Mapping)
    ]
    return {**words, **numbers, "findings": findings}


_PARTS: dict[str, Callable[[Found], Parts]] = {
    "versions": _versions,
    "doctor": _doctor,
    "config": _config,
    "status": _status,
    "logs": _logs,
    "jobs": _jobs,
    "drops": _drops,
}
