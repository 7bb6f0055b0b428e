"""Rows as pictures: which tokens are learnt, which are context, which lie beyond max_length.

A picture is made of exactly what the trainer gets (`Renderer.encode`). It is drawn for a terminal, with colours or with
brackets, and as a page that needs nothing from anywhere.
"""

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from html import escape
from itertools import groupby
from typing import Any

from rendering.profiles import Change
from rendering.tokens import Encoding, Renderer, supervised_text


class Fate(StrEnum):
    """What becomes of a token in the training."""

    SUPERVISED = "supervised"
    MASKED = "masked"
    TRUNCATED = "truncated"


@dataclass(frozen=True, slots=True)
class Token:
    """One token and the characters `start:end` of the rendered text that it stands for; tokens of one character share it."""

    id: int
    start: int
    end: int
    fate: Fate
    special: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One conversation as tokens. `line` is its line in the file; `notes` are sentences about the whole row."""

    line: int
    part: str = ""  # chosen or rejected, of a pair
    text: str
    tokens: tuple[Token, ...]
    num_supervised: int  # as the template says it, before anything is cut
    notes: tuple[str, ...] = ()
    learnt: tuple[str, ...] = ()  # the text of each run of supervised tokens
    profile: str = ""
    changes: tuple[Change, ...] = ()  # what the profile did to the row

    def count(self, fate: Fate) -> int:
        """How many tokens have this fate."""
        return sum(token.fate is fate for token in self.tokens)

    def pieces(self) -> Iterator[tuple[str, Token | None]]:
        """The rendered text in order, each piece with its token; None for text that the tokenizer passes over.

        Blanks before a token are its own: some tokenizers leave them out of its place in the text.
        """
        done = 0
        for token in self.tokens:
            if token.start > done and not self.text[done : token.start].isspace():
                yield self.text[done : token.start], None
                done = token.start
            yield self.text[done : token.end], token
            done = max(done, token.end)
        if done < len(self.text):
            yield self.text[done:], None

    def to_plain(self) -> dict[str, Any]:
        """The picture as JSON values; `supervised` and `truncated` count as the trainer would see the row cut at max_length."""
        tokens = [
            {"id": one.id, "text": self.text[one.start : one.end], "start": one.start, "end": one.end, "fate": one.fate.value, "special": one.special}
            for one in self.tokens
        ]
        counts = {"tokens": len(self.tokens)} | {fate.value: self.count(fate) for fate in Fate} | {"supervised_uncut": self.num_supervised}
        return {
            "line": self.line,
            "part": self.part,
            "counts": counts,
            "notes": list(self.notes),
            "learnt": list(self.learnt),
            "text": self.text,
            "tokens": tokens,
        } | ({"profile": self.profile, "changes": [asdict(change) for change in self.changes]} if self.changes else {})

    @property
    def told(self) -> tuple[str, ...]:
        """The notes, and what the profile did, as sentences; texts of the row in them are made visible."""
        return (*self.notes, *(f"profile {self.profile}: {_told(change)}" for change in self.changes))


def _told(change: Change) -> str:
    before, after = _line(change.before), _line(change.after)
    turn = f"the {change.role} turn {change.turn + 1}"
    if not change.before:
        return f"adds {turn}: {after}"
    if not change.after:
        return f"takes away {turn}: {before}"
    lead, found, tail = after.partition(before)
    if not found:
        return f"changes {turn} from: {before} - to: {after}"
    added = [f"{where}: {text}" for where, text in (("before it", lead), ("after it", tail)) if text]
    return f"adds to {turn} {'; '.join(added)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unseen:
    """A row that cannot be drawn, and why: the id of its finding, where, what to do."""

    line: int
    part: str = ""
    id: str
    path: str = ""
    message: str
    hint: str

    def to_plain(self) -> dict[str, Any]:
        """As JSON values."""
        finding = {"id": self.id, "path": self.path, "message": self.message, "hint": self.hint}
        return {"line": self.line, "part": self.part, "finding": finding}


@dataclass(frozen=True, slots=True, kw_only=True)
class Album:
    """Pictures of some rows, and what they were made with."""

    source: str
    schema: str
    model: str
    max_length: int  # 0: not known
    rows: Sequence[Picture | Unseen]
    notes: tuple[str, ...] = ()

    @property
    def num_drawn(self) -> int:
        """How many pictures there are, of all rows."""
        return sum(isinstance(row, Picture) for row in self.rows)

    def to_plain(self) -> dict[str, Any]:
        """The album as JSON values, exact and complete."""
        made = {"file": self.source, "schema": self.schema, "model": self.model, "max_length": self.max_length or None, "notes": list(self.notes)}
        return made | {"rows": [row.to_plain() for row in self.rows]}


def draw(renderer: Renderer, encoding: Encoding, max_length: int, *, line: int, part: str = "", weight: float = 1.0) -> Picture:
    """The picture of an encoding. `max_length` 0: nothing is cut. `weight` is the row's."""
    special = {id for id, token in renderer.tokenizer.get_added_tokens_decoder().items() if token.special}
    tokens = tuple(
        Token(id, start, end, _fate(index, encoding.supervised[index] and weight > 0, max_length), id in special)
        for index, (id, (start, end)) in enumerate(zip(encoding.ids, encoding.offsets, strict=True))
    )
    learnt = sum(encoding.supervised[1:]) if weight else 0
    notes = []
    if not weight:
        notes.append("the row has weight 0: nothing of it is learnt")
    elif not learnt:
        notes.append("no token of the row is learnt")
    notes += [f"the assistant turn {span.turn + 1} counts {span.weight:g} in the loss" for span in encoding.spans if span.weight not in (0, 1)]
    if max_length and len(tokens) > max_length:
        notes.append(f"the row has {len(tokens) - max_length:,} tokens more than max_length {max_length:,}: the trainer leaves it out")
    learnt_texts = tuple(supervised_text(renderer, encoding)) if weight else ()
    return Picture(line=line, part=part, text=encoding.text, tokens=tokens, num_supervised=learnt, notes=tuple(notes), learnt=learnt_texts)


