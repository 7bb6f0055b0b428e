"""What an adapter got wrong, from three places: signals of its users, suites that its release was scored on, unseen rows of its skills."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from core.errors import ConfigError
from core.signals import Signal, SignalKind
from core.tasks import ExitNote
from core.weaknesses import Failure
from rendering.suites import Choices, Written, read_suite
from rendering.suites.shelf import own, shipped
from store.codec import read_if_whole
from store.paths import Home
from store.releases import Release
from store.runs import EXIT
from store.weaknesses import read_failed

WRONG_BELOW = 0.5  # value of an item: most of its checks failed, or the right answer is less likely than the others together
SIGNAL, SUITE, SKILL = "signal", "suite", "skill"


def of_signals(signals: Iterable[Signal], *, demand_consent: bool) -> Iterator[Failure]:
    """Mistakes and corrections, but for proposals that nobody has decided on, and what says no question."""
    for one in signals:
        question = question_of(one.input)
        if one.kind not in (SignalKind.MISTAKE, SignalKind.CORRECTION) or one.is_proposal or not question:
            continue
        yield Failure(
            ref=f"{SIGNAL}:{one.id}",
            question=question,
            right=one.correct_output,
            wrong=one.wrong_output,
            at=one.at,
            may_train=one.consent or not demand_consent,
        )


def question_of(messages: Sequence[Mapping[str, Any]]) -> str:
    """The text of the last turn of the user; empty where there is none."""
    said = next((message.get("content") for message in reversed(messages) if message.get("role") == "user"), "")
    if isinstance(said, list):  # OpenAI's parts
        said = "\n".join(str(part.get("text", "")) for part in said if isinstance(part, Mapping))
    return said.strip() if isinstance(said, str) else ""


def of_suites(home: Home, release: Release, suites: Path) -> Iterator[Failure]:
    """Items that the release failed when its job was ranked; none where those runs are gone, or the suite has changed since.

    Args: suites: one's own, home/suites.
    """
    try:
        candidate = str(json.loads((release.folder / "verdict.json").read_bytes())["candidate"])
    except (OSError, ValueError, KeyError, TypeError):
        return
    files: dict[str, Path] = {}
    for run in sorted(home.runs(release.manifest.job).glob("*")):
        note = read_if_whole(ExitNote, run / EXIT)
        for key, file in note.scores.items() if note else ():
            kind, _, rest = key.partition("/")
            name, _, model = rest.partition("/")
            if kind == SUITE and model in (candidate, release.id):
                files[name] = run / file
    for name, path in sorted(files.items()):
        yield from _of_suite(name, path, suites)


def _of_suite(name: str, path: Path, folder: Path) -> Iterator[Failure]:
    try:
        header, *rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        wrong = {str(row["item"]) for row in rows if float(row["value"]) < WRONG_BELOW}
        suite = read_suite((own(folder) | shipped())[name], name)
        is_proof = suite.sha256 == header["suite"]["sha256"] and not header["made_up"]
    except (OSError, ValueError, KeyError, TypeError, ConfigError):  # gone, damaged, changed since, or of lm-evaluation-harness
        return
    for item in suite.items if is_proof else ():
        if item.id in wrong:
            question = question_of([{"role": message.role, "content": message.content} for message in item.messages])
            yield Failure(ref=f"{SUITE}:{name}/{item.id}", question=question, right=_right(item))


def _right(item: Choices | Written) -> str:
    if isinstance(item, Choices):
        return item.choices[item.right].content
    return "; ".join(str(check) for check in item.checks)


def of_exams(home: Home, skill: str) -> Iterator[Failure]:
    """Rows of the last evaluation of a skill that the live release answered wrong. Nobody trains on them, nor on a template of them."""
    failed = read_failed(home, skill)
    if failed is None:
        return
    for question, right, wrong in failed.rows:
        digest = hashlib.sha256(question.encode(errors="surrogatepass")).hexdigest()[:12]
        ref = f"{SKILL}:{skill}/{failed.level}/{digest}"
        yield Failure(ref=ref, question=question, right=right, wrong=wrong, skill=skill, level=failed.level)
