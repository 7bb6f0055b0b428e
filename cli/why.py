"""`lorad why`: from a served answer back to what made the model say it."""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from cli.options import config_option, format_option, show_json
from core.errors import UsageError
from core.fingerprints import BASE_MARK, is_unmarked, mark_in

if TYPE_CHECKING:
    from cli.nearest import Found
    from core.config import Config
    from store.lineage import FileSeen, Lineage
    from store.paths import Home
    from store.whereabouts import Known

STDIN = "-"
OF_THE_MACHINE = frozenset({"home", "models_dir", "serving", "deploy", "alerts", "inbox", "retention", "schedule", "slots"})  # not on the screen
MOST_SHOWN = 12  # files and config values on the screen; JSON has all
SHOWN_CHARACTERS = 110
MOST_INPUT = 4 << 20  # characters read from standard input


@dataclass(frozen=True, slots=True, kw_only=True)
class _Question:
    """What was asked for. `reference` names a release or an answer, the texts what rows are to be near to."""

    reference: str
    answer: str = ""
    question: str = ""


@click.command()
@click.argument("reference", metavar="MODEL|RELEASE|RESPONSE_ID")
@click.option("--text", default="", help="The answer, to find the training rows nearest to it; - reads it from standard input.")
@click.option("--question", default="", help="The question, to find the training rows nearest to it; with --text, to both.")
@click.option("--nearest", "most", default=5, show_default=True, type=click.IntRange(1, 100), help="How many rows.")
@config_option
@format_option()
def why(reference: str, text: str, question: str, most: int, config: str | None, output: str) -> None:
    """Tell what made the model say that: release, verdict, run, config, files, nearest training rows.

    MODEL is an adapter or a version (support/tone, support/tone@v3); RELEASE a release id or its beginning; RESPONSE_ID the
    id or system_fingerprint of an answer. With - a whole answer is read from standard input, as the server gave it.
    """
    from store.config import ConfigLoader
    from store.config_file import config_path, home_of

    asked = _asked(reference, text, question)
    path = config_path(config)
    settings, home = ConfigLoader(path).load().config, home_of(path)
    known = None if asked.reference == settings.model_name else known_by(home, asked.reference)
    if known is None:
        _show_base(asked.reference, settings, output)
        return
    from store.lineage import lineage_of

    lineage = lineage_of(home, known)
    found, trouble = _nearest(lineage, settings, asked, most)
    if output == "json":
        show_json(as_plain(asked.reference, lineage, found, trouble))
        return
    click.echo("\n".join(_lines(asked.reference, lineage, found, trouble)))


def _asked(reference: str, text: str, question: str) -> _Question:
    """The reference and the texts, with standard input read where somebody asked for it. Raises UsageError."""
    if STDIN not in (reference, text):
        return _Question(reference=reference, answer=text, question=question)
    if reference == text:
        raise UsageError("standard input cannot be both the answer and its text", hint="leave --text out: the answer has it", code="STDIN_TWICE")
    said = sys.stdin.read(MOST_INPUT)
    if text == STDIN:
        return _Question(reference=reference, answer=said.strip(), question=question)
    hint = "pipe in what /v1/chat/completions answered, without streaming"
    try:
        answer = json.loads(said)
        content = answer["choices"][0]["message"]["content"]
        reference = next(str(answer[key]) for key in ("id", "system_fingerprint") if mark_in(str(answer.get(key))))
    except StopIteration:
        raise UsageError("the answer carries no mark of lorad's", hint=hint, code="ANSWER_FOREIGN") from None
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        raise UsageError("standard input is no chat completion", hint=hint, code="ANSWER_SYNTAX") from None
    return _Question(reference=reference, answer=text or str(content or ""), question=question)


