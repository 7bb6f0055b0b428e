"""The child as the daemon starts it: spec.json in, ranking.json or verdict.json and exit.json out."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from core.exits import ChildExit
from core.records import Candidate, VerdictWord
from core.tasks import ExitNote, RankTask
from ranking.__main__ import main
from ranking.evidence import RANKING, VERDICT, Order, Verdict
from ranking.report import render
from store import codec


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "05-rank"
    folder.mkdir()
    return folder


def carry_out(run: Path, task: RankTask) -> ExitNote:
    codec.write(run / "spec.json", task)
    before = signal.getsignal(signal.SIGTERM)
    try:
        status = main(["ranking", str(run)])
    finally:
        signal.signal(signal.SIGTERM, before)
    note = codec.read(ExitNote, run / "exit.json")
    assert status == note.code
    return note


def three_candidates(desk, losses: list[float]) -> RankTask:
    candidates = tuple(Candidate(step=step, path=f"x/{step}", sha256=str(step)[0] * 64) for step in (10, 20, 30))
    rows = desk.rows(this=60)
    desk.lay_scores("dev/base", rows, {"drop-2": 4.0})
    for candidate, loss in zip(candidates, losses, strict=True):
        desk.lay_scores(f"dev/{candidate.id}", rows, {"drop-2": loss})
    return replace(desk.task, purpose="order", candidates=candidates, best=None)


def test_candidates_are_ordered_by_dev_loss(desk, run):
    note = carry_out(run, three_candidates(desk, [3.6, 3.2, 3.4]))
    found = codec.read(Order, run / RANKING)
    assert note.code == ChildExit.DONE
    assert note.best == found.best == found.places[0].id
    assert [place.step for place in found.places] == [20, 30, 10]
    assert all(place.against_incumbent.high < 0 for place in found.places)
    assert [place.tied for place in found.places] == [True, False, False]
    assert (found.incumbent.model, found.base.model, found.rows, found.groups) == ("base", "base", 60, 30)


def test_of_equal_candidates_the_earliest_step_is_best_and_the_others_are_tied(desk, run):
    task = three_candidates(desk, [3.5, 3.5, 3.5])
    rows = [row | {"loss": 2.5} for row in desk.rows(this=60)]
    for candidate in task.candidates:
        desk.lay(f"dev/{candidate.id}", rows)
    carry_out(run, replace(task, candidates=tuple(reversed(task.candidates))))
    found = codec.read(Order, run / RANKING)
    assert [place.step for place in found.places] == [10, 20, 30]
    assert all(place.tied for place in found.places)


def test_an_order_without_evidence_ends_the_child_with_bad_data(desk, run):
    task = three_candidates(desk, [3.6, 3.2, 3.4])
    Path(task.scores["dev/base"]).write_bytes(b"{")
    note = carry_out(run, task)
    assert (note.code, note.word, note.error, note.best) == (ChildExit.BAD_DATA, VerdictWord.HOLD, "EVIDENCE_MISSING", None)
    assert not (run / RANKING).exists()


def test_the_verdict_and_the_table_are_read_back(desk, run, tmp_path):
    carry_out(run, three_candidates(desk, [3.6, 3.2, 3.4]))
    desk.lay_out(this=-0.6)
    verdict_run = tmp_path / "07-rank"
    verdict_run.mkdir()
    note = carry_out(verdict_run, desk.task)
    verdict = codec.read(Verdict, verdict_run / VERDICT)
    assert (note.code, note.word, note.best) == (ChildExit.DONE, VerdictWord.PROMOTE, desk.candidate.id)
    assert note.reason == verdict.sentence
    text = render(run / RANKING, verdict_run / VERDICT)
    assert [line.split()[0] for line in text.splitlines()[:5]] == [
        "candidate",
        "step_000020-222222222222",
        "step_000030-333333333333",
        "step_000010-111111111111",
        "base",
    ]
    assert "verdict: promote" in text
    assert verdict.legs[0].reason in text
    assert "earlier drops" in text


def test_missing_evidence_is_a_hold_with_a_verdict_that_says_so(desk, run):
    desk.lay_out(this=-0.6)
    path = Path(desk.task.scores["gate/base"])
    path.write_bytes(path.read_bytes()[:-3])
    note = carry_out(run, desk.task)
    assert (note.code, note.word, note.error) == (ChildExit.DONE, VerdictWord.HOLD, "EVIDENCE_MISSING")
    assert note.reason.startswith("evidence missing: ")
    assert note.hint
    verdict = codec.read(Verdict, run / VERDICT)
    assert verdict.word is VerdictWord.HOLD
    assert "torn" in verdict.sentence


@pytest.mark.parametrize(
    "change",
    [{"best": "step_000099-ffffffffffff"}, {"best": None}, {"settings": {"ranking": {"margin": "much"}}}, {"settings": {"allow_stub": "yes"}}],
)
def test_a_spec_that_cannot_be_carried_out_is_not_tried_again(desk, run, change):
    desk.lay_out(this=-0.6)
    note = carry_out(run, replace(desk.task, **change))
    assert (note.code, note.error) == (ChildExit.BAD_SPEC, "SPEC_WRONG")


def test_a_spec_of_another_kind_is_not_tried_again(run):
    (run / "spec.json").write_text('{"kind": "train"}')
    assert main(["ranking", str(run)]) == ChildExit.BAD_SPEC


def test_without_a_run_folder_it_says_how_to_use_it():
    assert main(["ranking"]) == ChildExit.BAD_SPEC


def test_as_a_process_it_needs_no_torch_and_stops_on_request(desk, run):
    desk.lay_out(this=-0.6)
    codec.write(run / "spec.json", desk.task)
    code = (
        "import sys, os, signal; from ranking import __main__ as child\n"
        "assert 'torch' not in sys.modules\n"
        "child.rank = lambda folder: os.kill(os.getpid(), signal.SIGTERM) or signal.pause()\n"
        "sys.exit(child.main(sys.argv))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(run)], timeout=60, capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == ChildExit.STOPPED, done.stderr
    assert codec.read(ExitNote, run / "exit.json").code == ChildExit.STOPPED


def test_as_a_process_it_gives_the_verdict(desk, run):
    desk.lay_out(this=-0.6)
    codec.write(run / "spec.json", desk.task)
    done = subprocess.run([sys.executable, "-m", "ranking", str(run)], timeout=60, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert codec.read(ExitNote, run / "exit.json").word is VerdictWord.PROMOTE
