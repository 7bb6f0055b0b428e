"""D01 and D02: the answer already stands in the prompt.

Many good tasks have their answer in the prompt: to extract, choose, quote, correct. They are known by their words, by
options that are listed, or by the file: where short answers too are spans of their prompts, extraction is what the file
teaches. A leak looks otherwise: the answer behind "answer:", at the edge of the prompt, or as a line of its own.
"""

import re
from array import array
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from validation.case import Case
from validation.checks.registry import Check, Need, entered
from validation.context import Batch, Sheet
from validation.findings import Level, Problem, Severity, shown
from validation.patterns import Late

if TYPE_CHECKING:
    from validation.survey import Survey

DROP = "lorad fix {file} -o {out} --schema %s --repair drop --ids %s"
WHY = "in use nobody puts the answer into the question: the model learns to copy and looks better in training than it is"

# --- D01

# Words of tasks whose answer stands in the prompt as it should. The first tell what is done to a text that is given.
_GIVEN_TEXT = (
    r"extract|which (?:of|one|sentence|word|part|option|line)|choose|select|pick|quot(?:e|ing|ation)|cit(?:e|ing)|copy|copies|repeat|verbatim|echo|transcribe"
    r"|correct|fix|repair|proof-?read|grammar|spelling|typos?|edit|improve|polish|rewrite|rewrit\w+|rephras\w+|paraphras\w+|reword|translat\w+|summari[sz]\w*"
    r"|tl;?dr|headline|shorten|simplif\w+|identify|locate|underline|highlight|classif\w+|categori[sz]\w+|reformat|convert|remove|delete|replace|revers\w+"
    r"|unscrambl\w+|punctuat\w+|capitali[sz]\w+|true or false|multiple[ -]choice|options|choices|alternatives|passages?|paragraphs?|contexts?|articles?"
    r"|excerpts?|documents?|snippets?|transcripts?|texts?|sentences?|sources|search results|retrieved|the following|decode|encode"
    r"|extrahier\w+|zitier\w*|übersetz\w*|korrigier\w*|wähle|welche[rs]? (?:der|von)|wiederhol\w*"
    r"|traduis\w*|tradui\w+|corrige\w*|cite[rz]?|répète\w*|extra[ie]\w+|traduc\w+"
)
_LOOSELY = (
    r"find|list|name the|sort|order|arrange|rank|reorder|label the|complete|continue|fill|format|according to|based on|given the|below|above|mentioned|say|read"
    r"|recite|spell|write down"
)
_CHINESE = "原文|翻译|提取|选择|改写|抄写|上文|下列|以下|翻訳|抜き出"
_TASK = Late(rf"\b(?:{_GIVEN_TEXT})\b|{_CHINESE}", re.IGNORECASE)
_LOOSE_TASK = Late(rf"\b(?:{_LOOSELY})\b", re.IGNORECASE)
_MARKER = Late(
    r"(?:answer(?:[ _-]?key)?|solution|expected[ _-](?:output|answer|response)|reference[ _-](?:answer|output|response)|ground[ _-]?truth"
    r"|gold(?:en)?(?: answer)?|rubric|\bkey|\btarget|correct (?:response|output)|####|答案|réponse|antwort|respuesta"
    r"|(?P<whole>hint|reference|context|background|facts?|note|information|knowledge))"
    r"\W{0,8}(?:(?:is|are|was|be|=)\W{0,4})?$",
    re.IGNORECASE,
)
_EDITED = Late(
    r"(?<!the )\b(?:correct|fix|edit|rewrite|rephrase|translate|proof-?read|improve|grade|rate|evaluate|judge|paraphrase|summari[sz]e|repeat|copy|shorten"
    r"|polish)(?:\W+(?:the|this|that|these|my|your|a|an|following|given|student\W?s?|model\W?s?|proposed|final)){0,4}\W*$",
    re.IGNORECASE,
)
_OPTION = Late(r"(?m)^[ \t]*(?:[-*•–]|[\[(]?(?![qa]:)[a-z0-9]{1,2}\s?[.):\]])[ \t]+\S")
_OR_BEFORE, _OR_AFTER = Late(r"\b(?:or|oder|ou)\W{1,3}$"), Late(r"\W{0,3}\b(?:or|oder|ou)\b")
_EDGE = " \t\n.,;:!?…\"'“”‘’`*_()[]{}<>-–—#|。！？、，：；「」"
_QUOTES = str.maketrans("“”‘’´", "\"\"'''")
_MOST_TURNS = 8  # user turns before an answer that are looked through
_PROBE_CHARACTERS = 12
_SENTENCE_BLANKS = 5  # an answer of six words is no name that a question may end with


