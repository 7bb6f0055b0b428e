"""B01 to B04, B10, B13: what all answers of a file are together; doubles, contradictions, placeholders, refusals, lengths."""

import re
import string
from collections.abc import Iterator, Sequence
from math import comb
from typing import TYPE_CHECKING, Any

from rendering.rowtypes import UnpairedRow
from validation.case import Case
from validation.checks.registry import Check, Need, entered
from validation.context import Batch, Sheet
from validation.findings import SHOWN_LINES, Level, Problem, Severity, shown
from validation.folding import Folded, fold

if TYPE_CHECKING:
    from validation.survey import Survey

Array = Any  # a numpy array

DEDUP = "lorad fix {file} -o {out} --schema %s --repair dedup"
DROP = "lorad fix {file} -o {out} --schema %s --repair drop --ids %s"

# --- B01


def _dominating(survey: "Survey") -> Iterator[Problem]:
    import numpy as np

    folded = Folded.of(survey.sheet)
    answers = folded.answers[folded.answers != 0]
    if len(answers) < survey.context.limit("B01", "least_rows"):
        return
    values, counts = np.unique(answers, return_counts=True)
    most = int(counts.argmax())
    share = int(counts[most]) / len(answers)
    if share <= survey.context.limit("B01", "share"):
        return
    lines = [int(line) for line in folded.lines[folded.answers == values[most]][:SHOWN_LINES]]
    first = survey.rows_at(lines[:1]).get(lines[0])
    text = first.answer if first else ""
    said = f"answer {shown(text.strip())}" if text else "make the same tool call"
    message = f"{share:.0%} of the {len(answers):,} rows {said}"
    yield Problem(message=message, lines=tuple(lines), count=int(counts[most]))


@entered(
    Check(
        "B01",
        "bal.answer",
        Severity.WARNING,
        Need.BATCH,
        "add rows with other answers, or keep only some of these",
        why="a model that always gives this answer would be right that often, so it learns to ignore the question",
        level=Level.STANDARD,
        limits={"share": 0.6, "least_rows": 20},
        conclude=_dominating,
    )
)
def one_answer(batch: Batch, sheet: Sheet) -> None:
    """One answer dominates; case, blanks and stops do not count."""
    fold(batch, sheet)


# --- B02


def _doubles(survey: "Survey") -> Iterator[Problem]:
    import numpy as np

    folded = Folded.of(survey.sheet)
    if not len(folded.rows):
        return
    _, first, places = np.unique(folded.rows, return_index=True, return_inverse=True)
    originals = first[places]
    copies = np.flatnonzero(originals != np.arange(len(originals)))
    share = len(copies) / len(originals)
    survey.stats["repeated_rows"] = len(copies)
    if not len(copies) or share <= survey.context.limit("B02", "warn_share"):
        return
    lines = [int(line) for line in folded.lines[copies]]
    named = [f"line {line} repeats line {int(folded.lines[originals[copy]])}" for line, copy in zip(lines[:3], copies[:3], strict=True)]
    message = f"{len(lines):,} of {len(originals):,} rows ({share:.1%}) repeat an earlier one: {', '.join(named)}"
    severity = Severity.ERROR if share >= survey.context.limit("B02", "error_share") else None
    yield Problem(message=message, lines=tuple(lines), count=len(lines), severity=severity, fix=DEDUP % survey.plan.spec.id)


@entered(
    Check(
        "B02",
        "dup.exact",
        Severity.WARNING,
        Need.BATCH,
        "keep one of each; where the doubles lie on purpose to weigh a row more, use its `weight`",
        why="repeated rows are learnt by heart, and a double that falls into the held-back rows makes the score too good",
        level=Level.STANDARD,
        limits={"warn_share": 0.01, "error_share": 0.3},
        conclude=_doubles,
    )
)
def repeated_rows(batch: Batch, sheet: Sheet) -> None:
    """Rows that equal an earlier one in all but case and blanks."""
    fold(batch, sheet)


# --- B03


