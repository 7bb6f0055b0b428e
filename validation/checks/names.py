"""D09: names and addresses of people, by a recogniser that is installed apart: presidio-analyzer with a spaCy model.

It is too heavy to be a part of lorad (400 MB, 2 s to load, 5 ms a text), so it looks at a small sample, and only where
somebody has installed it. First names alone do not count: a sum's invented Natalia is nobody.
"""

import importlib.util
import pkgutil
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

from validation.case import Case
from validation.checks.registry import Check, Need, entered
from validation.context import Context
from validation.findings import Level, Problem, Severity, shown
from validation.patterns import Late

if TYPE_CHECKING:
    from validation.survey import Survey

SAMPLE_ROWS = 1_000
_MOST_CHARACTERS = 2_000  # of a text: names stand early, and the time is short
_MODEL = Late(r"en_core_(?:web|news)_(?:sm|md|lg)\w*")
_LEAST_SCORE = 0.85
_STREET = Late(r"\b\d{1,5}[a-z]? [\w' -]{2,40}?(?:street|road|avenue|lane|drive|boulevard|court|square|st|rd|ave|ln|dr|blvd)\b", re.IGNORECASE)

# People whom everybody knows: to name them is no breach.
_PUBLIC = """
    abraham lincoln, ada lovelace, adam smith, adolf hitler, agatha christie, alan turing, albert camus, albert einstein, alexander hamilton,
    alexander the great, alfred hitchcock, andy warhol, angela merkel, anne frank, aretha franklin, barack obama, benjamin franklin, bill clinton,
    bill gates, bob dylan, bob marley, charles darwin, charles dickens, charlie chaplin, christopher columbus, clint eastwood, cristiano ronaldo,
    dalai lama, dante alighieri, david bowie, donald trump, edgar allan poe, elon musk, elvis presley, emily dickinson, ernest hemingway, franz kafka,
    frida kahlo, friedrich nietzsche, galileo galilei, george orwell, george washington, harry potter, immanuel kant, isaac newton, jane austen,
    jeff bezos, jesus christ, joe biden, johann sebastian bach, john f. kennedy, john lennon, julius caesar, karl marx, king arthur, lady gaga,
    leo tolstoy, leonardo da vinci, leonardo dicaprio, lionel messi, louis armstrong, ludwig van beethoven, mahatma gandhi, marie curie,
    marilyn monroe, mark twain, mark zuckerberg, martin luther, martin luther king, michael jackson, michael jordan, muhammad ali, napoleon bonaparte,
    neil armstrong, nelson mandela, nikola tesla, oscar wilde, pablo picasso, paul mccartney, queen elizabeth, rene descartes, roger federer,
    ronald reagan, rosa parks, serena williams, sherlock holmes, sigmund freud, stephen hawking, stephen king, steve jobs, steven spielberg,
    taylor swift, thomas edison, thomas jefferson, tom cruise, tom hanks, vincent van gogh, virginia woolf, vladimir putin, walt disney,
    warren buffett, william shakespeare, winston churchill, wolfgang amadeus mozart, xi jinping
"""
_KNOWN_PEOPLE = frozenset(name.strip() for name in _PUBLIC.split(","))

BROKEN = (ImportError, OSError, ValueError, TypeError, AttributeError, KeyError, RuntimeError)
Recogniser = Callable[[str], Iterable[tuple[str, str]]]
"""From a text to (PERSON or LOCATION, words) of what it is sure of."""


class Named(NamedTuple):
    """What makes a text a person's: a full name, or a street with its number."""

    kind: str
    words: str


def _not_installed(context: Context) -> str:
    return _absent()


def _absent() -> str:
    """Why no recogniser can run here; empty: one can."""
    if importlib.util.find_spec("presidio_analyzer") is None:
        return "no recogniser of names is installed: `pip install presidio-analyzer` and a spaCy model (en_core_web_sm) turn it on"
    return "" if _model() else "presidio-analyzer is installed, but no English spaCy model is: install en_core_web_sm"


def _model() -> str:
    return next((module.name for module in pkgutil.iter_modules() if _MODEL.fullmatch(module.name)), "")


_UNWANTED = ("torch", "transformers")


@contextmanager
def _without_torch() -> Iterator[None]:
    """spaCy and presidio import torch and transformers where they find them, for nothing that is needed here: a gigabyte."""
    absent = [name for name in _UNWANTED if name not in sys.modules]
    for name in absent:
        sys.modules[name] = None  # type: ignore[assignment]  # the import system's own way to say: not installed
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]


def installed_recogniser() -> Recogniser:
    """The recogniser that is installed. Takes seconds. Raises what a broken installation raises: see BROKEN."""
    with _without_torch():
        presidio, engines = import_module("presidio_analyzer"), import_module("presidio_analyzer.nlp_engine")
        model = {"lang_code": "en", "model_name": _model()}
        engine = engines.NlpEngineProvider(nlp_configuration={"nlp_engine_name": "spacy", "models": [model]}).create_engine()
        analyzer = presidio.AnalyzerEngine(nlp_engine=engine, supported_languages=["en"])

    def recognise(text: str) -> Iterator[tuple[str, str]]:
        for found in analyzer.analyze(text=text, language="en", entities=["PERSON", "LOCATION"], score_threshold=_LEAST_SCORE):
            yield found.entity_type, text[found.start : found.end]

    return recognise


def named_in(text: str, recognise: Recogniser) -> Iterator[Named]:
    """The full names and street addresses in a text, without people whom everybody knows."""
    text = text[:_MOST_CHARACTERS]
    streets = _STREET.findall(text)
    for kind, words in recognise(text):
        parts = words.split()
        if kind == "PERSON" and 2 <= len(parts) <= 4 and all(part[0].isupper() for part in parts) and words.lower() not in _KNOWN_PEOPLE:
            yield Named("name", words)
        elif kind == "LOCATION" and any(words in street or street in words for street in streets):
            yield Named("address", words)


def _names(survey: "Survey") -> Iterator[Problem]:
    try:
        recognise = survey.context.once("names", installed_recogniser)
    except BROKEN as error:
        survey.notes["D09"] = f"the recogniser of names does not load: {type(error).__name__}: {error}"
        return
    pairs = survey.pairs[:: max(1, -(-len(survey.pairs) // SAMPLE_ROWS))]
    found = {pair.line: named for pair in pairs if (named := list(named_in(f"{pair.question}\n{pair.answer}", recognise)))}
    survey.stats["names"] = {"rows_looked_at": len(pairs), "rows_with_names": len(found)}
    if not found or len(found) <= survey.context.limit("D09", "share") * len(pairs):
        return
    first = next(iter(found.values()))[0]
    message = f"full names or addresses of people in {len(found):,} of {len(pairs):,} sampled rows, first {shown(first.words)}"
    yield Problem(message=message, lines=tuple(found), count=len(found))


@entered(
    Check(
        "D09",
        "pii.ner",
        Severity.WARNING,
        Need.SAMPLE,
        "look whether these are real people who never agreed; replace their names by invented ones",
        why="a model repeats what it was trained on, and a name ties it to a person",
        level=Level.DEEP,
        limits={"share": 0.05},
        ready=_not_installed,
        conclude=_names,
    )
)
def people(case: Case, context: Context) -> None:
    """Names of people on a small sample. Works on question and answer when the survey concludes; not row by row."""
