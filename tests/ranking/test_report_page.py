"""The page of a job: the first screen answers, the worst rows come first, hostile text stays text, and what is missing is named."""

import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import zstandard

from core.records import VerdictWord
from core.tasks import RowsOf
from ranking.evidence import RANKING, VERDICT, Comparison, Conditions, Interval, Judged, Leg, LegResult, MetricValue, Order, Place, ScoreFile, Standing, Verdict
from ranking.page.document import document
from ranking.page.drawing import MOST_POINTS, WIDTH, bar, curves
from ranking.page.gathering import Material, gather
from ranking.page.words import clean, side_by_side
from store import codec

HOSTILE = "</p><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7*7 }} ' \" & \u202etxet desrever\x00\x1b[31m \ud800 javascript:alert(3)"
ALLOWED = {
    *("html", "head", "meta", "title", "style", "body", "header", "div", "section", "article", "h1", "h2", "h3", "p", "ul", "li"),
    *("b", "br", "span", "code", "mark", "table", "tr", "th", "td", "svg", "line", "circle", "polyline", "text"),
}


class Tags(HTMLParser):
    """Every tag and attribute of a page, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    handle_startendtag = handle_starttag

    def handle_data(self, data):
        if self.lasttag != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def lay_drop(folder: Path, name: str, rows: list[dict[str, object]], question: str, answer: str) -> RowsOf:
    """An accepted drop with the rows that the desk scored."""
    folder.mkdir(parents=True)
    texts = [{"messages": [{"role": "user", "content": f"{question} {row['line']}"}, {"role": "assistant", "content": answer}]} for row in rows]
    raw = "".join(json.dumps(text) + "\n" for text in texts).encode()
    (folder / "rows.jsonl.zst").write_bytes(zstandard.compress(raw))
    (folder / "index.jsonl").write_text("".join(json.dumps({"line": row["line"], "group": row["group"], "split": "gate"}) + "\n" for row in rows))
    return RowsOf(drop=name, sha256=hashlib.sha256(raw).hexdigest(), folder=str(folder), schema_id="chat_sft_v1")


def verdict_of(desk, by: float) -> Verdict:
    """A verdict that goes by a loss per token that changes by `by`, give or take 0.1."""
    word, result = (
        (VerdictWord.PROMOTE, LegResult.PASSED)
        if by < -0.1
        else (VerdictWord.REFUSE, LegResult.REGRESSION)
        if by > 0.1
        else (VerdictWord.HOLD, LegResult.UNPROVEN)
    )
    loss = Comparison(before=4.0, after=4.0 + by, difference=Interval(mean=by, low=by - 0.1, high=by + 0.1), rows=90, groups=45, tokens=2000, margin=0.02)
    suite = Comparison(
        before=0.5, after=0.5, difference=Interval(mean=0, low=-0.2, high=0.2), rows=30, groups=30, tokens=30, measure="sums", higher_is_better=True
    )
    go = "falls" if by < 0 else "rises"
    legs = (
        Leg(
            name="this drop",
            passed=word is VerdictWord.PROMOTE,
            result=result,
            reason=f"on 90 held-out rows the loss per token {go}",
            comparison=loss,
            also=(suite,),
        ),
        Leg(name="suite sums", passed=True, result=LegResult.WARNED, reason="30 items only warn", comparison=suite),
        Leg(name="made up", passed=True, result=LegResult.SKIPPED, reason="the scores were measured"),
    )
    return Verdict(
        job="job-7",
        word=word,
        this_drop="drop-2",
        candidate=desk.candidate.id,
        incumbent="base",
        base=Standing(model="base", split="gate", loss=4.0, rows=90, tokens=2000),
        legs=legs,
        looks=1,
        conditions=Conditions(backend="peft", base_sha256="b" * 64, settings={"max_length": 64}),
        rules=desk.rules,
        scores={"gate/base": ScoreFile(sha256="c" * 64, rows=90)},
        metrics=(
            MetricValue(metric="f1", value=Interval(mean=0.7, low=0.6, high=0.8), before=0.5, rows=90, target=0.6, met=True),
            MetricValue(metric="relevance", target=0.85, why="no sentence model is here"),
        ),
        judged=Judged(judge="big", wins=9, ties=4, losses=2, votes=3, disagreements=1, words=(9.0, 12.0), share=Interval(mean=0.7, low=0.5, high=0.9)),
    )


def order_of(desk) -> Order:
    places = tuple(
        Place(
            id=name,
            step=step,
            loss=3.5 + behind,
            against_best=Interval(mean=behind, low=behind - 0.1, high=behind + 0.1),
            against_incumbent=against,
            tied=not behind,
        )
        for name, step, behind, against in (
            (desk.candidate.id, 30, 0.0, Interval(mean=-0.5, low=-0.6, high=-0.4)),
            ("step_000010-abc", 10, 0.3, Interval(mean=-0.2, low=-0.4, high=0.1)),
        )
    )
    live = Standing(model="base", split="dev", loss=4.0, rows=60, tokens=1500)
    conditions = Conditions(backend="peft", base_sha256="b" * 64, settings={})
    return Order(
        job="job-7",
        best=desk.candidate.id,
        places=places,
        incumbent=live,
        base=live,
        rows=60,
        groups=30,
        made_up=False,
        conditions=conditions,
        rules=desk.rules,
        scores={},
    )


@pytest.fixture
def page(desk, tmp_path):
    """Lays out a job's run folders and gives its material; `change` may spoil a folder first."""

    def make(change=None, text="How much is it", by=-0.5) -> Material:
        rows = desk.rows(this=90)
        desk.lay_out(this=by)
        best = desk.candidate.id
        for model, words in (("base", "It is the old one. "), (best, "It is the new one, really. ")):
            desk.lay(f"answers/gate/{model}", [{**row, "answer": words + text, "seconds": 0.1} for row in rows])
            items = [{"item": f"sum-{n}", "group": f"g{n}", "value": float(n % 3 == (model == "base"))} for n in range(30)]
            desk.lay(f"suite/arithmetic/{model}", items)
        source = lay_drop(tmp_path / "page-drop", "drop-2", rows, text, text)
        task = replace(desk.task, rows=(source,))
        runs = tmp_path / "runs"
        ranked, ordered, train = (runs / name for name in ("05-rank", "03-rank", "01-train"))
        for folder in (ranked, ordered, train):
            folder.mkdir(parents=True)
        codec.write(ordered / RANKING, order_of(desk))
        codec.write(ranked / VERDICT, verdict_of(desk, by))
        codec.write(ranked / "spec.json", task)
        steps = [{"stage": "train", "step": n, "loss": 3.5 - n / 100} for n in range(1, 31)]
        steps += [{"stage": "dev", "step": n, "dev_loss": 3.6 - n / 90} for n in (10, 20, 30)]
        (train / "progress.jsonl").write_text("".join(json.dumps(line) + "\n" for line in steps) + '{"stage": "tra')
        if change is not None:
            change(runs)
        return gather(runs, "job-7", ranked, ordered, {"adapter": "default/main", "file": text})

    return make