class Leak(NamedTuple):
    """Where an answer stands in its prompt: behind a marker, at an edge, as a sentence inside; or it is the prompt itself."""

    kind: str
    at: int  # index of the message
    answer: str


def _folded(text: str) -> str:
    return " ".join((text if text.isascii() else text.translate(_QUOTES)).casefold().split())


def leak_in(case: Case, least: int) -> Leak | None:
    """The worst place where a whole answer of `least` characters or more stands in a user or system turn before it."""
    messages = case.messages
    lowered: list[tuple[int, str]] = []
    said: set[str] = set()
    worst: Leak | None = None
    for index, message in enumerate(messages):
        if message.role == "assistant":
            content = message.content
            if message.weight and len(content) >= least and lowered and content not in said and (found := _among(content, lowered, case, least)):
                worst = found if worst is None or _ORDER.index(found.kind) < _ORDER.index(worst.kind) else worst
            said.add(content)
        elif message.role != "tool" and message.content:
            if len(lowered) > _MOST_TURNS:
                del lowered[messages[0].role == "system"]
            lowered.append((index, message.content.lower()))
    return worst


_ORDER = ("marked", "edge", "inner", "copied")


def _among(answer: str, lowered: list[tuple[int, str]], case: Case, least: int) -> Leak | None:
    start = answer[:160].lower().split()
    probe = max(start, key=len).strip(_EDGE)[:_PROBE_CHARACTERS] if start else ""
    for index, text in lowered:
        # A long word of the answer is missing from almost every prompt: no more is worked out there.
        if probe in text and len(text) >= least:
            wanted = _folded(answer).strip(_EDGE)
            if len(wanted) >= least and (kind := _place(wanted, _lines(case.messages[index].content))):
                return Leak(kind, index, answer)
    return None


def _lines(text: str) -> str:
    """The text folded, with its line ends kept."""
    return "\n".join(filter(None, (_folded(line) for line in text.split("\n"))))


def _place(wanted: str, prompt: str) -> str:
    """How an answer stands in a prompt: one of marked, edge, inner, copied; empty where it does not, or where the task asks for it."""
    at = prompt.find(wanted)
    if at < 0:
        flat = prompt.replace("\n", " ")  # an answer of several lines
        at, prompt = flat.find(wanted), flat
        if at < 0:
            return ""
    before, after = prompt[:at], prompt[at + len(wanted) :]
    left, right = before.rstrip(" "), after.lstrip(" ")
    ends = not right.strip(_EDGE) or right.lstrip(_EDGE[3:]).startswith("\n")  # its line, or the prompt
    marked = _MARKER.search(before[-60:])
    if marked and (ends or not marked["whole"]) and not _EDITED.search(before[-60:][: marked.start()]):
        return "marked"
    if _TASK.search(before) or _TASK.search(after) or _is_choice(wanted, before, after):
        return ""
    begins, loose = not left.strip(_EDGE), _LOOSE_TASK.search(before) or _LOOSE_TASK.search(after)
    if begins and not right.strip(_EDGE):
        return "copied"  # a text that needed no change, perhaps
    together = not right.strip(_EDGE) and wanted.count(" ") >= _SENTENCE_BLANKS  # question and answer, with nothing in between
    if not loose and ((begins and right[:1] in _BOUNDS) or (ends and left[-1:] in _BOUNDS) or together):
        return "edge"
    return "inner" if not loose and left[-1:] in _BOUNDS and right[:1] in _BOUNDS else ""


_BOUNDS = '.!?:;()[]"\n。！？'


def _is_choice(wanted: str, before: str, after: str) -> bool:
    """Whether the prompt offers the answer beside others: listed, or joined by "or"."""
    if _OR_BEFORE.search(before[-8:]) or _OR_AFTER.match(after):
        return True
    line = before.rpartition("\n")[2]
    whole = before + wanted + after
    options = len(_OPTION.findall(whole)) + (whole.count("\na: ") if "\nb: " in whole else 0)  # "a:" alone is an answer
    return options >= 2 and (_OPTION.match(line + wanted) is not None or line.startswith("a: "))