def _contradictions(survey: "Survey") -> Iterator[Problem]:
    import numpy as np

    folded = Folded.of(survey.sheet)
    asked, told = folded.asked, folded.answers
    labelled = survey.plan.spec.row is UnpairedRow
    if labelled:  # several good and bad answers to one prompt are its nature; one answer that is both is not
        asked, told = np.where((asked == 0) | (told == 0), np.uint64(0), asked ^ (told << np.uint64(1))), folded.rows
    known = np.flatnonzero((asked != 0) & (told != 0))
    order = known[np.lexsort((known, told[known], asked[known]))]
    same = asked[order][1:] == asked[order][:-1]
    groups = np.concatenate(([0], np.cumsum(~same))) if len(order) else np.zeros(0, dtype=int)
    differs = same & (told[order][1:] != told[order][:-1])
    torn = np.isin(groups, groups[1:][differs])
    places = np.sort(order[torn])
    share = len(places) / max(1, len(folded.rows))
    if not len(places) or share <= survey.context.limit("B03", "share"):
        return
    lines = [int(line) for line in folded.lines[places]]
    other = next(place for place in places[1:] if asked[place] == asked[places[0]] and told[place] != told[places[0]])
    both = f"lines {lines[0]} and {int(folded.lines[other])}"
    if labelled:
        told_of, hint = f"give an answer both labels: {both} call the same answer good and bad", "keep the label that is right"
    else:
        told_of, hint = f"share their prompt but not their answer: {both} ask the same and answer differently", ""
    yield Problem(message=f"{len(places):,} of {len(folded.rows):,} rows ({share:.1%}) {told_of}", lines=tuple(lines), count=len(places), hint=hint)


@entered(
    Check(
        "B03",
        "dup.prompt_conflict",
        Severity.WARNING,
        Need.BATCH,
        "keep the answer that is right; where both are, say in the prompt what tells them apart",
        why="answers that differ for no visible reason cancel each other out, and the model learns to guess",
        level=Level.STANDARD,
        families=("chat", "completion", "vision"),
        limits={"share": 0.01},
        conclude=_contradictions,
    )
)
def contradicting_rows(batch: Batch, sheet: Sheet) -> None:
    """The same prompt with different answers. Pairs hold several answers by nature; of labelled rows, one answer with both labels."""
    fold(batch, sheet)


# --- B04

# Words that an export writes where there was nothing. Those of the first line may be a true answer or a label.
_MAYBE = frozenset(("none", "null", "n/a", "nil", "undefined", "todo", "tbd", "...", "…", "no answer"))
_NEVER = frozenset(
    (
        *("nan", "nat", "<na>", "#n/a", "#ref!", "#value!", "#name?", "#div/0!", "#null!", "#num!", "#error!", "[object object]", "[object promise]"),
        *("(null)", "<null>", "[null]", "<none>", "[none]", "fixme", "[deleted]", "[removed]", "placeholder", "[placeholder]", "xxx", "<missing>", "[missing]"),
    )
)
_LOST = _MAYBE | _NEVER
_FRAME = re.compile(
    r"\{\{[^{}]*\}\}|\[(?:insert|your|enter|add|write)\b[^\[\]]*\]|<(?:your |the |insert )?[a-z_ ]*(?:answer|response|completion|output)[a-z_ ]*>"
)
_LONGEST = 48
LEAST_LOST = 2  # rows; one of a dozen refuses no file
FEW_LABELS = 3


def placeholder_in(answer: str) -> str:
    """The placeholder that is all of an answer, folded; empty where it says something."""
    if len(answer) > _LONGEST:
        return "lorem ipsum" if answer[:1] in "Ll" and answer[:11].lower() == "lorem ipsum" else ""
    plain = answer.strip().strip("\"'`*").lower()
    bare = plain.rstrip(".!") or plain
    for word in (plain, bare):
        if word in _LOST:
            return word
    if plain == "na" and answer.strip() == "NA":
        return "na"
    return plain if plain[:1] in "{[<" and _FRAME.fullmatch(plain) else ("lorem ipsum" if plain.startswith("lorem ipsum") else "")


# How a placeholder begins, in small letters and capitals, unless with a sign.
_HEADS = frozenset(first + second for word in (*_LOST, "na", "lorem") for first in {word[0], word[0].upper()} for second in {word[1:2], word[1:2].upper()})
_LETTERS = frozenset(string.ascii_letters + string.digits)


def _is_asked_for(word: str, case: Case) -> bool:
    """Whether the prompt names the word, as in "answer yes, no or N/A"; then it is an answer. A prompt that is lost too asks for nothing."""
    if word not in _MAYBE and word not in ("na", "nan"):
        return False
    prompt = case.prompt
    return not placeholder_in(case.question) and re.search(rf"(?<!\w){re.escape(word)}(?!\w)", prompt, re.IGNORECASE) is not None


def _placeholders(survey: "Survey") -> Iterator[Problem]:
    lines = [int(line) for line in survey.sheet.column("B04.lines")]
    if not lines:
        return
    words = survey.sheet.counter("B04.words")
    share = len(lines) / max(1, survey.sheet.num_rows)
    word, count = words.most_common(1)[0]
    path = next(iter(survey.sheet.counter("B04.paths").most_common(1)))[0]
    severity, hint = None, ""
    if _are_labels(survey, words, lines):
        hint = f"{shown(word)} seems to be one of a few labels: if so, write it out (for example 'no category'), so that no lost value can be taken for it"
    elif share >= survey.context.limit("B04", "error_share") and len(lines) >= LEAST_LOST:
        severity = Severity.ERROR
    others = f", {', '.join(shown(other) for other, _ in words.most_common(4)[1:])} others" if len(words) > 1 else ""
    message = f"{len(lines):,} of {survey.sheet.num_rows:,} answers are a placeholder: {count:,} {shown(word)}{others}"
    fix = DROP % (survey.plan.spec.id, "B04")
    yield Problem(message=message, path=path, lines=tuple(lines), count=len(lines), severity=severity, hint=hint, fix=fix)


