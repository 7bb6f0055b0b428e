"""The teacher of SYLLO: words are built from syllable tiles by their clues, every tile used once; four words at level 1, eight at level 5."""

import random
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files
from math import comb
from typing import Any

import msgspec

from corpus.curriculum.teachers.port import Checked, Row, TeacherLevel, chat_row, prompt_of

LEVELS = 5
WORDS_ABOVE_LEVEL = 3  # a puzzle of level 1 has four words

_PROMPT = re.compile(
    r"SYLLO puzzle\nBuild (\d+) words\. Use every syllable tile exactly once\.\nSyllable bank: ([a-z, ]+)\nClues:\n((?:\d+\. [^\n]+\n)+)Answer with JSON only\."
)
_CLUE = re.compile(r"(\d+)\. (.+) \((\d+) syllables\)")


@dataclass(frozen=True, slots=True)
class Word:
    """A word as its tiles, and its clue, which no other word has."""

    tiles: tuple[str, ...]
    clue: str

    @property
    def text(self) -> str:
        """The whole word in capitals, as answers have it."""
        return "".join(self.tiles).upper()


class Solution(msgspec.Struct):
    """One word of an answer."""

    ans_num: int
    syllables: list[str]
    answer: str


class Answer(msgspec.Struct):
    """The JSON of an answer."""

    solutions: list[Solution]


@cache
def words() -> tuple[Word, ...]:
    """The list that ships, in its own order. Reads words.txt once."""
    text = files("corpus.curriculum.teachers").joinpath("words.txt").read_text(encoding="utf-8")
    lines = [line.split("|") for line in text.splitlines() if line and not line.startswith("#")]
    return tuple(Word(tuple(tiles.split("-")), clue) for tiles, clue in lines)


class Syllo:
    """A puzzle is a set of words; the same set never comes twice at a level."""

    name = "syllo"
    generator = "lorad-syllo"
    version = "1"
    schema_id = "syllo_v1"
    port = 8080

    @cached_property
    def levels(self) -> tuple[TeacherLevel, ...]:
        """Five, by the number of words."""
        counts = [(level, level + WORDS_ABOVE_LEVEL) for level in range(1, LEVELS + 1)]
        return tuple(TeacherLevel(level=level, title=f"{count} words", num_rows=comb(len(words()), count)) for level, count in counts)

    def row(self, level: int, number: int) -> Row:
        """The puzzle of this number and its answer."""
        chosen = [words()[place] for place in _combination(number, level + WORDS_ABOVE_LEVEL)]
        random.Random(number).shuffle(chosen)  # noqa: S311 - a puzzle is no secret: the same number is the same puzzle everywhere
        bank = sorted(tile for word in chosen for tile in word.tiles)
        clues = "".join(f"{place}. {word.clue} ({len(word.tiles)} syllables)\n" for place, word in enumerate(chosen, 1))
        rules = f"SYLLO puzzle\nBuild {len(chosen)} words. Use every syllable tile exactly once."
        prompt = f"{rules}\nSyllable bank: {', '.join(bank)}\nClues:\n{clues}Answer with JSON only."
        solutions = [Solution(place, list(word.tiles), word.text) for place, word in enumerate(chosen, 1)]
        answer = msgspec.json.encode(Answer(solutions)).decode()
        return chat_row(prompt, answer, skill=self.name, level=level, num_words=len(chosen), syllable_bank_size=len(bank))

    def check(self, row: Mapping[str, Any], answer: str) -> Checked:
        """JSON alone, one solution for each clue, the word that the clue means, and every tile of the bank spent once."""
        puzzle = _read(prompt_of(row))
        if puzzle is None:
            return Checked(right=False, level=0, why="the row is no SYLLO puzzle")
        wanted, bank = puzzle
        why = _complaint(answer, wanted, bank)
        return Checked(right=not why, level=len(wanted) - WORDS_ABOVE_LEVEL, why=why)


def _combination(number: int, size: int) -> list[int]:
    """The places of the words of a puzzle: `number` in the combinatorial number system (Knuth, TAOCP 4A, 7.2.1.3)."""
    places = []
    for left in range(size, 0, -1):
        place = bisect_right(_combs(left), number) - 1
        number -= _combs(left)[place]
        places.append(place)
    return places


@cache
def _combs(size: int) -> tuple[int, ...]:
    return tuple(comb(count, size) for count in range(len(words())))


@cache
def _by_clue() -> Mapping[str, Word]:
    return {word.clue: word for word in words()}


def _read(prompt: str) -> tuple[list[Word], Counter[str]] | None:
    """The words that the clues mean, in their order, and the bank; None where the prompt is no puzzle that can be solved."""
    found = _PROMPT.fullmatch(prompt)
    clues = [_CLUE.fullmatch(line) for line in found[3].splitlines()] if found else []
    if not found or not all(clues):
        return None
    wanted = []
    for place, clue in enumerate(clues, 1):
        assert clue is not None
        word = _by_clue().get(clue[2])
        if word is None or int(clue[1]) != place or int(clue[3]) != len(word.tiles):
            return None
        wanted.append(word)
    bank = Counter(found[2].split(", "))
    sound = int(found[1]) == len(wanted) == len(set(wanted)) and 1 <= len(wanted) - WORDS_ABOVE_LEVEL <= LEVELS
    return (wanted, bank) if sound and bank == Counter(tile for word in wanted for tile in word.tiles) else None


def _complaint(answer: str, wanted: list[Word], bank: Counter[str]) -> str:
    try:
        solutions = msgspec.json.decode(answer.encode(errors="surrogatepass"), type=Answer).solutions
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "the answer is not the JSON of the task"
    if sorted(solution.ans_num for solution in solutions) != list(range(1, len(wanted) + 1)):
        return "there is not one solution for each clue"
    for solution in solutions:
        word = wanted[solution.ans_num - 1]
        if solution.answer.upper() != word.text:
            return f"the word of clue {solution.ans_num} is {word.text}"
        if "".join(solution.syllables).upper() != word.text or len(solution.syllables) != len(word.tiles):
            return f"the tiles of clue {solution.ans_num} do not make its word"
    spent = Counter(tile.lower() for solution in solutions for tile in solution.syllables)
    return "" if spent == bank else "the tiles are not those of the bank, each used once"