def _leaked(survey: "Survey") -> Iterator[Problem]:
    sheet, limit = survey.sheet, partial(survey.context.limit, "D01")
    lines = {kind: sheet.column(f"D01.{kind}") for kind in _ORDER}
    counts = sheet.counter("D01")
    extraction = counts["short"] >= 3 and counts["short inside"] >= limit("extraction_share") * counts["short"]
    # Where all stands at the end of its prompt, nothing is extracted: question and answer were written together.
    if extraction and counts["short at end"] < 0.8 * counts["short inside"]:
        lines["edge"], lines["inner"] = array("Q"), array("Q")
    if len(lines["copied"]) <= limit("copied_share") * sheet.num_rows:
        lines["copied"] = array("Q")
    grave = len(lines["marked"]) + len(lines["edge"])
    every = tuple(sorted(line for found in lines.values() for line in found))
    # One row of a small file may have its answer there by accident; behind a marker it has not.
    if len(every) <= limit("warn_at") * sheet.num_rows or (len(every) < 2 and not lines["marked"]):
        return
    severity = Severity.ERROR if grave >= limit("error_at") * sheet.num_rows else None
    yield _leak_problem(survey, every, severity)


def _leak_problem(survey: "Survey", lines: tuple[int, ...], severity: Severity | None) -> Problem:
    case = survey.rows_at(lines[:1])[lines[0]]
    leak = leak_in(case, int(survey.context.limit("D01", "characters")))
    assert leak is not None
    share = len(lines) / survey.sheet.num_rows
    where = " behind a word such as 'answer:'" if leak.kind == "marked" else ""
    message = f"the whole answer stands in the prompt{where} in {share:.0%} of the rows: {shown(leak.answer)}"
    fix = DROP % (survey.plan.spec.id, "D01")
    return Problem(message=message, path=case.path(leak.at), lines=lines, count=len(lines), severity=severity, fix=fix)


@entered(
    Check(
        "D01",
        "leak.answer",
        Severity.WARNING,
        Need.BATCH,
        "take the answer out of the prompt; if the task is to copy or to extract, say so in the prompt",
        why=WHY,
        level=Level.DEEP,
        limits={"warn_at": 0.02, "error_at": 0.2, "characters": 16, "extraction_share": 0.3, "copied_share": 0.7},
        conclude=_leaked,
    )
)
def answer_in_prompt(batch: Batch, sheet: Sheet) -> None:
    """Whole answers that stand in their prompt; and whether short answers do, too."""
    least = int(batch.context.limit("D01", "characters"))
    counts = sheet.counter("D01")
    for case in batch.cases:
        answer = case.answer
        if len(answer) < least:
            _count_short(case, answer.strip(_EDGE).lower(), counts)
        if len(answer) >= least or len(case.answers) > 1:
            found = leak_in(case, least)
            if found:
                sheet.column(f"D01.{found.kind}").append(case.line)


def _count_short(case: Case, answer: str, counts: "Counter[str]") -> None:
    if len(answer) < 2:
        return
    counts["short"] += 1
    question = case.question.lower()
    if answer in question:
        counts["short inside"] += 1
        counts["short at end"] += question.rstrip(_EDGE).endswith(answer)


# --- D02

_MAY_MARK = Late("####|答案|(?:answer|ans|key|solution|label|truth|target|output|result)[^.!?\\n]{0,40}(?:[:=：]|is|are|was)")
_MARKED = Late(
    r"(?:(?<![a-z])(?:answer(?:[ _-]?key)?|ans|key|solution|label|ground[ _-]?truth|target|output|result)"
    r"[\"'*_ ]{0,3}(?:\((?:hidden|secret|internal|do not)[^)]{0,30}\))?[\"'*_ ]{0,3}(?:\s?(?:is|are|was|=>|->|=|:|：)){1,2}|####|答案(?:是|为|[:：]))"
    r"[ \t]*\n?[ \t]*(?P<value>[^\n]{0,120})",
)
_FINAL = Late(r"####[ \t]*(?P<a>[^\n]{1,80})|\\boxed\{(?P<b>[^{}]{1,80})\}|answer(?:[*_ ]{0,3}(?:is|:|=)){1,2}[ \t*_]*(?P<c>[^\n]{1,60})", re.IGNORECASE)
_GIVEN = Late(
    r"\b(?:explain why|show that|prove|verify|check (?:if|whether)|justify|derive|is (?:it|this|that) (?:correct|right|true)|work backwards?"
    r"|how (?:do|would) (?:you|we) get)\b"
)
_SHOT = Late(r"example|e\.g\.|for instance|sample|demonstration|shot|beispiel", re.IGNORECASE)
_MOST_FINAL = 60  # characters of a final answer
_LESS = Late(r"[\s$€£*_`\"'{}]+")


def _cleaned(text: str) -> str:
    return _LESS.sub(" ", text.lower().replace(",", "") if any(map(str.isdecimal, text)) else text.lower()).strip(" .;!()[]")


