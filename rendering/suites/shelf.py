"""Suites by name: those that lorad ships, one's own in home/suites/, and tasks of lm-evaluation-harness. Reads files."""

import difflib
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from core.errors import ConfigError
from core.tasks import SuiteOf
from rendering.suites.suite import Suite, read_suite
from store.seals import hash_file

HARNESS = "lm_eval:"
AUTO = "auto"
ON_CPU = ("instructions", "json", "refusals")  # about 25 s for the 135M base on two cores, where all by likelihood take 60 to 80
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def shipped() -> dict[str, Path]:
    """The files of lorad's own suites by name."""
    return {path.stem: path for path in sorted(Path(__file__).parent.glob("*.jsonl"))}


def own(folder: Path) -> dict[str, Path]:
    """The files of one's own suites by name: `*.jsonl` in home/suites/, but for dot-names."""
    return {path.stem: path for path in sorted(folder.glob("*.jsonl")) if not path.name.startswith(".")} if folder.is_dir() else {}


def of_names(names: Sequence[str], folder: Path, *, on_gpu: bool, strict: bool = True) -> tuple[SuiteOf, ...]:
    """The suites that config's `ranking.suites` asks for, each once.

    `auto` are the shipped ones: on a GPU all, on a CPU some that are scored by likelihood.

    Args: folder: home/suites. strict: False for a job whose config was right once: a file that is gone since keeps its place
        and has no hash, and whoever scores it says so.
    Raises: ConfigError SUITE_UNKNOWN for a name that nobody knows.
    """
    files, mine = shipped(), own(folder)
    found: dict[str, SuiteOf] = {}
    for name in names:
        if name == AUTO:
            wanted = list(files) if on_gpu else ON_CPU
            found |= {other: _suite_of(other, files[other]) for other in wanted}
        elif name.startswith(HARNESS) and NAME.fullmatch(name.removeprefix(HARNESS)):
            found[name] = SuiteOf(name=name, path="", sha256=hashlib.sha256(name.encode()).hexdigest())
        elif name in files or name in mine:
            found[name] = _suite_of(name, files.get(name) or mine[name])
        elif not strict:
            found[name] = SuiteOf(name=name, path=str(folder / f"{name}.jsonl"), sha256="")
        else:
            raise _unknown(name, [*files, *mine], folder)
    return tuple(found.values())


def check_suites(names: Sequence[str], folder: Path) -> None:
    """Raises ConfigError where `ranking.suites` names one that is not there, or that has a fault, or an own one has a shipped one's name."""
    for suite in of_names(names, folder, on_gpu=True):
        if suite.path and Path(suite.path).parent == folder:
            read_suite(Path(suite.path))
    for name in names:
        if name in shipped() and name in own(folder):
            raise ConfigError(f"{folder / name}.jsonl has the name of a suite that lorad ships", hint=f"call it my-{name}.jsonl", code="SUITE_NAME")


def list_suites(folder: Path) -> list[tuple[str, Path, Suite | ConfigError]]:
    """Every suite there is by name and file, or what is wrong with it. Never raises for one of one's own."""
    found: list[tuple[str, Path, Suite | ConfigError]] = []
    for name, path in (*shipped().items(), *own(folder).items()):
        try:
            found.append((name, path, read_suite(path)))
        except ConfigError as error:
            found.append((name, path, error))
    return found


def file_name(suite: str, model: str) -> str:
    """Name of the file with the results of a model."""
    return f"suite-{suite.replace(':', '-')}-{model}.jsonl"


def _suite_of(name: str, path: Path) -> SuiteOf:
    return SuiteOf(name=name, path=str(path), sha256=hash_file(path))


def _unknown(name: str, known: Sequence[str], folder: Path) -> ConfigError:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}; your own lie in {folder}, and lm-evaluation-harness's are {HARNESS}TASK"
    return ConfigError(f"ranking.suites: unknown suite {name!r}", hint=hint, code="SUITE_UNKNOWN")
