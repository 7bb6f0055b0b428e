"""D05, D13 and the sentence model: questions in other words, odd rows, wrong labels; and a child that fails."""

import os
import stat
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gate_cases import Check, as_bytes, chat, found
from prose_cases import NOUNS, PLACES, WordVectors, chats, draws, pairs

from core.errors import LoradError
from store.embedding import Embedder
from store.paths import default_models_dir
from store.seals import is_sealed
from validation import Report
from validation.context import Surroundings
from validation.findings import Severity

ROWS = pairs(60, seed=31)
ITEM = "Which lantern shines brightest above the northern harbour during long winter evenings?"
OTHER_WORDS = "What lamp glows strongest over the arctic port through extended cold nights?"
SAME = (
    *(("which", "what"), ("lantern", "lamp"), ("shines", "glows"), ("brightest", "strongest"), ("above", "over"), ("northern", "arctic")),
    *(("harbour", "port"), ("during", "through"), ("long", "extended"), ("winter", "cold"), ("evenings", "nights")),
)


def told(report: Report, id: str) -> list[Any]:
    return [finding for finding in report.findings if finding.id == id]


@pytest.fixture
def deep(check: Check, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Report]:
    """A deep check against an exam, with a stand-in for the sentence model."""

    def run(rows: list[object], items: Sequence[str] = (), vectors: Any = None) -> Report:
        monkeypatch.setattr("validation.survey._embedder", lambda plan: vectors or WordVectors(SAME))
        exam = tmp_path / "exam.jsonl"
        exam.write_bytes(as_bytes([{"prompt": item} for item in items]))
        return check(rows, level="deep", around=Surroundings(embedder="here", references=(str(exam),) if items else ()))

    return run


# --- D05


def test_a_question_in_other_words_refuses_the_file(deep: Callable[..., Report]) -> None:
    finding = found(deep([*chats(ROWS[:30]), chat(OTHER_WORDS, "The one of Arden.")], [ROWS[50][0], ITEM]), "D05")
    assert (finding.severity, finding.lines) == (Severity.ERROR, (31,))
    assert "line 31 asks what item 2 of exam.jsonl asks, in other words" in finding.message


def test_a_question_that_is_close_is_a_warning(deep: Callable[..., Report]) -> None:
    finding = found(deep([*chats(ROWS[:30]), chat(f"{OTHER_WORDS} Say it!", "The one of Arden.")], [ITEM]), "D05")
    assert (finding.severity, finding.lines) == (Severity.WARNING, (31,))


def test_other_numbers_make_another_question(deep: Callable[..., Report]) -> None:
    finding = found(deep([*chats(ROWS[:30]), chat(f"{OTHER_WORDS} {OTHER_WORDS} 17", "The one of Arden.")], [f"{ITEM} {ITEM} 42"]), "D05")
    assert finding.severity is Severity.WARNING


def test_equal_words_are_left_to_the_search_for_words(deep: Callable[..., Report]) -> None:
    report = deep([*chats(ROWS[:30]), chat(ITEM, "The one of Arden.")], [ITEM])
    assert told(report, "D05") == []
    assert found(report, "D04").lines == (31,)


def test_questions_that_are_all_alike_cannot_be_told_from_an_item(deep: Callable[..., Report]) -> None:
    rows = [chat(f"{OTHER_WORDS} {noun}", f"The {noun} of {PLACES[place % 20]}.") for place, noun in enumerate(NOUNS)]
    report = deep(rows, [ITEM])
    assert told(report, "D05") == []
    assert "so alike" in report.stats["checks_not_run"]["D05"]  # type: ignore[index]


def test_other_questions_of_the_kind_pass(deep: Callable[..., Report]) -> None:
    assert told(deep(chats(ROWS[:30]), [asked for asked, _ in ROWS[30:]]), "D05") == []


def test_all_texts_go_to_the_model_together(deep: Callable[..., Report]) -> None:
    """One child does the work of all checks."""

    class Once(Embedder):
        def __init__(self) -> None:
            super().__init__(Path("nowhere"))
            self.asked: list[int] = []

        def _ask(self, texts: list[str]) -> Any:
            self.asked.append(len(texts))
            return WordVectors()(texts)

    vectors = Once()
    deep(chats(ROWS), [asked for asked, _ in ROWS[30:]], vectors)
    assert vectors.asked == [120]  # the items are questions of the file too


# --- D13


def test_a_question_unlike_all_others_is_listed(deep: Callable[..., Report]) -> None:
    """Its words stand in no other row."""
    finding = found(deep([*chats(ROWS), chat("zwölf graue Kühe grasen hinter jenem alten Wehr und niemand weiß warum sie dort stehen", "Muh.")]), "D13")
    assert (finding.severity, finding.lines) == (Severity.INFO, (61,))
    assert "zwölf graue Kühe" in finding.message