def _fate(index: int, supervised: bool, max_length: int) -> Fate:
    if max_length and index >= max_length:
        return Fate.TRUNCATED
    # The first token of all has no context to be predicted from.
    return Fate.SUPERVISED if supervised and index else Fate.MASKED


# --- for people

_WORDS = {Fate.SUPERVISED: "supervised", Fate.MASKED: "masked", Fate.TRUNCATED: "beyond max_length"}
_SHOWN_FORMATS = "\u200c\u200d"  # joiners, which scripts and emoji are made with


def visible(text: str) -> str:
    """The text so that all of it is seen and none of it acts: line ends marked, control and direction characters escaped."""
    if text.isprintable():
        return text
    return "".join(map(_visible_letter, text))


def _line(text: str) -> str:
    return visible(text).replace("\n", "")


def _visible_letter(letter: str) -> str:
    if letter == "\n":
        return "↵\n"
    if letter == "\t":
        return "⇥"
    if letter.isprintable() or letter in _SHOWN_FORMATS:
        return letter
    if unicodedata.category(letter) == "Zs":
        return "␣"
    return letter.encode("unicode_escape").decode("ascii")


def counted(row: Picture) -> str:
    """The counts of a row in one line."""
    counts = [(fate, row.count(fate)) for fate in Fate]
    told = [f"{len(row.tokens):,} tokens", *(f"{number:,} {_WORDS[fate]}" for fate, number in counts if number or fate is Fate.SUPERVISED)]
    if row.count(Fate.TRUNCATED) and row.num_supervised:
        told.append(f"{row.num_supervised - row.count(Fate.SUPERVISED):,} of {row.num_supervised:,} answer tokens are cut")
    return ", ".join(told)


def titled(row: Picture | Unseen) -> str:
    """What a row is called."""
    return f"row {row.line}, {row.part}" if row.part else f"row {row.line}"


_COLOURS = {Fate.SUPERVISED: "1;32", Fate.MASKED: "2", Fate.TRUNCATED: "9;31"}
_BRACKETS = {Fate.SUPERVISED: ("⟦", "⟧"), Fate.MASKED: ("", ""), Fate.TRUNCATED: ("⟪", "⟫")}


