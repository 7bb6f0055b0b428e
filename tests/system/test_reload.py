"""The config is read again while the daemon runs: by `lorad reload` and by SIGHUP, a good file and a bad one."""

import json
import os
import signal
from typing import Any

import pytest
from circle import Circle, chat_rows, read_json, read_lines


def journal(circle: Circle, action: str) -> list[dict[str, Any]]:
    return [line for line in read_lines(circle.home / "journal.jsonl") if line["action"] == action]


def in_force(circle: Circle) -> Any:
    return read_json(circle.home / "caches" / "config.json")


def test_a_reload_names_what_changed_and_what_waits_for_a_restart(circle: Circle) -> None:
    circle.start_daemon()
    assert circle.lorad("reload").stdout.strip() == "nothing has changed"
    circle.configure(training={"epochs": 3}, slots=2, backend="auto")
    shown = json.loads(circle.lorad("config", "show", "--origin", "--format", "json").stdout)
    assert shown["waiting"]["training.epochs"] == "`lorad reload`"
    assert shown["waiting"]["slots"] == "a restart of lorad"
    assert (shown["origins"]["training.epochs"], shown["origins"]["lora.r"]) == ("config.json", "default")

    told = circle.lorad("reload")

    assert told.returncode == 0
    assert "changed: training.epochs" in told.stdout
    assert "as before until a restart of lorad: slots" in told.stdout
    assert "as before until a restart of lorad and lorad-serve: backend" in told.stdout
    assert (in_force(circle)["training"]["epochs"], in_force(circle)["slots"], in_force(circle)["backend"]) == (3, 1, "stub")
    assert journal(circle, "config.reloaded")[-1]["waiting"] == "backend, slots"
    assert set(json.loads(circle.lorad("config", "show", "--format", "json").stdout)["waiting"]) == {"backend", "slots"}
    assert in_force(circle)["training"]["epochs"] == 3


@pytest.mark.parametrize(
    ("broken", "code"),
    [
        ('{"home": "home", "backend": "stub", "training": {"epocs": 1}}', "CONFIG_UNKNOWN_KEY"),
        ('{"home": "home", "backend": "stub", "training": {"epochs": "two"}}', "CONFIG_VALUE"),
        ('{"home": "home", "backend": stub}', "CONFIG_SYNTAX"),
        ('{"home": "home", "backend": "stub", "specs": {"mine": "specs/is-not-there.json"}}', "SPEC"),
    ],
)
def test_a_bad_file_keeps_the_old_config_and_says_so(circle: Circle, broken: str, code: str) -> None:
    circle.start_daemon()
    before = in_force(circle)
    circle.config.write_text(broken)
    told = circle.lorad("reload")
    assert told.returncode == 2
    assert code in told.stderr
    assert "the config in force stays" in told.stderr
    circle.wait(lambda: str((circle.status().get("error") or {}).get("code")).startswith(code), "the status names the error")
    assert journal(circle, "config.refused")[-1]["code"].startswith(code)
    assert in_force(circle) == before

    circle.configure()
    assert circle.lorad("reload").returncode == 0
    circle.wait(lambda: circle.status().get("error") is None, "the error is taken back")


def test_sighup_does_the_same_and_never_ends_the_daemon(circle: Circle) -> None:
    circle.start_daemon()
    circle.config.write_text("nonsense")
    os.kill(circle.daemon.pid, signal.SIGHUP)
    circle.wait(lambda: journal(circle, "config.refused"), "the bad file is refused")
    circle.configure(training={"epochs": 2})
    os.kill(circle.daemon.pid, signal.SIGHUP)
    circle.wait(lambda: journal(circle, "config.reloaded"), "the good file is taken over")
    assert in_force(circle)["training"]["epochs"] == 2
    assert circle.daemon.lives()


def test_a_reload_touches_no_job_that_exists_and_the_next_one_follows_it(circle: Circle) -> None:
    circle.start_daemon()
    circle.brake("train")
    circle.drop(chat_rows(40), "one.jsonl")
    circle.wait_held("train")
    circle.configure(training={"epochs": 5}, lora={"r": 4})
    assert circle.lorad("reload").returncode == 0
    circle.let_go("train")
    circle.drop(chat_rows(40, start=1000), "two.jsonl")
    circle.wait(lambda: len(circle.jobs()) == 2, "the second job is made")
    first, second = (read_json(circle.job_folders()[circle.job(number)] / "config.json")["values"] for number in (0, 1))
    assert (first["training"]["epochs"], first["lora"]["r"]) == (1, 16)
    assert (second["training"]["epochs"], second["lora"]["r"]) == (5, 4)


def test_a_target_that_is_added_gets_its_link_and_one_that_goes_loses_it(circle: Circle) -> None:
    circle.configure(deploy={"targets": [{"name": "first", "path": "boxes/first"}]})
    circle.start_daemon()
    circle.wait(lambda: circle.children("link", "first"), "the first link runs")
    circle.configure(deploy={"targets": [{"name": "second", "path": "boxes/second"}]})
    assert "changed: deploy.targets" in circle.lorad("reload").stdout
    circle.wait(lambda: circle.children("link", "second") and not circle.children("link", "first"), "the second runs in its place")
    assert circle.daemon.lives()


def test_a_link_that_starts_again_goes_by_the_config_in_force(circle: Circle) -> None:
    circle.start_daemon()
    link = circle.wait(lambda: circle.children("link"), "the link runs")[0]
    circle.config.write_text("nonsense")
    link.kill()
    circle.wait(lambda: [child for child in circle.children("link") if child.pid != link.pid], "another link runs")


def test_the_config_of_a_job_shows_its_sidecar(circle: Circle) -> None:
    circle.start_daemon()
    circle.drop(chat_rows(40), "rows.jsonl", {"training": {"epochs": 4}})
    circle.wait(circle.jobs, "the job is made")
    shown = circle.lorad("config", "show", "--origin", "--job", circle.job())
    assert "(sidecar)" in next(line for line in shown.stdout.splitlines() if line.startswith("training.epochs "))
