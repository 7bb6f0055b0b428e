"""What a check is given, what it answers, and the table of all checks."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from core.config import Config
from core.errors import LoradError
from store.paths import Home


class Level(StrEnum):
    """How a line of the doctor is meant."""

    OK = "ok"
    NOTE = "note"  # worth knowing; nothing needs to be done
    PROBLEM = "problem"  # something does not work, or soon will not


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line. `mend` does what is safe and returns what it did; it runs only when it was asked for."""

    code: str
    level: Level
    text: str
    todo: str = ""
    done: str = ""  # what was done about it
    mend: Callable[[], str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """What is looked at. `config` and `home` are None where they could not be found out: `trouble` says why."""

    config_path: Path
    now: datetime
    full: bool = False  # read every byte of the base, however large
    config: Config | None = None
    warnings: tuple[str, ...] = ()
    trouble: LoradError | None = None
    home: Home | None = None
    daemon_runs: bool = False


Findings = Iterator[Finding]
CheckFunction = Callable[[Visit], Findings]


@dataclass(frozen=True, slots=True)
class Check:
    """One entered check."""

    name: str
    look: CheckFunction
    needs: frozenset[str]


CHECKS: list[Check] = []


def check(*needs: str) -> Callable[[CheckFunction], CheckFunction]:
    """Enter a check. Args: needs: "config", "home": without these it is left out."""

    def enter(look: CheckFunction) -> CheckFunction:
        CHECKS.append(Check(look.__name__, look, frozenset(needs)))
        return look

    return enter


def ok(code: str, text: str) -> Finding:
    """A finding that all is well."""
    return Finding(code=code, level=Level.OK, text=text)


def note(code: str, text: str, todo: str = "") -> Finding:
    """A finding that is worth knowing and stands in nobody's way. `todo`: what a person may do about it."""
    return Finding(code=code, level=Level.NOTE, text=text, todo=todo)


def problem(code: str, text: str, todo: str, mend: Callable[[], str] | None = None) -> Finding:
    """A finding that needs somebody: `todo` says what to do; `mend`, where given, does it and says what it did."""
    return Finding(code=code, level=Level.PROBLEM, text=text, todo=todo, mend=mend)


@dataclass(slots=True)
class Answer:
    """What all checks found, in order."""

    findings: list[Finding] = field(default_factory=list)

    @property
    def problems(self) -> int:
        """Those that are left."""
        return sum(one.level is Level.PROBLEM and not one.done for one in self.findings)


def examine(visit: Visit, *, fix: bool) -> Answer:
    """Run every check that has what it needs. A check that fails is a finding, never the end; with `fix`, safe things are mended."""
    answer = Answer()
    for one in CHECKS:
        missing = ("config" in one.needs and visit.config is None) or ("home" in one.needs and visit.home is None)
        if missing:
            continue
        try:
            found = list(one.look(visit))
        except Exception as error:  # the border: a doctor who falls ill still tells the rest
            found = [problem("CHECK_FAILED", f"the check {one.name} itself failed: {type(error).__name__}: {error}", "report it as a bug with this line")]
        answer.findings += [_mended(finding) if fix and finding.mend else finding for finding in found]
    return answer


def _mended(finding: Finding) -> Finding:
    assert finding.mend is not None
    try:
        return replace(finding, done=finding.mend())
    except (OSError, LoradError) as error:
        return replace(finding, todo=f"{finding.todo} (--fix could not: {error})")
