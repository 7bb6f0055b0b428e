"""`lorad plan` and `lorad models recommend`: what a file would take and meet, before anything runs."""

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cli.plan import plan
from cli.plantext import as_text, duration
from cli.recommending import Data, Option, Room, choose, options, recommend, table
from cli.recommending import as_text as recommended_text
from core.config import resolve
from core.errors import LoradError
from core.estimate import Ran, shape_of, weights_of
from store.paths import Home
from store.series import remember, remembered

ROW = '{"messages": [{"role": "user", "content": "What is number %d?"}, {"role": "assistant", "content": "It is the number %d, as you know."}]}\n'
AT = datetime(2026, 5, 1, tzinfo=UTC)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sensors.json").write_text(json.dumps({"cpu": {"free_mb": 30_000, "total_mb": 32_000}}))
    monkeypatch.setenv("LORAD_SENSORS", str(tmp_path / "sensors.json"))
    configure(tmp_path)
    return tmp_path


def configure(folder: Path, **values: Any) -> None:
    (folder / "config.json").write_text(json.dumps({"home": "var", "backend": "stub", "models_dir": "models"} | values))


@pytest.fixture
def planned(folder: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, dict[str, Any]]]:
    """Plan so many rows: (exit status, what it says)."""

    def run(count: int, *words: str, content: str = "") -> tuple[int, dict[str, Any]]:
        (folder / "rows.jsonl").write_text(content or "".join(ROW % (n, n) for n in range(count)))
        status = plan.main(["rows.jsonl", "--format", "json", *words], standalone_mode=False)
        return status, json.loads(capsys.readouterr().out)

    return run


Planned = Callable[..., tuple[int, dict[str, Any]]]


# ---------------------------------------------------------------- rows, tokens, steps


def test_a_file_of_two_hundred_rows_can_be_judged(planned: Planned) -> None:
    status, told = planned(200)
    assert status == 0
    assert [told["rows"][key] for key in ("in_file", "train", "dev", "gate", "unread")] == [200, 140, 30, 30, 0]
    assert told["judged"] == {"gate_groups": 30, "needed": 30, "enough": True, "missing": 0, "new_drop": 200}
    assert told["obstacles"] == []
    assert told["steps"] == 105, "140 rows, 3 epochs as they are few, 4 a step so that the steps are enough"
    assert {key: entry["value"] for key, entry in told["settings"].items()}.items() >= {"batch_size": 4, "training.epochs": 3.0, "lora.r": 16}.items()
    assert told["tokens"]["total"] == 3 * told["tokens"]["a_pass"]
    assert told["time"]["is_guess"]


def test_a_file_of_a_hundred_rows_ends_in_held_and_it_says_how_many_are_missing(planned: Planned) -> None:
    status, told = planned(100)
    assert status == 2
    assert told["judged"]["missing"] == 100
    assert "it would end in held; about 100 more new conversations" in told["obstacles"][0]
    assert "held" in as_text(told)


def test_set_changes_what_is_planned_as_it_would_change_the_job(planned: Planned) -> None:
    assert planned(200, "--set", "training.epochs=1", "--set", "batch_size=70")[1]["steps"] == 2
    assert planned(200, "--set", "training.max_steps=5")[1]["steps"] == 5


def test_a_sidecar_beside_the_file_counts_and_the_command_line_wins(folder: Path, planned: Planned) -> None:
    (folder / "rows.job.json").write_text('{"training": {"max_steps": 7}, "priority": "high"}')
    assert planned(200)[1]["steps"] == 7
    assert planned(200, "--set", "training.max_steps=3")[1]["steps"] == 3


def test_long_rows_lines_that_are_no_rows_and_silent_rows_are_counted(planned: Planned) -> None:
    long = ROW.replace("as you know", "word " * 3000)
    silent = '{"messages": [{"role": "user", "content": "a %d"}, {"role": "assistant", "content": "b", "weight": 0}]}\n'
    content = "".join([*(ROW % (n, n) for n in range(200)), *(long % (n, n) for n in range(300, 330)), silent % 1, "{}\n", "no json\n"])
    status, told = planned(0, content=content)
    assert status == 2
    assert (told["rows"]["overlong"], told["rows"]["silent"], told["rows"]["unread"]) == (30, 1, 2)
    assert any("lorad check" in obstacle for obstacle in told["obstacles"])
    assert any("longer than max_length 2048" in obstacle for obstacle in told["obstacles"])