def test_the_first_screen_says_promoted_why_what_got_better_and_what_to_do(page):
    words = Tags(document(page())).text
    assert words.startswith("Promoted")
    head = words[: words.index("The legs of the verdict")]
    assert "the loss per token falls" in head
    assert re.search(r"Got better this drop loss per token 4\.\d+ to 3\.\d+", head)
    assert "Got worse Nothing that is proven." in head
    assert "lorad status" in head
    assert "f1 0.500 0.700 (0.600 to 0.800) 90 rows 0.60 met" in words
    assert "relevance no sentence model is here 0.85" in words
    assert "big preferred the candidate in 9 pairs" in words


def test_a_refused_job_says_what_got_worse_and_what_to_mend(page):
    words = Tags(document(page(by=0.5))).text
    assert words.startswith("Not promoted: refused")
    assert "Got better Nothing that is proven." in words
    assert "lorad fix FILE" in words


def test_a_held_job_says_how_to_decide(page):
    words = Tags(document(page(by=0.0))).text
    assert words.startswith("Not promoted: held")
    assert "lorad compare base job-7 --rate" in words
    assert "lorad jobs approve job-7" in words


def test_the_worst_regression_comes_first_with_both_answers_and_the_words_that_differ(page):
    material = page()
    changes = [row.change for row in material.worst]
    assert changes == sorted(changes, reverse=True)
    assert changes[0] == max(changes)
    assert material.worst[0].answer_after.startswith("It is the new one")
    text = document(material)
    assert "It is the <mark>old</mark> one" in text
    assert "<mark>new</mark> one<mark>, really</mark>." in text
    assert [(suite.name, suite.items, len(suite.lost), len(suite.won)) for suite in material.suites] == [("arithmetic", 30, 10, 10)]
    assert not material.absent


