"""How a training is cut by memory: by estimate, by trial, by pressure, and from the record of an earlier run."""

import json
from pathlib import Path
from typing import Any

import pytest

from trainer import memory
from trainer.backends.batches import Cut
from trainer.memory import STEPS, Cutter, HostMemory

WIDE = Cut(rows=16, tokens=4096)


class FakeGauge:
    def __init__(self, free: int | None) -> None:
        self.free, self.taken = free, None

    def free_bytes(self) -> int | None:
        return self.free

    def mark(self) -> None:
        pass

    def taken_bytes(self) -> int | None:
        return self.taken


def tokens_at_once(cut: Cut) -> int:
    """Of rows of 100 tokens."""
    return min(cut.rows, max(1, cut.tokens // 100)) * 100


@pytest.fixture
def gauge() -> Any:
    return FakeGauge(free=10_000)


@pytest.fixture
def cutter(gauge: Any, tmp_path: Path) -> Cutter:
    return Cutter(WIDE, gauge, 5, tmp_path / STEPS)


def told(cutter: Cutter) -> list[tuple[int, int, int]]:
    changes = [json.loads(line) for line in cutter.record.read_text().splitlines()]
    return [(change["step"], change["rows"], change["tokens"]) for change in changes]


def test_the_estimate_halves_the_cut_until_it_fits(cutter: Cutter, gauge: Any) -> None:
    gauge.free = 2_500
    assert cutter.of_step(1, tokens_at_once) == Cut(rows=4, tokens=1024)
    assert told(cutter) == [(1, 16, 4096), (1, 8, 2048), (1, 4, 1024)]


def test_what_never_fits_by_estimate_is_tried_with_one_row(cutter: Cutter, gauge: Any) -> None:
    gauge.free = 1
    assert cutter.of_step(1, tokens_at_once).rows == 1


def test_where_nothing_is_known_nothing_is_cut(gauge: Any, tmp_path: Path) -> None:
    gauge.free = None
    assert Cutter(WIDE, gauge, 5, tmp_path / "one").of_step(1, tokens_at_once) == WIDE
    gauge.free = 1
    assert Cutter(WIDE, gauge, 0, tmp_path / "two").of_step(1, tokens_at_once) == WIDE


def test_what_a_step_took_mends_the_estimate(cutter: Cutter, gauge: Any) -> None:
    cutter.of_step(1, tokens_at_once)
    gauge.taken = 16_000
    cutter.learn(1_600)
    assert cutter.of_step(2, tokens_at_once).rows == 8, "10 bytes a token: 1,600 tokens no longer fit into 10,000"


def test_memory_that_comes_back_is_used_again_after_a_while(cutter: Cutter, gauge: Any) -> None:
    gauge.free = 5_000
    assert cutter.of_step(1, tokens_at_once).rows == 8
    gauge.taken = 4_000
    cutter.learn(800)
    gauge.free = 1_000_000
    rows = [cutter.of_step(step, tokens_at_once).rows for step in range(2, 30)]
    assert rows[: memory.CALM_STEPS - 1] == [8] * (memory.CALM_STEPS - 1)
    assert rows[-1] == 16, "never beyond its beginning"


def test_a_cut_that_ran_out_of_memory_is_not_tried_again(cutter: Cutter, gauge: Any) -> None:
    cutter.of_step(1, tokens_at_once)
    assert cutter.ran_out(1, rows=10)
    gauge.taken, gauge.free = 10, 1_000_000
    cutter.learn(100)
    assert {cutter.of_step(step, tokens_at_once) for step in range(1, 60)} == {Cut(rows=5, tokens=2048)}
    assert not cutter.ran_out(60, rows=1), "nothing is left to halve"


def test_cuts_of_an_earlier_run_are_replayed_at_their_steps(gauge: Any, tmp_path: Path) -> None:
    earlier = tmp_path / "earlier.jsonl"
    lines = [
        {"step": 1, "rows": 16, "tokens": 4096, "why": ""},
        {"step": 3, "rows": 8, "tokens": 2048, "why": ""},
        {"step": 6, "rows": 2, "tokens": 512, "why": ""},
    ]
    earlier.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 7, "ro\n')
    cutter = Cutter(WIDE, gauge, 5, tmp_path / STEPS)
    cutter.replay(earlier, next_step=5)
    assert [cutter.of_step(step, tokens_at_once).rows for step in (5, 6, 7)] == [8, 2, 2]
    assert told(cutter) == [(1, 16, 4096), (3, 8, 2048), (6, 2, 512)], "whoever resumes this run finds them all"


def test_a_smaller_bound_wins_over_the_record(gauge: Any, tmp_path: Path) -> None:
    earlier = tmp_path / "earlier.jsonl"
    earlier.write_text(json.dumps({"step": 1, "rows": 16, "tokens": 4096, "why": ""}) + "\n")
    cutter = Cutter(Cut(rows=2, tokens=512), gauge, 5, tmp_path / STEPS)
    cutter.replay(earlier, next_step=4)
    assert cutter.of_step(4, tokens_at_once) == Cut(rows=2, tokens=512)


def test_this_machine_has_memory_and_a_peak() -> None:
    host = HostMemory()
    free = host.free_bytes()
    assert free is not None
    assert free > 0
    host.mark()
    assert host.taken_bytes() is None or host.taken_bytes() >= 0  # type: ignore[operator]


def test_the_bound_of_a_control_group_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group = tmp_path / "a" / "b"
    group.mkdir(parents=True)
    for folder, most in ((group, "max"), (group.parent, "5000")):
        (folder / "memory.max").write_text(most)
        (folder / "memory.current").write_text("3000")
        (folder / "memory.stat").write_text("anon 1\ninactive_file 500\n")
    own = tmp_path / "cgroup"
    own.write_text("0::/a/b\n")
    monkeypatch.setattr(memory, "CGROUPS", (own, tmp_path))
    assert memory._group_free_bytes() == [2500]