def test_rows_that_no_backend_trains_and_an_empty_file_are_said(planned: Planned) -> None:
    seen = '{"messages": [{"role": "user", "content": "a %d"}, {"role": "assistant", "content": "b"}]}\n'
    pictures = planned(0, "--set", "schema_id=vision_v1", content="".join(seen % n for n in range(9)))[1]
    assert any("no backend trains" in obstacle for obstacle in pictures["obstacles"])
    assert any("no row is left" in obstacle for obstacle in planned(0, content="\n")[1]["obstacles"])


def test_what_the_chosen_trainer_cannot_do_stands_in_the_way(folder: Path, planned: Planned) -> None:
    configure(folder, backend="mlx")
    obstacles = planned(200, "--set", "method=qlora")[1]["obstacles"]
    assert any("'mlx' cannot do method = 'qlora'; unsloth or peft could" in obstacle for obstacle in obstacles)
    assert not any("cannot do" in obstacle for obstacle in planned(200)[1]["obstacles"])


def test_without_a_base_it_would_wait_and_the_plan_says_so(folder: Path, planned: Planned) -> None:
    configure(folder, backend="peft")
    status, told = planned(200)
    assert status == 2
    assert any("lorad models pull" in obstacle for obstacle in told["obstacles"])


def test_a_file_of_a_job_that_is_on_its_way_is_planned_as_the_duplicate_that_it_is(planned: Planned, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    from types import SimpleNamespace

    from cli import prospect
    from core.identity import drop_identity
    from store.bases import STUB_BASE
    from store.config import ConfigLoader
    from store.seals import hash_file

    planned(200)
    identity = drop_identity(hash_file(folder / "rows.jsonl"), "default/main", ConfigLoader(None).load().config, STUB_BASE)
    job = SimpleNamespace(id="job-1", card=SimpleNamespace(identity=identity), state="held")
    monkeypatch.setattr(prospect, "earlier_of", lambda *_: prospect.Earlier(drops=1, same="drop-1"))
    monkeypatch.setattr("store.jobs.read_all", lambda _home: ([job], []))
    status, told = planned(200)
    assert (status, len(told["obstacles"])) == (2, 1)
    assert told["obstacles"][0].startswith("job-1 has the same rows")
    job.state = "refused"
    assert planned(200)[0] == 0


def test_a_pipe_is_refused_and_not_waited_for(folder: Path) -> None:
    os.mkfifo(folder / "pipe.jsonl")
    with pytest.raises(LoradError, match="is a pipe"):
        plan.main(["pipe.jsonl"], standalone_mode=False)


def test_wrong_words_are_wrong_usage(planned: Planned) -> None:
    for words in (("--set", "home=x"), ("--set", "lora.rr=3"), ("--adapter", "../x")):
        with pytest.raises(LoradError):
            planned(10, *words)


# ---------------------------------------------------------------- time, queue, disk


def ran(tokens_per_s: float, **fields: Any) -> Ran:
    known: dict[str, Any] = {"at": AT, "job": "j", "backend": "stub", "base": "stub", "base_sha256": "stub", "device": "stub", "rows": 9, "tokens": 1000}
    return Ran(**(known | {"steps": 9, "seconds": 1000 / tokens_per_s, "other_s": 2.0, "memory_mb": 100} | fields))


def test_earlier_runs_of_this_machine_replace_the_guess_and_their_estimates_are_judged(folder: Path, planned: Planned) -> None:
    home = Home(folder / "var")
    home.root.mkdir()
    for speed in (100, 110, 90):
        remember(home, ran(speed, expected_s=20.0, expected_low_s=10.0, expected_high_s=30.0))
    told = planned(200)[1]
    assert not told["time"]["is_guess"]
    assert told["time"]["runs"] == 3
    assert told["time"]["seconds"] == pytest.approx(2 + told["tokens"]["total"] / 99.6, rel=0.01)
    assert told["record"]["runs"] == 3
    assert "ended within the interval" in as_text(told)


def test_the_newest_runs_are_read_from_the_end_and_a_damaged_line_is_left_out(folder: Path) -> None:
    home = Home(folder / "var")
    home.root.mkdir()
    for number in range(600):
        remember(home, ran(100 + number))
    with open(home.root / "series" / "runs.jsonl", "a") as file:
        file.write('{"half": \n{"at": "torn')
    found = remembered(home)
    assert 100 < len(found) < 600
    assert round(found[-1].tokens_per_s) == 699


def test_quiet_hours_and_a_full_disk_are_told_before_anything_is_dropped(folder: Path, planned: Planned) -> None:
    now = datetime.now().astimezone()
    configure(folder, schedule={"quiet_hours": [f"{now - timedelta(hours=1):%H:%M}-{now + timedelta(hours=2):%H:%M}"]}, retention={"min_free_mb": 1 << 40})
    status, told = planned(200)
    assert status == 2
    assert "quiet hours" in told["queue"]["closed"]
    assert told["queue"]["opens_at"]
    assert "free above the floor" in told["obstacles"][0]


@pytest.mark.parametrize(("seconds", "words"), [(0.4, "0.4 s"), (45, "45 s"), (60, "1 min"), (3_700, "1 h 1 min"), (200_000, "2 d 7 h")])
def test_spans_of_time_are_read_at_a_glance(seconds: float, words: str) -> None:
    assert duration(seconds) == words


# ---------------------------------------------------------------- which base


def test_the_table_of_bases_is_right_about_sizes() -> None:
    """Weights counted from the shape are those that the maker states; hybrid bases have layers that the shape does not tell."""
    assert len(table()) >= 19
    for entry in table():
        shape = entry["shape"]
        hidden, inner, heads = shape["hidden_size"], shape["intermediate_size"], shape["head_dim"]
        queries, keys = shape["num_attention_heads"] * heads, shape["num_key_value_heads"] * heads
        blocks = shape["num_hidden_layers"] * (2 * hidden * (queries + keys) + 3 * hidden * inner)
        counted = (blocks + shape["vocab_size"] * hidden * (1 if entry["tied"] else 2)) / 1e6
        if not entry["name"].startswith("Qwen3.5"):
            assert counted == pytest.approx(entry["parameters_m"], rel=0.002), entry["name"]
        assert entry["free"] == (entry["licence"] in ("Apache-2.0", "MIT")), entry["name"]
        assert entry["free"] or entry["terms"], entry["name"]


DATA = Data(source="test", train_rows=1000, tokens=300_000, longest=600)


def offered(total_mb: int, device: str = "cpu", **fields: Any) -> list[Option]:
    room = Room(name=device, total_mb=total_mb, free_mb=total_mb, cores=8, has_bf16=True)
    return options(resolve({}).config, room, DATA, [], frozenset(fields.get("here", ())))


def test_a_large_card_gets_a_large_base_and_a_small_machine_a_small_one() -> None:
    large, small = choose(offered(81_000, "NVIDIA H100")), choose(offered(8_000))
    assert large is not None
    assert small is not None
    assert large.parameters_m > 7_000
    assert small.parameters_m < 1_000
    assert large.memory_mb < 81_000 * 0.85


def test_a_base_with_terms_is_listed_with_them_and_never_chosen_by_itself() -> None:
    found = {option.name: option for option in offered(81_000, "NVIDIA H100")}
    assert "no commercial use" in found["Qwen2.5-3B-Instruct"].why_not
    assert found["Llama-3.2-1B-Instruct"].why_not.startswith("licence")


def test_where_none_fits_it_says_so() -> None:
    assert choose(offered(500)) is None


def test_runs_of_a_small_base_scale_to_the_others(folder: Path) -> None:
    entry = table()[0]
    shape = shape_of(entry["shape"], 1)
    assert shape is not None
    small = ran(800, backend="peft", base="smollm2-135m-instruct", base_sha256="b", device="cpu", weights=weights_of(shape))
    room = Room(name="cpu", total_mb=64_000, free_mb=64_000, cores=8, has_bf16=True)
    found = {option.name: option for option in options(resolve({}).config, room, DATA, [small], frozenset())}
    assert not found["SmolLM2-135M-Instruct"].time_is_guess, "it is the very base that was measured"
    assert found["Qwen2.5-0.5B-Instruct"].time_is_guess
    assert found["Qwen2.5-0.5B-Instruct"].seconds > 3 * found["SmolLM2-135M-Instruct"].seconds


def test_recommend_works_without_a_config_and_names_what_it_assumed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "config.json").unlink()
    monkeypatch.delenv("LORAD_CONFIG", raising=False)
    told = recommend(None, None)
    assert told["recommended"]
    assert "assumed" in told["data"]["source"]
    assert "recommended:" in recommended_text(told)
    (folder / "rows.jsonl").write_text("".join(ROW % (n, n) for n in range(200)))
    assert recommend(folder / "rows.jsonl", None)["data"]["train_rows"] == 140