def to_text(album: Album, colours: bool) -> str:
    """For a terminal. Without colours, brackets stand around what is learnt and what is cut."""
    length = f"max_length {album.max_length:,}" if album.max_length else "max_length not known"
    parts = [_line(f"{album.source}: {album.schema}, {album.model}, {length}"), _legend(colours), *map(_line, album.notes)]
    for row in album.rows:
        parts.append("")
        if isinstance(row, Unseen):
            where = f" at {row.path}" if row.path else ""
            parts += [_line(f"{titled(row)}: cannot be drawn: {row.id} {row.message}{where}"), _line(f"  what to do: {row.hint}")]
        else:
            parts += [f"{titled(row)}: {counted(row)}", *(f"  {note}" for note in row.told), _drawn(row, colours)]
    return "\n".join(parts) + "\n"


def _legend(colours: bool) -> str:
    words = ((Fate.SUPERVISED, "supervised: learnt"), (Fate.MASKED, "masked: read, not learnt"), (Fate.TRUNCATED, "beyond max_length"))
    special = "\x1b[4mspecial token\x1b[0m" if colours else "‹special token›"
    return "  ".join([*(_painted(text, fate, False, colours) for fate, text in words), special])


def _painted(text: str, fate: Fate, special: bool, colours: bool) -> str:
    if not colours:
        before, after = _BRACKETS[fate]
        return f"{before}{text}{after}"
    code = _COLOURS[fate] + (";4" if special else "")
    # Painted line by line: a pager loses colours that reach over a line end.
    return "\n".join(f"\x1b[{code}m{line}\x1b[0m" if line else "" for line in text.split("\n"))


def _drawn(row: Picture, colours: bool) -> str:
    """Runs of one fate, special tokens told apart."""
    drawn = []
    pieces = [(visible(text), token.fate if token else Fate.MASKED, bool(token and token.special)) for text, token in row.pieces()]
    if colours:
        for (fate, special), run in groupby(pieces, key=lambda piece: piece[1:]):
            drawn.append(_painted("".join(text for text, _, _ in run), fate, special, colours))
        return "".join(drawn).removesuffix("\n")
    for fate, marked in groupby(pieces, key=lambda piece: piece[1]):
        text = "".join(f"‹{text}›" if special else text for text, _, special in marked)
        ended = text.endswith("\n")
        drawn.append(_painted(text.removesuffix("\n"), fate, False, colours) + "\n" * ended)
    return "".join(drawn).removesuffix("\n")


# --- the page

_STYLE = """
:root { color-scheme: light dark; --ink: #1c1e21; --paper: #fff; --faint: #6a6f76; --line: #d6dade;
  --learnt: #bfecc6; --learnt-ink: #0b3d17; --cut: #f9d3d0; --cut-ink: #7d1a12; --special: #2456b8; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --paper: #16181b; --faint: #969da6; --line: #353a40;
  --learnt: #1d4d2b; --learnt-ink: #d7f7de; --cut: #57211d; --cut-ink: #ffd9d5; --special: #8ab4ff; } }
body { margin: 2rem auto; padding: 0 1rem; max-width: 62rem; font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); }
h1 { font-size: 1.4rem; margin: 0 0 .3rem; } h2 { font-size: 1.05rem; margin: 2.2rem 0 .4rem; }
p { margin: .3rem 0; } .made, .note { color: var(--faint); overflow-wrap: anywhere; } .note { font-style: italic; }
table { border-collapse: collapse; margin: .8rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .15rem .9rem .15rem 0; text-align: right; } th { font-weight: 600; color: var(--faint); }
th:first-child, td:first-child { text-align: left; } tbody tr { border-top: 1px solid var(--line); } a { color: inherit; }
pre { font: 13px/1.75 ui-monospace, Menlo, Consolas, monospace; white-space: pre-wrap; overflow-wrap: anywhere; margin: 0;
  padding: .8rem 1rem; border: 1px solid var(--line); border-radius: 6px; }
.t { box-shadow: inset -1px 0 color-mix(in srgb, currentColor 25%, transparent); } .t:hover { outline: 2px solid var(--special); }
.m { color: var(--faint); } .s { background: var(--learnt); color: var(--learnt-ink); }
.c { background: var(--cut); color: var(--cut-ink); text-decoration: line-through; } .x { color: var(--special); font-weight: 600; }
.legend span { padding: .1rem .4rem; border-radius: 3px; margin-right: .5rem; }
.bad { border-left: 3px solid var(--cut-ink); padding-left: .8rem; }
"""
_CLASSES = {Fate.SUPERVISED: "s", Fate.MASKED: "m", Fate.TRUNCATED: "c"}