def _are_labels(survey: "Survey", words: Any, lines: Sequence[int]) -> bool:
    """Whether the placeholders may be labels: the other answers are a few short ones that come again and again."""
    import numpy as np

    folded = Folded.of(survey.sheet)
    others = folded.answers[(folded.answers != 0) & ~np.isin(folded.lines, np.array(lines, dtype=np.uint64))]
    distinct = len(np.unique(others))
    plausible = all(word in _MAYBE or word in ("na", "nan") for word in words)
    return plausible and distinct > 0 and (distinct <= len(others) / 4 or (distinct <= FEW_LABELS and distinct <= len(others) / 2))


@entered(
    Check(
        "B04",
        "text.placeholder",
        Severity.WARNING,
        Need.BATCH,
        "the answers were lost on the way: look at the export, or leave these rows out",
        why="the model would learn to say the placeholder instead of an answer",
        level=Level.STANDARD,
        limits={"error_share": 0.05},
        conclude=_placeholders,
    )
)
def placeholders(batch: Batch, sheet: Sheet) -> None:
    """A placeholder is the whole answer."""
    fold(batch, sheet)
    is_pair = batch.context.spec.family == "pair"
    for case in _suspects(batch):
        worse = case.rejected if is_pair else None
        for text in (*case.answers, worse[-1].content) if worse else case.answers:
            if (len(text) <= _LONGEST or text[:1] in "Ll") and (word := placeholder_in(text)) and not _is_asked_for(word, case):
                sheet.column("B04.lines").append(case.line)
                sheet.counter("B04.words")[word] += 1
                sheet.counter("B04.paths")[_answer_path(case, text)] += 1
                break


def _suspects(batch: Batch) -> Sequence[Case]:
    """The rows that may have a placeholder: of plain rows those with a text which is one."""
    if not batch.plain:
        return batch.cases
    begins = [(place, text) for place, text in enumerate(batch.plain.texts) if text[:2] in _HEADS or text[0] not in _LETTERS]
    return batch.holding([place for place, text in begins if placeholder_in(text)])


def _answer_path(case: Case, text: str) -> str:
    for index, message in enumerate(case.messages):
        if message.role == "assistant" and message.content == text:
            return case.path(index)
    return "$.rejected" if case.spec.family == "pair" else "$"


# --- B10

_AI = r"(?:ai|artificial intelligence|(?:large )?language)(?: language)?(?: model| assistant| system| chatbot)?"
_CANNOT = r"(?:can['’]?t|can ?not|won['’]?t|will not|(?:am |['’]m )?(?:not able|unable) to|(?:am |['’]m )?not (?:comfortable|allowed to))"
_DO = r"(?:help(?! but)|assist|fulfil|comply|provide|answer|engage|support|discuss|generate|offer|do that|talk about|give (?:you )?(?:any )?advice)"
BARE_REFUSAL = re.compile(rf"(?:no, )?i\s?{_CANNOT}\s{_DO}\b", re.IGNORECASE)
# The rest holds one of these words, which are faster to look for in the bytes of a row.
_CUES = (
    b"sorry",
    b"apolog",
    b"afraid",
    b" an ai",
    b"language",
    b"artificial",
    b"als k",
    b"sprachmodell",
    b"en tant",
    b"como ",
    "作为".encode(),
    b"\\u4f5c\\u4e3a",
)
REFUSAL = re.compile(
    rf"\bas an? {_AI}\s*[,:]|\bas an? (?:ai|(?:ai |large )?language) (?:model|assistant)\b"
    r"|\bi(?: am|['’]m) (?:just |only )?an? (?:ai|large language model)\b(?! \w+er\b)"
    rf"|\b(?:sorry|apologi[sz]e|afraid)\b[^.!?]{{0,60}}\bi\s?{_CANNOT}\s{_DO}\b|^{BARE_REFUSAL.pattern}"
    r"|\bals (?:ki|künstliche intelligenz|sprachmodell)\b[ ,-]|\ben tant qu(?:e modèle de langage|['’](?:ia|intelligence artificielle))\b"
    r"|\bcomo (?:modelo de lenguaje|una? ia|inteligencia artificial)\b|作为一?[个名]?(?:人工智能|ai|语言模型)",
    re.IGNORECASE,
)
# The same, for a text of ASCII alone: without one of these words it matches as BARE_REFUSAL or not at all.
_WORDS = (*(cue.decode() for cue in _CUES if cue.isascii() and not cue.startswith(b"\\")), " a ai")
_REFUSES_WITHIN = 400  # characters