def known_by(home: "Home", reference: str) -> "Known | None":
    """The release that a reference leads to; None is the base. Raises UsageError where it leads nowhere."""
    from store.vault import releases_of
    from store.whereabouts import find_marked

    mark = mark_in(reference)
    if mark == BASE_MARK:
        return None
    if is_unmarked(reference):
        what = f"{reference!r} carries no mark: it is of another server, or of a lorad before answers named their release"
        raise UsageError(what, hint="its system_fingerprint (lorad-…) or the header x-lorad-release names the release", code="ANSWER_FOREIGN")
    word = mark or reference
    if _is_id(word):
        known = find_marked(home, word)
        if known is None and mark is None and releases_of(home, f"{word}/main"):
            return _named(home, word)  # a persona whose name could be an id
        if known is None:
            what = f"no release {word!r} in {str(home.root)!r}, and no target of it served one"
            raise UsageError(what, hint="the answer came from another home: ask there, or name its config with --config", code="RELEASE_UNKNOWN")
        return known
    return _named(home, word)


def _named(home: "Home", word: str) -> "Known | None":
    """The release of an adapter's name or version; None for an adapter that serves the base. Raises UsageError."""
    from core.names import parse_adapter
    from store.vault import live_of, resolve
    from store.whereabouts import Known, find_buried

    adapter, _, version = word.partition("@")
    name = parse_adapter(adapter, shared=True)
    if not version and live_of(home).get(name, "") is None:
        return None
    try:
        return Known.of(resolve(home, word))
    except UsageError as error:
        buried = find_buried(home, name, version) if error.code == "RELEASE_UNKNOWN" else None
        if buried is None:
            raise
        return buried


def _is_id(word: str) -> bool:
    return len(word) >= 6 and all(letter in "0123456789abcdef" for letter in word)


def _nearest(lineage: "Lineage", settings: "Config", asked: _Question, most: int) -> "tuple[Found | None, str]":
    """The nearest rows, or None and why there are none."""
    from cli.nearest import Asked, nearest
    from core.errors import LoradError
    from core.names import SENTENCE_MODEL
    from store.bases import models_dir
    from store.embedding import Embedder
    from store.seals import is_sealed

    if not (asked.answer or asked.question):
        return None, "nothing to compare with: give the answer with --text, or its question with --question"
    sources = lineage.sources()
    if not sources:
        return None, "no file that it learnt from is here any more"
    folder = models_dir(settings) / SENTENCE_MODEL
    wanted = Asked(answer=asked.answer, question=asked.question)
    try:
        return nearest(sources, wanted, Embedder(folder) if is_sealed(folder) else None, most), ""
    except LoradError as error:
        return None, f"{error.what}; {error.hint}"


# ---------------------------------------------------------------- out


def _show_base(reference: str, settings: "Config", output: str) -> None:
    base = settings.model_path or settings.model_name
    sentence = f"the base model answered: no release of lorad's had a part in it (the base in force is {base})"
    if output == "json":
        show_json({"reference": reference, "release": None, "base": base, "reason": sentence})
    else:
        click.echo(f"{reference}: {sentence}")


def as_plain(reference: str, lineage: "Lineage", found: "Found | None", trouble: str) -> dict[str, Any]:
    """Everything as JSON values."""
    from store.codec import to_plain

    near: dict[str, Any] | None = to_plain(found) if found is not None else None
    names = {one.drop: one.file for one in lineage.files}
    for row in (near or {}).get("rows", ()):
        row["file"] = names.get(row["drop"], "")
    gaps = [*to_plain(lineage)["gaps"], *([{"part": "rows", "why": trouble}] if trouble else [])]
    return {"reference": reference, **to_plain(lineage), "nearest": near, "gaps": gaps}


def _lines(reference: str, lineage: "Lineage", found: "Found | None", trouble: str) -> Iterator[str]:
    label = f" ({lineage.label})" if lineage.label else ""
    told = f", made {lineage.created_at[:19]}" if lineage.created_at else ""
    yield f"{reference}: {lineage.adapter}@v{lineage.version}{label}, release {lineage.release[:12]}{told}"
    for name, texts in (("live", _live(lineage)), ("verdict", _verdict(lineage)), ("run", _run(lineage)), ("config", _config(lineage))):
        yield from _block(name, texts)
    yield from _block("files", _files(lineage))
    yield from _block("nearest", _rows(lineage, found))
    yield from _block("missing", [*(f"{gap.part}: {gap.why}" for gap in lineage.gaps), *([f"rows: {trouble}"] if trouble else [])])