def to_html(album: Album) -> str:
    """One page with everything in it: no script, nothing from elsewhere; a token's number shows under the pointer."""
    length = f"max_length {album.max_length:,}" if album.max_length else "max_length not known: nothing is cut"
    made = [f'<p class="made">{_safe(album.source)} · {_safe(album.schema)} · {_safe(album.model)} · {length}</p>']
    made += [f'<p class="note">{_safe(note)}</p>' for note in album.notes]
    legend = (
        '<p class="legend"><span class="s">supervised: learnt</span><span class="m">masked: read, not learnt</span>'
        '<span class="c">beyond max_length</span><span class="x">special token</span></p>'
    )
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>What is learnt: {_safe(album.source)}</title><style>{_STYLE}</style>"
    )
    body = [f"<h1>What is learnt</h1>{''.join(made)}{legend}", _overview(album), *map(_section, enumerate(album.rows))]
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n' + "\n".join(body) + "\n</body></html>\n"


def _overview(album: Album) -> str:
    rows = []
    for place, row in enumerate(album.rows):
        if isinstance(row, Picture):
            cells = "".join(f"<td>{number:,}</td>" for number in (len(row.tokens), *map(row.count, Fate)))
        else:
            cells = f'<td colspan="4">cannot be drawn: {_safe(row.id)}</td>'
        rows.append(f'<tr><td><a href="#r{place}">{_safe(titled(row))}</a></td>{cells}</tr>')
    head = "".join(f"<th>{word}</th>" for word in ("row", "tokens", *(_WORDS[fate] for fate in Fate)))
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _section(numbered: tuple[int, Picture | Unseen]) -> str:
    place, row = numbered
    title = f'<h2 id="r{place}">{_safe(titled(row))}</h2>'
    if isinstance(row, Unseen):
        where = f" at {_safe(row.path)}" if row.path else ""
        return f'{title}<div class="bad"><p><b>{_safe(row.id)}</b> {_safe(row.message)}{where}</p><p>What to do: {_safe(row.hint)}</p></div>'
    notes = "".join(f'<p class="note">{_safe(note)}</p>' for note in row.told)
    return f"{title}<p>{_safe(counted(row))}</p>{notes}<pre>{''.join(_spans(row))}</pre>"


def _spans(row: Picture) -> Iterator[str]:
    """One span a token. Tokens that share a letter and a fate share a span: a letter cannot be taken apart."""
    groups: list[tuple[str, list[Token]]] = []
    for text, token in row.pieces():
        if token and not text and groups and groups[-1][1] and groups[-1][1][0].fate is token.fate:
            groups[-1][1].append(token)
        else:
            groups.append((text, [token] if token else []))
    place = 0
    for text, tokens in groups:
        if not tokens:
            yield _safe(text)
            continue
        classes = f"t {_CLASSES[tokens[0].fate]}" + (" x" if tokens[0].special else "")
        ids = ", ".join(str(token.id) for token in tokens)
        named = f"token {place + 1:,}: id {ids}" if len(tokens) == 1 else f"tokens {place + 1:,} to {place + len(tokens):,}: ids {ids}"
        yield f'<span class="{classes}" title="{named}, {_WORDS[tokens[0].fate]}">{_safe(text) or "▪"}</span>'
        place += len(tokens)


def _safe(text: str) -> str:
    return escape(visible(text))
