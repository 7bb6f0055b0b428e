"""A picture of a row shows every letter and every token once, with what becomes of it."""

import json
import re
from collections.abc import Sequence
from html.parser import HTMLParser

import pytest

from rendering.picture import Album, Fate, Picture, Unseen, draw, to_html, to_text, visible
from rendering.specs import Message
from rendering.tokens import Renderer

TALK = [Message("user", "hello"), Message("assistant", "the dog"), Message("user", "jumps?"), Message("assistant", "no", weight=0)]


def picture(renderer: Renderer, messages: Sequence[Message] = TALK, max_length: int = 0, weight: float = 1.0) -> Picture:
    return draw(renderer, renderer.encode(messages), max_length, line=7, weight=weight)


def album(*rows: Picture | Unseen, max_length: int = 0) -> Album:
    return Album(source="rows.jsonl", schema="chat_sft_v1", model="tiny", max_length=max_length, rows=rows)


def text_of(drawn: Picture, fate: Fate) -> str:
    return "".join(text for text, token in drawn.pieces() if token and token.fate is fate)


def test_every_letter_stands_once_and_every_token_has_its_fate(tiny: Renderer) -> None:
    drawn = picture(tiny)
    assert "".join(text for text, _ in drawn.pieces()) == drawn.text
    assert [token.id for _, token in drawn.pieces() if token] == tiny.encode(TALK).ids
    assert text_of(drawn, Fate.SUPERVISED) == "the dog<|im_end|>"
    assert drawn.count(Fate.SUPERVISED) == drawn.num_supervised == tiny.encode(TALK).num_supervised
    assert {drawn.text[token.start : token.end] for token in drawn.tokens if token.special} == {"<|im_start|>", "<|im_end|>"}


def test_what_lies_beyond_max_length_is_cut_whatever_it_is(tiny: Renderer) -> None:
    whole = picture(tiny)
    first = next(index for index, token in enumerate(whole.tokens) if token.fate is Fate.SUPERVISED)
    cut = picture(tiny, max_length=first + 2)
    assert cut.count(Fate.SUPERVISED) == 2
    assert cut.count(Fate.TRUNCATED) == len(whole.tokens) - first - 2
    assert cut.num_supervised == whole.num_supervised
    assert "leaves it out" in cut.notes[0]
    assert picture(tiny, max_length=len(whole.tokens)).notes == ()


def test_a_row_without_weight_learns_nothing_and_says_so(tiny: Renderer) -> None:
    drawn = picture(tiny, weight=0)
    assert drawn.count(Fate.SUPERVISED) == 0
    assert "weight 0" in drawn.notes[0]


@pytest.mark.parametrize("answer", ["👩‍👩‍👧‍👦🦊", "日本語\u2028次", "שלום", "a\r\nb\tc", "\x1b[31mred\u202e"])
def test_letters_of_many_tokens_and_letters_that_act_are_shown_once_and_harmless(tiny: Renderer, answer: str) -> None:
    drawn = picture(tiny, [Message("user", "q"), Message("assistant", answer)])
    assert text_of(drawn, Fate.SUPERVISED) == f"{answer}<|im_end|>"
    for colours in (False, True):
        shown = to_text(album(drawn), colours)
        assert visible(answer).replace("\n", "") in re.sub(r"\x1b\[[0-9;]*m|\n", "", shown)
        assert "\u202e" not in shown
        assert "\x1b[31mred" not in shown
    assert "\u202e" not in to_html(album(drawn))


def test_without_colours_brackets_stand_around_what_is_learnt_and_what_is_cut(tiny: Renderer) -> None:
    whole = picture(tiny)
    first = next(index for index, token in enumerate(whole.tokens) if token.fate is Fate.SUPERVISED)
    shown = to_text(album(picture(tiny, max_length=first + 2), max_length=first + 2), colours=False)
    assert "\x1b" not in shown
    legend, body = shown.split("\n", 2)[1:]
    assert legend.startswith("⟦supervised: learnt⟧")
    assert re.search(r"assistant↵\n⟦[^⟧⟪]+⟧⟪.*⟫$", body, re.DOTALL)
    assert "‹<|im_start|>›user" in body


def test_with_colours_each_line_closes_its_own(tiny: Renderer) -> None:
    shown = to_text(album(picture(tiny)), colours=True)
    assert "\x1b[1;32m" in shown
    for line in shown.split("\n"):
        assert line.count("\x1b[") == 2 * line.count("\x1b[0m")


def test_a_row_that_cannot_be_drawn_says_which_finding_it_is() -> None:
    unseen = Unseen(line=3, id="S02", path="$.messages[0].content", message="a message without 'content'", hint="add it")
    for shown in (to_text(album(unseen), False), to_html(album(unseen))):
        assert "row 3" in shown
        assert "S02" in shown
        assert "$.messages[0].content" in shown
    assert json.loads(json.dumps(album(unseen).to_plain()))["rows"][0]["finding"]["id"] == "S02"


class _Page(HTMLParser):
    """Collects tags, attributes that load, and the text of the drawing."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.loads: list[str] = []
        self.drawn = ""
        self.titles: list[str] = []
        self._in_drawing = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self._in_drawing = self._in_drawing or tag == "pre"
        self.loads += [f"{name}={value}" for name, value in attrs if name in ("src", "srcset", "action") or (name == "href" and not str(value).startswith("#"))]
        self.titles += [str(value) for name, value in attrs if name == "title"]

    def handle_endtag(self, tag: str) -> None:
        self._in_drawing = self._in_drawing and tag != "pre"

    def handle_data(self, data: str) -> None:
        self.drawn += data if self._in_drawing else ""


def test_the_page_needs_nothing_and_runs_nothing(tiny: Renderer) -> None:
    evil = "</pre><script>alert(1)</script><img src=x onerror=alert(2)>\"'&amp;"
    drawn = picture(tiny, [Message("user", evil), Message("assistant", evil)])
    page = _Page()
    text = to_html(Album(source=f"{evil}.jsonl", schema=evil, model=evil, max_length=0, rows=[drawn]))
    page.feed(text)
    assert not page.tags & {"script", "img", "link", "iframe", "b"}
    assert page.loads == []
    assert page.drawn == visible(drawn.text)
    assert "default-src 'none'" in text
    assert "prefers-color-scheme: dark" in text
    assert page.titles[0] == f"token 1: id {drawn.tokens[0].id}, masked"


def test_the_json_is_exact(tiny: Renderer) -> None:
    plain = json.loads(json.dumps(album(picture(tiny, max_length=20), max_length=20).to_plain()))
    row = plain["rows"][0]
    assert [token["id"] for token in row["tokens"]] == tiny.encode(TALK).ids
    assert all(row["text"][token["start"] : token["end"]] == token["text"] for token in row["tokens"])
    assert row["counts"]["tokens"] == len(row["tokens"]) == sum(row["counts"][fate.value] for fate in Fate)
    assert [token["fate"] for token in row["tokens"][20:]] == ["truncated"] * (len(row["tokens"]) - 20)
    assert plain["max_length"] == 20