def _refusals(survey: "Survey") -> Iterator[Problem]:
    lines = [int(line) for line in survey.sheet.column("B10.lines")]
    paired = survey.plan.spec.family == "pair"
    limit = survey.context.limit("B10", "pair_share" if paired else "share")
    if len(lines) < survey.context.limit("B10", "least_rows") or len(lines) / max(1, survey.sheet.num_sampled) <= limit:
        return
    case = survey.rows_at(lines[:1])[lines[0]]
    found = next(match for match in (REFUSAL.search(text, 0, _REFUSES_WITHIN) for text in case.answers) if match)
    which = "preferred answers" if paired else "answers"
    share = len(lines) / survey.sheet.num_sampled
    yield Problem(message=f"{share:.0%} of the {which} refuse, the first with {shown(found[0])}", lines=tuple(lines), count=len(lines))


@entered(
    Check(
        "B10",
        "text.refusal",
        Severity.WARNING,
        Need.BATCH,
        "leave out the refusals that another model's boilerplate brought in; keep those that you want to be learnt",
        why="a model refuses more broadly than it was taught to: a few such rows are enough for harmless questions",
        level=Level.STANDARD,
        limits={"share": 0.05, "pair_share": 0.5, "least_rows": 3},
        conclude=_refusals,
    )
)
def refusals(batch: Batch, sheet: Sheet) -> None:
    """Answers of a model that will not answer. In pairs a refusal may be the point, so there more are let pass; bad answers do not count."""
    lines = sheet.column("B10.lines")
    for case in batch.sampled:
        if not (isinstance(case.row, UnpairedRow) and not case.row.label) and _refuses(case):
            lines.append(case.line)


def _refuses(case: Case) -> bool:
    """Whether an answer refuses."""
    answers = [answer[:_REFUSES_WITHIN] for answer in case.answers]
    said = "\n".join(answers)
    find = BARE_REFUSAL.match
    if not said.isascii() or any(map(said.lower().__contains__, _WORDS)):
        raw = case.raw.lower()
        find = REFUSAL.search if any(cue in raw for cue in _CUES) else find
    else:  # what is left begins with one of its two words; in other scripts letters stand for them too
        answers = [answer for answer in answers if answer[:1] in "iInN"]
    return any(map(find, answers))


# --- B13


def _length_bias(survey: "Survey") -> Iterator[Problem]:
    counts, rows = survey.sheet.counter("B13"), survey.sheet.num_rows
    longer = counts["longer"]
    if not rows or longer / rows <= survey.context.limit("B13", "share") or _by_chance(longer, rows) > survey.context.limit("B13", "p"):
        return
    times = counts["chosen"] / max(1, counts["rejected"])
    if rows < survey.context.limit("B13", "sure_rows") and times < survey.context.limit("B13", "times"):
        return  # a few rows lean to one side by a few letters
    message = f"the chosen answer is longer than the rejected one in {longer / rows:.0%} of {rows:,} rows, {times:.1f} times as long on the whole"
    yield Problem(message=message, count=longer)


def _by_chance(longer: int, rows: int) -> float:
    """How likely a fair coin falls this way so often or more: the upper tail of the binomial distribution."""
    if rows > 500:
        return 0.0  # at a share of 0.55 or more; below it is a matter of the share's limit
    return float(sum(comb(rows, number) for number in range(longer, rows + 1)) / 2**rows)


@entered(
    Check(
        "B13",
        "len.pref_bias",
        Severity.WARNING,
        Need.BATCH,
        "add pairs whose better answer is the shorter one, or choose pairs of like length",
        why="length is the easiest difference to learn: the model will write longer, not better",
        level=Level.STANDARD,
        families=("pair",),
        limits={"share": 0.8, "p": 0.001, "sure_rows": 50, "times": 1.2},
        conclude=_length_bias,
    )
)
def longer_is_better(batch: Batch, sheet: Sheet) -> None:
    """The better answer is nearly always the longer one."""
    counts = sheet.counter("B13")
    for case in batch.cases:
        # Both conversations share their prompt, so their lengths differ as their answers do.
        chosen, rejected = (sum(len(message.content) for message in turns) for turns in (case.messages, case.rejected or ()))
        shared = len(case.prompt)
        counts["longer"] += chosen > rejected
        counts["chosen"] += max(0, chosen - shared)
        counts["rejected"] += max(0, rejected - shared)
