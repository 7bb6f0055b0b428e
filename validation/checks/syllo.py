"""Y01 to Y03: word puzzles. The answer must be the JSON of the task, spend every tile of the bank once, and fit its clues."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from rendering.specs import BAD_JSON
from validation.case import Case
from validation.checks.registry import Check, Need, entered
from validation.context import Batch, Context, Sheet
from validation.findings import Level, Problem, Severity, shown

if TYPE_CHECKING:
    from validation.survey import Survey

SYLLO = ("syllo_v1",)
DROP = "lorad fix {file} -o {out} --schema syllo_v1 --repair drop --ids %s"
WORDS_ABOVE_LEVEL = 3  # a puzzle of level 1 has four words

_BANK = re.compile(r"^[ \t]*Syllable bank:[ \t]*(.*)$", re.MULTILINE | re.IGNORECASE)
_CLUE = re.compile(r"^[ \t]*(\d+)[.)][ \t]+(.*?)[ \t\r]*$", re.MULTILINE)
_SYLLABLES = re.compile(r"\((\d+)[ \t]+syllables?\)$", re.IGNORECASE)
_BUILD = re.compile(r"\bBuild[ \t]+(\d+)[ \t]+words?\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Puzzle:
    """What the prompt sets. `syllables` holds a number for each clue, None where the clue does not say."""

    bank: tuple[str, ...]
    clues: tuple[int, ...]  # their numbers
    syllables: tuple[int | None, ...]
    words: int | None  # that the prompt asks for


class Solution(msgspec.Struct):
    """One word of an answer."""

    ans_num: int
    syllables: list[str]
    answer: str


class Answer(msgspec.Struct):
    """The JSON of an answer."""

    solutions: list[Solution]


def puzzle_of(prompt: str) -> Puzzle | None:
    """The puzzle of a prompt; None where it has no bank."""
    bank = _BANK.search(prompt)
    if not bank:
        return None
    clues = [(int(clue[1]), _SYLLABLES.search(clue[2])) for clue in _CLUE.finditer(prompt, bank.end())]
    asked = _BUILD.search(prompt)
    return Puzzle(
        bank=tuple(tile for tile in (part.strip().casefold() for part in bank[1].split(",")) if tile),
        clues=tuple(number for number, _ in clues),
        syllables=tuple(int(found[1]) if found else None for _, found in clues),
        words=int(asked[1]) if asked else None,
    )


def _answer_path(case: Case) -> str:
    return next((case.path(index) for index in range(len(case.messages) - 1, -1, -1) if case.messages[index].role == "assistant"), "$.messages")


@entered(
    Check(
        "Y01",
        "syllo.format",
        Severity.ERROR,
        Need.EACH,
        'the answer is JSON alone: {"solutions": [{"ans_num": 1, "syllables": ["pa", "tri", "ot"], "answer": "PATRIOT"}, …]}, one solution for each clue',
        why="the task is judged by this form, so a model that learns another one fails every puzzle",
        level=Level.STANDARD,
        specs=SYLLO,
    )
)
def wrong_format(case: Case, context: Context) -> Problem | None:
    """A prompt that is no puzzle, or an answer that is not its JSON."""
    puzzle = puzzle_of(case.prompt)
    if puzzle is None or not puzzle.bank:
        hint = "the prompt names the tiles on a line of its own: Syllable bank: pa, tri, ot"
        return Problem(message="the prompt has no syllable bank", path=case.path(0), kind="prompt", hint=hint)
    complaint, kind = format_complaint(case.answer, puzzle)
    return Problem(message=complaint, path=_answer_path(case), kind=kind, fix=DROP % "Y01") if complaint else None


def format_complaint(text: str, puzzle: Puzzle) -> tuple[str, str]:
    """(what is wrong with the form of an answer, its kind); empty for none."""
    if not text.strip():
        return "there is no answer", "empty"
    try:
        answer = msgspec.json.decode(text.encode(), type=Answer)
    except msgspec.ValidationError as error:
        return f"the JSON has another shape: {error}", "shape"
    except BAD_JSON:
        return _not_json(text)
    numbers = [solution.ans_num for solution in answer.solutions]
    if len(numbers) != len(puzzle.clues):
        return f"{_many(len(puzzle.clues), 'clue')}, but {_many(len(numbers), 'solution')}", "number"
    if sorted(numbers) != sorted(puzzle.clues):
        return f"the solutions are numbered {shown(numbers)}, the clues {shown(list(puzzle.clues))}", "numbering"
    return "", ""


def _not_json(text: str) -> tuple[str, str]:
    plain = text.strip()
    if "```" in plain:
        return "the JSON stands in a Markdown fence", "fence"
    start, end = plain.find("{"), plain.rfind("}")
    if start >= 0 and (start > 0 or 0 <= end < len(plain) - 1):
        inner = plain[start : end + 1] if end > start else ""
        try:
            msgspec.json.decode(inner.encode(), type=Answer)
        except BAD_JSON:
            pass
        else:
            around = plain[:start].strip() or plain[end + 1 :].strip()
            return f"words stand around the JSON: {shown(around)}", "around"
    return f"the answer is not JSON: {shown(plain)}", "json"


def _many(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


@entered(
    Check(
        "Y02",
        "syllo.tiles",
        Severity.ERROR,
        Need.EACH,
        "solve the puzzle again, or leave the row out",
        why="the answer breaks the rules of the puzzle, and the model would learn to break them",
        level=Level.STANDARD,
        specs=SYLLO,
        rank=1,
    )
)
def wrong_tiles(case: Case, context: Context) -> Problem | None:
    """Tiles that the bank does not hold, too many or too few of one, a word that is not its tiles, a word of another length than its clue says."""
    puzzle = puzzle_of(case.prompt)
    if puzzle is None or format_complaint(case.answer, puzzle)[0]:
        return None
    solutions = msgspec.json.decode(case.answer.encode(), type=Answer).solutions
    complaint, kind = _spelling(solutions) or _spending(solutions, puzzle) or _lengths(solutions, puzzle) or ("", "")
    return Problem(message=complaint, path=_answer_path(case), kind=kind, fix=DROP % "Y02") if complaint else None


def _spelling(solutions: list[Solution]) -> tuple[str, str] | None:
    for solution in solutions:
        joined = "".join(tile.strip() for tile in solution.syllables)
        if joined.casefold() != solution.answer.strip().casefold():
            return (
                f"answer {solution.ans_num} is {shown(solution.answer)}, but its tiles make {shown(joined)} ({', '.join(map(shown, solution.syllables))})",
                "word",
            )
    return None


def _spending(solutions: list[Solution], puzzle: Puzzle) -> tuple[str, str] | None:
    spent = Counter(tile.strip().casefold() for solution in solutions for tile in solution.syllables)
    bank = Counter(puzzle.bank)
    over, left = spent - bank, bank - spent
    if not over and not left:
        return None
    foreign = [tile for tile in over if tile not in bank]
    told = [f"not in the bank: {_tiles(Counter({tile: over[tile] for tile in foreign}))}"] if foreign else []
    told += [f"used more often than the bank holds them: {_tiles(twice)}"] if (twice := Counter({t: n for t, n in over.items() if t in bank})) else []
    told += [f"left over: {_tiles(left)}"] if left else []
    return f"tiles {'; '.join(told)}", "foreign" if foreign else ("twice" if over else "left")


def _tiles(tiles: Counter[str]) -> str:
    named = [shown(tile) + (f" ({number} times)" if number > 1 else "") for tile, number in list(tiles.items())[:6]]
    return ", ".join(named) + (f" and {len(tiles) - 6} more" if len(tiles) > 6 else "")


def _lengths(solutions: list[Solution], puzzle: Puzzle) -> tuple[str, str] | None:
    wanted = dict(zip(puzzle.clues, puzzle.syllables, strict=True))
    for solution in solutions:
        syllables = wanted.get(solution.ans_num)
        if syllables is not None and syllables != len(solution.syllables):
            return f"clue {solution.ans_num} asks for {_many(syllables, 'syllable')}; {shown(solution.answer)} has {len(solution.syllables)} tiles", "length"
    return None


# --- Y03


def _levels(survey: "Survey") -> Iterator[Problem]:
    """Levels that differ from those of most rows; silent where the file counts levels in another way."""
    counts, lines = survey.sheet.counter("Y03.levels"), [int(line) for line in survey.sheet.column("Y03.lines")]
    if not lines or counts["usual"] <= len(lines):
        return
    case = survey.rows_at(lines[:1])[lines[0]]
    puzzle = puzzle_of(case.prompt)
    words, level = len(puzzle.clues) if puzzle else 0, case.row.metadata.get("level")
    message = f"metadata.level is {shown(level)} for a puzzle of {_many(words, 'word')}; in the other rows it is {words - WORDS_ABOVE_LEVEL}"
    yield Problem(message=message, path="$.metadata.level", lines=tuple(lines), count=len(lines), kind="level")


@entered(
    Check(
        "Y03",
        "syllo.meta",
        Severity.WARNING,
        Need.BATCH,
        "correct the metadata, or the puzzle where tiles or clues were lost",
        why="rows are chosen and scores are broken down by these figures",
        level=Level.STANDARD,
        specs=SYLLO,
        conclude=_levels,
    )
)
def wrong_metadata(batch: Batch, sheet: Sheet) -> Iterator[tuple[int, Problem]]:
    """Figures in the metadata, or in the prompt's first lines, that its clues and its bank do not bear out."""
    for case in batch.cases:
        puzzle = puzzle_of(case.prompt)
        if puzzle is None:
            continue
        for problem in metadata_problems(puzzle, case.row.metadata):
            yield case.line, problem
        level = case.row.metadata.get("level")
        if level is not None:
            usual = level == len(puzzle.clues) - WORDS_ABOVE_LEVEL
            sheet.counter("Y03.levels")["usual" if usual else "other"] += 1
            if not usual:
                sheet.column("Y03.lines").append(case.line)


def metadata_problems(puzzle: Puzzle, metadata: dict[str, Any]) -> Iterator[Problem]:
    """What disagrees, figure by figure; those that are not given are passed over."""
    clues = len(puzzle.clues)
    if puzzle.words is not None and puzzle.words != clues:
        yield Problem(message=f"the prompt asks for {_many(puzzle.words, 'word')} and gives {_many(clues, 'clue')}", path="$.messages", kind="build")
    for key, true, thing in (("num_words", clues, "clue"), ("syllable_bank_size", len(puzzle.bank), "tile")):
        told = metadata.get(key)
        if told is not None and told != true:
            yield Problem(message=f"metadata.{key} is {shown(told)}; the prompt has {_many(true, thing)}", path=f"$.metadata.{key}", kind=key)
