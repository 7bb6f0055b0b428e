"""What a trainer tells while it works: signs of life, how long a step takes, and that it pauses."""

import threading
from pathlib import Path

import pytest
from trainer_cases import progress_of

from core.config import Config
from trainer import run as run_module
from trainer.run import BEAT_EVERY_S, RunFolder


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def beat_at(run: RunFolder) -> int:
    return (run.root / "heartbeat").stat().st_mtime_ns


def test_every_step_is_a_sign_of_life_though_few_are_told(tmp_path: Path, clock: Clock) -> None:
    run = RunFolder(tmp_path, clock)
    beats = set()
    for step in range(1, 6):
        clock.now += BEAT_EVERY_S
        run.steps = step
        run.report("train", step=step)
        beats.add(beat_at(run))
    assert len(beats) == 5
    assert len(progress_of(run)) == 1, "at most one line a second"


def test_beats_between_two_steps_cost_next_to_nothing(tmp_path: Path, clock: Clock) -> None:
    run = RunFolder(tmp_path, clock)
    run.beat()
    first = beat_at(run)
    for _ in range(1000):
        run.beat()
    assert beat_at(run) == first


def test_a_line_tells_how_long_a_step_took_since_the_last_line(tmp_path: Path, clock: Clock) -> None:
    run = RunFolder(tmp_path, clock)
    run.micro_batch = 4
    for _ in range(21):
        run.steps += 1
        run.report("train", step=run.steps)
        clock.now += 0.5
    lines = progress_of(run)
    assert [line.get("step_s") for line in lines] == [None, *[0.5] * 10]
    assert {line["micro_batch"] for line in lines} == {4}


def test_a_pause_is_told_gives_signs_of_life_and_is_no_part_of_a_step(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    hold = tmp_path / "0.hold"
    run = RunFolder(tmp_path, clock, hold)
    run.steps = 1
    run.report("train", step=1)
    hold.write_text("92 °C")
    beats = []

    def sleep(seconds: float) -> None:
        clock.now += 1.0
        beats.append(beat_at(run))
        if len(beats) == 60:
            hold.unlink()

    monkeypatch.setattr(run_module.time, "sleep", sleep)
    clock.now += 2.0
    run.rest()
    run.steps = 2
    run.report("train", step=2)
    assert len(set(beats)) > 50
    held = progress_of(run, "hold")
    assert len(held) == 60
    assert (held[0]["held"], held[0]["step"]) == ("92 °C", 1)
    assert progress_of(run)[-1]["step_s"] == 2.0


def test_a_stop_ends_a_pause(tmp_path: Path) -> None:
    hold = tmp_path / "0.hold"
    hold.write_text("92 °C")
    run = RunFolder(tmp_path, hold=hold)
    timer = threading.Timer(0.2, lambda: setattr(run, "stopping", True))
    timer.start()
    run.rest()
    assert hold.exists()


def test_without_a_hold_file_nothing_waits(tmp_path: Path) -> None:
    RunFolder(tmp_path).rest()
    RunFolder(tmp_path, hold=tmp_path / "none").rest()


@pytest.mark.parametrize(
    ("micro_batch", "configured", "cut"),
    [(None, 0, (16, 4096)), (8, 0, (8, 2048)), (1, 0, (1, 256)), (None, 4, (4, 0)), (2, 4, (2, 2048)), (16, 0, (16, 4096))],
)
def test_the_memory_ladder_shrinks_rows_and_tokens_alike(micro_batch: int | None, configured: int, cut: tuple[int, int]) -> None:
    from trainer.backends.batches import Cut

    config = Config.model_validate({"batch_size": 16, "max_length": 1024, "training": {"micro_batch": configured}})
    found = Cut.of_training(config, micro_batch, 4096)
    assert (found.rows, found.tokens) == cut


def test_the_memory_ladder_shrinks_scoring_too() -> None:
    from trainer.backends.batches import SCORING_TOKENS, Cut

    config = Config.model_validate({"batch_size": 16})
    assert (Cut.of_scoring(config, None).rows, Cut.of_scoring(config, None).tokens) == (0, SCORING_TOKENS)
    assert (Cut.of_scoring(config, 4).rows, Cut.of_scoring(config, 4).tokens) == (4, SCORING_TOKENS // 4)