def final_of(answer: str) -> str:
    """The final answer of a text: behind "####", "the answer is", in a box; or the text itself where it is short. Else empty."""
    if "####" in answer or "boxed" in answer or "nswer" in answer:
        said = list(_FINAL.finditer(answer))
        if said:
            return _cleaned(re.split(r"\.(?:\s|$)", said[-1]["a"] or said[-1]["b"] or said[-1]["c"], maxsplit=1)[0])[:_MOST_FINAL]
    return _cleaned(answer) if len(answer) <= _MOST_FINAL and answer[:1] not in "{[" else ""


def _tells(value: str, final: str) -> bool:
    """Whether what follows a marker is the final answer, and not a list that it is in."""
    cleaned = _cleaned(value)
    if not cleaned.startswith(final):
        return False
    rest = cleaned[len(final) :]
    return not rest or (not rest[0].isalnum() and rest[0] not in ".%-" and re.match(r"\s*(?:or\b|and\b|to\b|[/|,]|=)", rest) is None)


class _Marked(NamedTuple):
    final: str
    hit: bool
    shots: bool  # whether the prompt shows solved examples
    at: int  # index of the message


def marked_in(case: Case) -> _Marked | None:
    """Whether a marker of the prompt tells the row's final answer; None where no marker tells anything."""
    told: _Marked | None = None
    final = ""
    for index, message in enumerate(case.messages):
        if message.role in ("assistant", "tool") or not message.content:
            continue
        text = message.content.lower()
        if not _MAY_MARK.search(text):
            continue
        found = [match for match in _MARKED.finditer(text) if index < len(case.messages) - 1]
        values = [match for match in found if match["value"].strip(_EDGE)]
        final = final or final_of(case.answer)
        if not values or not final or _GIVEN.search(text):
            continue
        hits = [match for match in values if _tells(match["value"], final)]
        shots = len(values) > 1 or len(values) < len(found) or bool(_SHOT.search(text[: values[0].start()]))
        if told is None or hits:
            told = _Marked(final, bool(hits), shots, index)
    return told


def _beyond_chance(hits: int, rows: int, finals: "Counter[str]") -> bool:
    """Whether markers agree with answers more often than two answers of the file do (Cohen's kappa over a threshold)."""
    if not hits:
        return False
    total = sum(finals.values())
    chance = sum(count * (count - 1) for count in finals.values()) / (total * (total - 1)) if total > 1 else 0.0
    if chance >= 1:
        return hits == rows
    return (hits / rows - chance) / (1 - chance) >= (0.1 if chance < 0.1 else 0.6)


def _marked(survey: "Survey") -> Iterator[Problem]:
    sheet, limit = survey.sheet, partial(survey.context.limit, "D02")
    lines: list[int] = []
    for kind in ("plain", "shots"):
        hits, finals = sheet.column(f"D02.{kind}"), sheet.counter(f"D02.{kind}")
        rows = sum(finals.values())
        # Among solved examples one may have the same answer.
        if _beyond_chance(len(hits), rows, finals) and (kind == "plain" or len(hits) >= 0.9 * rows):
            lines += hits
    if len(lines) <= limit("warn_at") * sheet.num_rows:
        return
    every = tuple(sorted(lines))
    case = survey.rows_at(every[:1])[every[0]]
    told = marked_in(case)
    assert told is not None
    share = len(every) / sheet.num_rows
    message = f"the prompt tells the final answer behind a marker in {share:.0%} of the rows: {shown(told.final)}"
    severity = Severity.ERROR if share >= limit("error_at") else None
    fix = DROP % (survey.plan.spec.id, "D02")
    yield Problem(message=message, path=case.path(told.at), lines=every, count=len(every), severity=severity, fix=fix)


@entered(
    Check(
        "D02",
        "leak.marker",
        Severity.WARNING,
        Need.BATCH,
        "strip the key from the prompts: cut each at its 'answer:', 'key:' or '####'",
        why=WHY,
        level=Level.DEEP,
        limits={"warn_at": 0.01, "error_at": 0.2},
        conclude=_marked,
    )
)
def marked_answer(batch: Batch, sheet: Sheet) -> None:
    """The final answer stands behind "answer:", "key:", "####" or the like in the prompt."""
    for case in batch.cases:
        told = marked_in(case)
        if told:
            kind = "shots" if told.shots else "plain"
            sheet.counter(f"D02.{kind}")[told.final] += 1
            if told.hit:
                sheet.column(f"D02.{kind}").append(case.line)