def _letters(count: int, wrong: int) -> list[object]:
    """Complaints and thanks, each with its label; the first `wrong` complaints are labelled as thanks."""
    rng = draws(33)
    rows: list[object] = []
    for place in range(count):
        kind = place % 2
        words = ("broken late refund damaged missing angry" if kind else "thanks lovely perfect quick friendly happy").split()
        text = " ".join([*rng.sample(words, 5), rng.choice(NOUNS)])
        is_wrong = kind == 1 and place // 2 < wrong
        rows.append(chat(text, "thanks" if is_wrong or not kind else "complaint"))
    return rows


def test_labels_that_all_neighbours_contradict_are_listed(deep: Callable[..., Report]) -> None:
    finding = found(deep(_letters(120, 3)), "D13")
    assert (finding.severity, finding.lines) == (Severity.INFO, (2, 4, 6))
    assert "'thanks', its neighbours 'complaint'" in finding.message


def test_labels_that_follow_and_labels_that_do_not_are_let_pass(deep: Callable[..., Report]) -> None:
    rng = draws(34)
    assert told(deep(_letters(120, 0)), "D13") == []
    assert told(deep([chat(asked, rng.choice(("yes", "no"))) for asked, _ in ROWS]), "D13") == []
    assert told(deep(chats(ROWS)), "D13") == []


# --- the child


def _child(folder: Path, body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts a program in the place of Python that stands in for the trainer child; its run folder is $3."""
    folder.mkdir(exist_ok=True)
    program = folder / "python"
    program.write_text(f"#!{sys.executable}\nimport json, pathlib, sys\nrun = pathlib.Path(sys.argv[3])\n{body}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr("store.embedding.sys.executable", str(program))


EXIT = "(run / 'exit.json').write_text(json.dumps({'code': %d, 'ended_at': '2026-01-01T00:00:00Z', 'reason': %r, 'hint': %r}))"
FAILURES = {
    "a reason": (EXIT % (10, "no sentence model in '/x'", "run `lorad models pull all-minilm-l6-v2`") + "; sys.exit(10)", "no sentence model in '/x'"),
    "a crash": ("sys.exit(139)", "exit status 139"),
    "no file": ("sys.exit(0)", "embeddings.npy"),
    "a pickle": ("(run / 'embeddings.npy').write_bytes(b'\\x80\\x04K\\x01.')", "failed"),
    "other numbers": ("import numpy; numpy.save(run / 'embeddings.npy', numpy.zeros((7, 3), dtype='float32'))", "(7, 3) float32 for 2 texts"),
}


@pytest.mark.parametrize(("body", "says"), FAILURES.values(), ids=FAILURES)
def test_a_child_that_fails_is_an_error_with_its_reason(body: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _child(tmp_path / "bin", body, monkeypatch)
    with pytest.raises(LoradError) as caught:
        Embedder(tmp_path)(["one", "two"])
    assert caught.value.code == "EMBEDDER_FAILED"
    assert says in caught.value.what
    assert "lorad models pull" in caught.value.hint


def test_a_child_that_takes_too_long_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _child(tmp_path / "bin", f"import os, time; pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(os.getpid())); time.sleep(600)", monkeypatch)
    with pytest.raises(LoradError, match="longer than 1 s") as caught:
        Embedder(tmp_path, time_limit_s=1.0)(["one"])
    assert caught.value.code == "EMBEDDER_SLOW"
    pid = tmp_path / "pid"
    if pid.exists():  # it may have been ended before it came so far
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid.read_text()), 0)


def test_vectors_come_back_in_the_order_of_the_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = (
        "import numpy; texts = [json.loads(line) for line in (run / 'texts.jsonl').read_bytes().split(b'\\n') if line]\n"
        "numpy.save(run / 'embeddings.npy', numpy.array([[len(text), 1] for text in texts], dtype='float32'))\n" + EXIT % (0, "", "")
    )
    _child(tmp_path / "bin", body, monkeypatch)
    vectors = Embedder(tmp_path)(["a", "bbb", "a", "x\u2028\n\U0001f600", "b" * 5000])
    assert vectors[:, 0].tolist() == [1, 3, 1, 4, 2000]


@pytest.mark.model
def test_the_real_model_tells_likeness_from_difference() -> None:
    folder = Path(os.environ.get("LORAD_TEST_MODELS") or default_models_dir()) / "all-minilm-l6-v2"
    if not is_sealed(folder):
        pytest.fail(f"no sentence model in {folder}: run `lorad models pull all-minilm-l6-v2`, or set LORAD_TEST_MODELS")
    vectors = Embedder(folder)(["A man eats a loaf of bread.", "Someone is eating bread.", "The stock market fell sharply today.", ""])
    assert vectors.shape == (4, 384)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3)
    cosines = vectors @ vectors.T
    assert cosines[0, 1] > 0.7 > 0.2 > cosines[0, 2]
