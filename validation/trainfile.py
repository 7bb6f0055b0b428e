"""Which rows of a validation set stand in the training file: word for word, by their question, or nearly."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from core.errors import LoradError
from rendering.rowtypes import CompletionRow
from rendering.specs import BAD_JSON, SPECS, Spec
from validation.case import Case
from validation.checks.files import BOM
from validation.context import Batch, Context, Sheet, Surroundings
from validation.control import ControlTokens
from validation.findings import Problem, Severity
from validation.folding import Folded
from validation.likeness import Likeness
from validation.minhash import BandIndex
from validation.references import texts_of_item
from validation.rowtexts import templates
from validation.signed import SignedRows, sign_rows

if TYPE_CHECKING:
    from validation.grams import Hashes
    from validation.survey import Survey

DROP = "lorad fix {{file}} -o {{out}} --schema {} --repair drop {}"
MOST_FIX_LINES = 30
SHOWN_PAIRS = 3
BATCH_ROWS = 512
BLOCK_BYTES = 1 << 20
MOST_ROW_BYTES = 4 << 20
MOST_NEAR = 2_000  # likely matches that are compared
LEAST_QUESTION_WORDS = 5
COMMON_SHARE, COMMON_ROWS = 0.05, 5  # of the validation rows that ask the same: such a prompt names a task, not an item


@dataclass(slots=True)
class Overlap:
    """validation line -> line of the training file, each validation line once."""

    exact: dict[int, int] = field(default_factory=dict)
    asked: dict[int, int] = field(default_factory=dict)
    near: dict[int, int] = field(default_factory=dict)
    num_rows: int = 0
    unreadable: int = 0
    """Rows of the training file that hold no text that could be compared."""


def overlapping(survey: "Survey") -> Iterator[Problem]:
    """What D06 says of a survey whose rows are signed."""
    path = Path(survey.context.around.train)
    try:
        found = overlap(survey, path, survey.context.limit("D06", "jaccard"))
    except (OSError, LoradError) as error:
        what = error.what if isinstance(error, LoradError) else f"{path} cannot be read: {error.strerror or error}"
        survey.notes["D06"] = what
        yield Problem(message=f"the training file was not compared: {what}", hint="name a file that is there and may be read", severity=Severity.WARNING)
        return
    survey.stats["split_overlap"] = {"exact": len(found.exact), "question": len(found.asked), "near": len(found.near), "train_rows": found.num_rows}
    if found.unreadable:
        survey.notes["D06"] = f"{found.unreadable:,} of {found.num_rows:,} rows of {path.name} could not be read, and were not compared"
    for kind, lines, told in (
        ("exact", found.exact, "stand in"),
        ("question", found.asked, "ask what is also asked, with another answer, in"),
        ("near", found.near, "say nearly the same as rows of"),
    ):
        if lines:
            pairs = ", ".join(f"line {line} and its line {lines[line]}" for line in sorted(lines)[:SHOWN_PAIRS])
            yield Problem(
                message=f"{len(lines):,} of {survey.sheet.num_rows:,} rows {told} {path.name}: {pairs}",
                kind=kind,
                lines=tuple(sorted(lines)),
                count=len(lines),
                fix=DROP.format(survey.plan.spec.id, f"--lines {','.join(map(str, sorted(lines)))}" if len(lines) <= MOST_FIX_LINES else "--ids D06"),
            )


def overlap(survey: "Survey", path: Path, least: float) -> Overlap:
    """Compare every row of the training file with the survey's rows. Raises OSError, LoradError NOT_A_FILE."""
    import numpy as np

    rows, common, keys = SignedRows.of(survey.sheet), templates(survey.context), Folded.of(survey.sheet)
    index, questions = BandIndex(rows.signatures), _questions(keys)
    found = Overlap()
    known: dict[int, int] = {}  # hash of a row or of a question -> line of the training file
    matches: list[tuple[int, Case]] = []
    context = Context(survey.plan.spec, path, Surroundings(), {})
    for cases in _batches(path, survey.plan.spec.with_any_columns(), found):
        sheet = Sheet()
        sign_rows(Batch(cases, [], context), common, sheet)
        theirs, train = Folded.of(sheet), SignedRows.of(sheet)
        for values, ours in ((theirs.rows, keys.rows), (theirs.asked, questions)):
            for place in np.flatnonzero(np.isin(values, ours)).tolist():
                known.setdefault(int(values[place]), int(theirs.lines[place]))
        if len(matches) < MOST_NEAR:
            by_line = {case.line: case for case in cases}
            pairs = index.matches(train.signatures).tolist()
            matches += [(int(rows.lines[own]), by_line[int(train.lines[other])]) for other, own in pairs]
    found.exact = _lines_of(keys.rows, keys.lines, known)
    found.asked = _lines_of(np.where(np.isin(keys.asked, questions), keys.asked, 0), keys.lines, known)
    _settle(survey, found, matches[:MOST_NEAR], least)
    return found