def test_hostile_text_of_rows_answers_and_names_stays_text(page):
    text = document(page(text=HOSTILE))
    found = Tags(text)
    assert set(found.tags) <= ALLOWED, set(found.tags) - ALLOWED
    assert not [name for name, _ in found.attributes if name.startswith("on") or name in ("src", "href", "style")]
    assert "<script>alert(1)</script>" in found.text, "it is shown, as text"
    assert "{{ 7*7 }}" in found.text
    assert not set("\u202e\x00\x1b\ud800") & set(text)
    text.encode("utf-8")


def test_nothing_is_fetched_and_no_script_runs(page):
    text = document(page())
    assert "default-src 'none'" in text
    assert not re.search(r"(?i)<script|<link|<iframe|@import|url\(|https?://", text)


@pytest.mark.parametrize(
    ("gone", "what", "still"),
    [
        ("05-rank/verdict.json", "the verdict", "The order of the candidates"),
        ("03-rank/ranking.json", "the order of the candidates", "The legs of the verdict"),
        ("05-rank/spec.json", "rows and answers", "Learning curves"),
        ("01-train/progress.jsonl", "learning curves", "The legs of the verdict"),
        ("score gate/base", "the rows that got worse", "The legs of the verdict"),
        ("score answers/gate/base", "answers of base", "Rows, the worst"),
        ("score suite/arithmetic/base", "items of suite arithmetic", "Rows, the worst"),
        ("../page-drop/rows.jsonl.zst", "questions and wanted answers", "Rows, the worst"),
    ],
)
@pytest.mark.parametrize("damage", ["gone", "torn"])
def test_what_is_missing_or_damaged_is_named_and_the_rest_is_shown(page, gone, what, still, damage):
    def spoil(runs: Path) -> None:
        path = Path(json.loads((runs / "05-rank/spec.json").read_text())["scores"][gone[6:]]) if gone.startswith("score ") else runs / gone
        if damage == "torn" and path.suffix == ".json":
            path.write_text('{"job": "jo')
        elif damage == "torn" and gone == "score gate/base":
            path.write_bytes(path.read_bytes()[:-3])
        else:
            path.unlink()

    material = page(spoil)
    words = Tags(document(material)).text
    named = next(absent for absent in material.absent if absent.what == what)
    assert named.why
    assert named.how
    assert still in words
    assert words.index("What this page does not have") < words.index(f"{what} : ")


def test_a_job_without_any_ranking_has_a_page_too(tmp_path):
    material = gather(tmp_path, "job-1", None, None, {})
    words = Tags(document(material)).text
    assert words.startswith("There is no verdict yet")
    assert {absent.what for absent in material.absent} == {"the verdict", "the order of the candidates", "learning curves"}


def test_two_answers_differ_by_words_and_long_ones_end():
    left, right = side_by_side("a red fox", "a blue fox")
    assert [(part.text, part.differs) for part in left] == [("a ", False), ("red", True), (" fox", False)]
    assert [(part.text, part.differs) for part in right] == [("a ", False), ("blue", True), (" fox", False)]
    assert clean("x" * 5000).endswith("and 3,800 characters more")
    assert side_by_side("a " * 9000, "b " * 9000)


def test_intervals_and_curves_stay_inside_their_pictures():
    drawn = bar(-9.0, 0.5, float("inf"), most=1.0, margin=0.02)
    assert 0 <= drawn.low < drawn.zero < drawn.mean < drawn.high <= WIDTH
    assert (drawn.cut_low, drawn.cut_high) == (True, True)
    picture = curves([("train", [(n, 3.0) for n in range(5000)], False), ("dev", [(10, float("nan"))], True)])
    assert picture is not None
    assert [line.name for line in picture.lines] == ["train"]
    assert len(picture.lines[0].points.split()) <= MOST_POINTS
    assert curves([("train", [], False)]) is None