def _block(name: str, texts: Iterator[str] | list[str]) -> Iterator[str]:
    for number, text in enumerate(texts):
        yield f"  {name if number == 0 else '':<9}{text}"


def _live(lineage: "Lineage") -> Iterator[str]:
    for span in lineage.live[-3:]:
        until = f" to {span.until[:19]}, then {span.followed_by[:12] or 'the base'}" if span.until else ", and is"
        yield f"on {span.target} from {span.since[:19]}{until}"


def _verdict(lineage: "Lineage") -> Iterator[str]:
    verdict = lineage.verdict
    if verdict is None:
        return
    yield _cut(verdict.sentence or verdict.word, 400)
    if verdict.approved_by:
        yield f"approved by {verdict.approved_by}: {_cut(verdict.reason)}"


def _run(lineage: "Lineage") -> Iterator[str]:
    run = lineage.run
    if run is None:
        return
    from cli.plantext import duration

    took = f" in {duration(run.seconds)}" if run.seconds else ""
    where = f" on {run.device}" if run.device else ""
    yield f"{run.job}, {run.run}, {run.checkpoint.split('/')[-1] or 'newest checkpoint'}: {run.steps} steps on {run.rows} rows{took}{where}"
    if run.start:
        yield _cut(run.start)


def _config(lineage: "Lineage") -> Iterator[str]:
    values = sorted((item for item in lineage.config.items() if item[0].split(".")[0] not in OF_THE_MACHINE), key=_by_origin)
    told = [f"{key} = {json.dumps(one['value'], ensure_ascii=False)} ({_cut(one['origin'], 60)})" for key, one in values]
    yield from map(_cut, told[:MOST_SHOWN])
    if len(told) > MOST_SHOWN:
        yield f"… and {len(told) - MOST_SHOWN} more: --format json, or lorad jobs show {lineage.run.job if lineage.run else ''}".rstrip()


def _by_origin(item: tuple[str, Any]) -> int:
    """First what was set for this drop alone, then the config, then what the data settled."""
    origin = item[1]["origin"]
    return 2 if origin.startswith("settled") else 1 if origin.endswith((".json", ".yaml", ".yml")) else 0


def _files(lineage: "Lineage") -> Iterator[str]:
    own_first: list[FileSeen] = sorted((one for one in lineage.files if not one.gone), key=lambda one: not one.is_own)
    for one in own_first[:MOST_SHOWN]:
        by = f" by {one.by}" if one.by else ""
        aside = f", set aside since: {one.set_aside}" if one.set_aside else ""
        own = "" if one.is_own else ", an earlier drop"
        yield _cut(f"{one.file}: {one.rows} rows, SHA-256 {one.sha256[:12]}, {one.source}{by} on {one.claimed_at[:19]}{own}{aside}", 200)
    if len(own_first) > MOST_SHOWN:
        yield f"… and {len(own_first) - MOST_SHOWN} more: --format json"


def _rows(lineage: "Lineage", found: "Found | None") -> Iterator[str]:
    if found is None:
        return
    names = {one.drop: one.file for one in lineage.files}
    least = "" if found.compared == found.turns else f" (the {found.compared:,} of {found.turns:,} answers that share most words)"
    yield f"by {found.how}{least}{f': {found.note}' if found.note else ''}"
    for row in found.rows:
        source = f"  {row.metadata['source']}" if row.metadata.get("source") else ""
        yield _cut(f"{row.nearness:.2f}  {names.get(row.drop, row.drop)} line {row.line}{source}")
        yield _cut(f"      {row.question}") if row.question else "      (no question)"
        yield _cut(f"      → {row.answer}")


def _cut(text: str, most: int = SHOWN_CHARACTERS) -> str:
    """One line of text that cannot act on the terminal."""
    from validation.findings import printable

    start = len(text) - len(text.lstrip(" "))
    safe = printable(" ".join(text[: most * 4].split()))
    shown = safe if len(safe) <= most else safe[: most - 1] + "…"
    return " " * start + shown