def _lines_of(values: "Hashes", lines: "Hashes", known: "dict[int, int]") -> dict[int, int]:
    """Our line -> the training file's, for each hash that is known there."""
    import numpy as np

    places = np.flatnonzero(np.isin(values, np.array(list(known), dtype=np.uint64)))
    return {int(lines[place]): known[int(values[place])] for place in places}


def _questions(keys: Folded) -> "Hashes":
    """Hashes of the questions, without those that many rows ask."""
    import numpy as np

    values, counts = np.unique(keys.asked, return_counts=True)
    rare: Hashes = values[(counts <= max(COMMON_ROWS, COMMON_SHARE * len(keys.asked))) & (values != 0)]
    return rare


def _settle(survey: "Survey", found: Overlap, matches: list[tuple[int, Case]], least: float) -> None:
    """Keep each line where it weighs most, and of the likely matches those that hold."""
    cases = survey.rows_at([*found.asked, *(line for line, _ in matches)])
    found.asked = {line: other for line, other in found.asked.items() if line not in found.exact and len(cases[line].prompt.split()) >= LEAST_QUESTION_WORDS}
    common = templates(survey.context)
    for line, other in matches:
        if line in found.exact or line in found.asked or line in found.near:
            continue
        if Likeness({1: cases[line], 2: other}, common, least).same(1, 2):
            found.near[line] = other.line


def _batches(path: Path, spec: Spec, found: Overlap) -> Iterator[list[Case]]:
    control, cases = ControlTokens(), []
    for number, raw in enumerate(_lines(path), start=1):
        if not raw.strip():
            continue
        found.num_rows += 1
        case = _case(number, raw, spec, control)
        if case is None:
            found.unreadable += 1
            continue
        cases.append(case)
        if len(cases) >= BATCH_ROWS:
            yield cases
            cases = []
    if cases:
        yield cases


def _case(number: int, raw: bytes, spec: Spec, control: ControlTokens) -> Case | None:
    """The row; of a file in another layout, its questions and answers as prompt and completion."""
    if len(raw) > MOST_ROW_BYTES:
        return None
    try:
        return Case(number, raw, spec.decode(raw), spec, control)
    except BAD_JSON:
        pass
    try:
        texts = list(texts_of_item(msgspec.json.decode(raw)))
    except BAD_JSON:
        return None
    questions = [text for kind, text in texts if kind != "answer"]
    answers = [text for kind, text in texts if kind == "answer"]
    if not questions and not answers:
        return None
    row = CompletionRow(prompt="\n".join(questions), completion="\n".join(answers[:1]))
    return Case(number, raw, row, SPECS["completion_v1"], control)


def _lines(path: Path) -> Iterator[bytes]:
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise LoradError(f"{str(path)!r} is no plain file", hint="name the training file itself", code="NOT_A_FILE")
        rest, first = b"", True
        while block := file.read(BLOCK_BYTES):
            *whole, rest = (rest + block).split(b"\n")
            for line in whole:
                yield line.removeprefix(BOM) if first else line
                first = False
        if rest:
            yield rest.removeprefix(BOM) if first else rest
