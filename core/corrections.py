"""Whether what a user says next corrects the answer before it, by rules. Pure.

A rule only proposes: a person decides. It looks at how a turn begins ("no, actually …", "that's wrong", "nein, …"), because
what people object to they object to first; a "no" that answers the model's own question, or thanks it, is none. Where the
turn says what is right, that is proposed as the right answer: by putting it in the place of what it replaces ("Canberra,
not Sydney"), else in the user's own words. English and German.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

LOOKED_AT = 400  # characters of a turn: what comes later is a new task, or a text that was pasted
FLOOR = 0.5  # confidence below which nothing is proposed
DOUBT = 0.25  # taken off where the turn ends as a question
SURE = 0.9  # confidence of a turn that objects and names the wrong word of the answer
SWAP = 0.7  # confidence of a turn that names a word of the answer and another for it, and objects to nothing
MOST_WORDS = 40  # of a right answer in the user's own words: longer turns explain


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """What a turn says of the answer before it. `right` is the whole right answer as far as the turn says it; else empty."""

    rule: str
    confidence: float
    right: str = ""


def find_correction(answer: str, said: str) -> Correction | None:
    """What the turn `said` corrects of the `answer` before it; None where no rule finds that it does."""
    text = _plain(said)
    if not text or not answer.strip() or _FRIENDLY.match(text):
        return None
    swapped = _swapped(answer, text)
    rule = next((rule for rule in _RULES if rule.pattern.match(text)), None)
    if rule is not None and not rule.counts_after_question and not swapped and asks(answer):
        rule = None
    if rule is None and not swapped:
        return None
    found = Correction(rule=rule.name, confidence=rule.confidence) if rule else Correction(rule="swap", confidence=SWAP)
    if rule is not None and swapped:
        found = replace(found, confidence=max(rule.confidence, SURE))
    if text.endswith("?"):
        found = replace(found, confidence=round(found.confidence - DOUBT, 2))
    elif rule is None or rule.names_what_is_right:
        found = replace(found, right=_stated(text))
    found = replace(found, right=swapped or found.right)
    return found if found.confidence >= FLOOR else None


def is_open(answer: str, said: str) -> bool:
    """Whether a turn in which no rule found a correction may still be one, so that it is worth asking a classifier."""
    return 0 < len(said.strip()) <= LOOKED_AT and bool(answer.strip()) and not asks(answer) and not _FRIENDLY.match(_plain(said))


def asks(answer: str) -> bool:
    """Whether an answer ends by asking the user something: a "no" after it is a reply, not a correction."""
    return answer.rstrip(" \n\t\"')*_”»").endswith(("?", "？"))


def _plain(said: str) -> str:
    return said.strip()[:LOOKED_AT].replace("\u2019", "'").replace("\u2018", "'")


# ---------------------------------------------------------------- how a correction begins


@dataclass(frozen=True, slots=True)
class _Rule:
    name: str
    confidence: float  # that a turn which begins so is a correction: a guess by hand, to sort what a person reads first
    pattern: re.Pattern[str]
    counts_after_question: bool = True  # also where the answer had asked something
    names_what_is_right: bool = True  # the rest of the turn says what is right, and not only what went wrong


def _rule(name: str, confidence: float, pattern: str, *, after_question: bool = True, names: bool = True) -> _Rule:
    return _Rule(name, confidence, re.compile(f"{_HEDGE}{pattern}", re.IGNORECASE), after_question, names)


_GAP = r"[\s,.!;:…-]+"
_HEDGES = "hm+|um+|uh+|oh|ah|well|wait|sorry|but|hey|ok(?:ay)?|i'm afraid|i think|i believe|äh+m?|also|moment|aber|ich glaube|ich denke"
_HEDGE = rf"(?:(?:{_HEDGES}){_GAP}){{0,3}}"
_NO = "(?:no+|nope|nah|nein|nee|nö)"
_MAYBE_NO = rf"(?:{_NO}{_GAP})?"
_IT = "(?:that|this|it|your (?:answer|reply|response)|the answer)(?:'s| is| was)"
_WRONG = "(?:wrong|incorrect|false|inaccurate|mistaken|a mistake|not (?:quite |really |entirely )?(?:right|correct|true|accurate|it))"
_DENIES = (
    rf"(?:{_IT} (?:just |simply |completely |still |totally |clearly |actually )?{_WRONG}"
    r"|(?:that|this|it) (?:isn't|isnt|wasn't|is not) (?:quite |really |entirely )?(?:right|correct|true|accurate|it)"
    r"|(?:das|dies|es|deine antwort|die antwort) (?:stimmt (?:so |leider )?nicht|ist (?:leider )?(?:falsch|ein fehler|nicht (?:ganz )?(?:richtig|wahr)))"
    r"|you(?:'re| are| were) (?:wrong|mistaken|incorrect)|you (?:got|have) (?:it|that|this) wrong|du irrst dich)\b"
)
_FLATLY = r"(?:wrong|incorrect|false|not (?:quite|true|right|correct)|falsch|stimmt nicht|nicht (?:ganz )?richtig)(?: answer)?(?=\s*[.,!:;…-]|\s*$)"
_SHOULD_BE = (
    r"(?:it|that|this|the answer) (?:should (?:be|have been|read|say)|ought to be)\b(?! noted)"
    r"|(?:es|das) (?:müsste|sollte|muss) (?=.{1,80}\b(?:heißen|sein|lauten)\b)"
)
_RIGHT_IS = (
    r"(?:the|die) (?:correct|right|actual|richtige) \w{1,20} (?:is|was|would be|ist|wäre|lautet)\b"
    r"|correction\s*:|richtig (?:ist|wäre)\b"
)
_FAILED = (
    r"(?:you (?:forgot|missed|misspelled|misspelt|misread|misunderstood|mixed up|confused|left out|ignored|didn't (?:answer|include|follow|use|mention))\b"
    r"|du hast .{1,60}(?:vergessen|verwechselt|übersehen|missverstanden))"
)
_RULES = (
    _rule(
        "not_what_i_asked", 0.85, _MAYBE_NO + r"(?:that(?:'s| is| was)|this is|das ist|das war) (?:not|nicht) (?:at all )?(?:what|was) (?:i|ich)\b", names=False
    ),
    _rule("denial", 0.9, _MAYBE_NO + _DENIES),
    _rule("wrong", 0.85, _MAYBE_NO + _FLATLY),
    _rule("should_be", 0.85, rf"{_MAYBE_NO}(?:{_SHOULD_BE})"),
    _rule("right_is", 0.85, rf"{_MAYBE_NO}(?:{_RIGHT_IS})"),
    _rule("failed", 0.75, _MAYBE_NO + _FAILED, names=False),
    _rule(
        "as_i_said",
        0.6,
        _MAYBE_NO + r"(?:i (?:said|mean|meant|asked (?:for|you|about)|wanted)|ich (?:meinte|sagte|wollte))\b",
        after_question=False,
        names=False,
    ),
    _rule("no_actually", 0.85, rf"{_NO}{_GAP}(?:actually|in fact|eigentlich|sondern)\b", after_question=False),
    _rule("no_but", 0.75, rf"{_NO}{_GAP}(?=\S)", after_question=False),
    _rule("actually", 0.65, r"(?:actually|in fact|eigentlich|tatsächlich)[\s,]+(?=\S)", after_question=False),
)
_FRIENDLY = re.compile(
    rf"{_HEDGE}(?:"
    r"(?:no|nein)[\s,]+(?:problem|worries|thanks?|thank you|need|rush|hurry|doubt|wonder|idea|clue|offen[cs]e|(?:further |more )?questions?|more|danke"
    r"|kein problem|that(?:'s| is| was) (?:all|it|fine|ok(?:ay)?|great|perfect|good)|das ist (?:alles|gut|okay)"
    r"|das war(?:'s| alles)|it's fine|all good|alles gut)\b"
    r"|(?:you're|you are|that's|du hast|das ist) (?:absolutely |quite |completely |genau |ganz )?(?:right|correct|recht|richtig)\b"
    r"|(?:correct|right|exactly|true|richtig|genau|stimmt)[.,!]"
    r"|(?:no|nope|nein|nee|nah)[\s.!]*$)",
    re.IGNORECASE,
)

# ---------------------------------------------------------------- what it says is right

_WORDS = r"[^\n,;:.!?]{1,80}?"
_END = r"(?=\s*(?:[.,;!?\n]|$))"
_SWAPS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"\bnicht (?P<wrong>{_WORDS}), sondern (?P<right>{_WORDS}){_END}",
        rf"\bnot (?P<wrong>{_WORDS}),? but (?:rather )?(?P<right>{_WORDS}){_END}",
        rf"(?P<right>{_WORDS}), (?:and )?(?:not|nicht) (?P<wrong>{_WORDS}){_END}",
        rf"(?P<right>{_WORDS}) (?:instead of|rather than|statt|anstatt) (?P<wrong>{_WORDS}){_END}",
    )
)
_OBJECTIONS = tuple(  # what is peeled off the front of a turn, again and again
    re.compile(f"{pattern}{_GAP}", re.IGNORECASE)
    for pattern in (
        f"(?:{_HEDGES})",
        _NO,
        r"(?:actually|in fact|eigentlich|tatsächlich)",
        _DENIES,
        r"(?:wrong|incorrect|false|falsch|stimmt nicht|nicht richtig|not (?:quite|true|right|correct))(?: answer)?",
        _RIGHT_IS,
    )
)
_LEAD = re.compile(
    r"(?:it|that|this|es|das|the answer|die antwort)(?:'s| is| was| should (?:be|have been|read|say)| ist| wäre| lautet)\s+(?:actually )?", re.IGNORECASE
)
_ARTICLE = re.compile(r"^(?:the|a|an|der|die|das|ein|eine)\s+", re.IGNORECASE)
_NO_ANSWER = re.compile(  # a wish or a remark
    r"(?:please|bitte|try|do|redo|check|look|read|think|again|can|could|would|will|why|what|how|who|when|where|are|noch ?mal|versuch|"
    r"(?:i|ich) (?:don't|do not|didn't|asked|wanted|said|mean|meant|need|want|wollte|meinte|habe))\b",
    re.IGNORECASE,
)


def _swapped(answer: str, text: str) -> str:
    """The answer with what is wrong in it replaced by what is right; empty where the turn names no such pair of the answer."""
    for right, wrong in _pairs(text):
        found = re.compile(rf"(?<!\w){re.escape(wrong)}(?!\w)", re.IGNORECASE)
        if right.casefold() != wrong.casefold() and found.search(answer):
            return found.sub(right.replace("\\", r"\\"), answer)
    return ""


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    """(right, wrong) of each "this, not that" in a turn."""
    for pattern in _SWAPS:
        for pair in pattern.finditer(text):
            right = _LEAD.sub("", _peeled(pair["right"].strip()), count=1).strip(" '\"")
            wrong = _ARTICLE.sub("", pair["wrong"].strip(" '\"")).strip(" '\"")
            if right and wrong and not re.fullmatch(_NO, right, re.IGNORECASE):
                yield _ARTICLE.sub("", right), wrong


def _stated(text: str) -> str:
    """What the turn says is right, in its own words; empty where it only objects."""
    rest = _peeled(text).split("\n\n")[0].strip()
    is_objection = any(pattern.fullmatch(f"{rest}.") for pattern in _OBJECTIONS)
    if not rest or is_objection or "?" in rest or _NO_ANSWER.match(rest) or len(rest.split()) > MOST_WORDS:
        return ""
    return rest[0].upper() + rest[1:]


def _peeled(text: str) -> str:
    """The turn without the objections at its front."""
    while found := next((found for pattern in _OBJECTIONS if (found := pattern.match(text))), None):
        text = text[found.end() :]
    return text
