"""From a teacher to the inbox: the rows of both teachers pass the gate at its deepest level, and tell where they come from."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cli.main import lorad
from core.config import sidecar_layer
from core.errors import LoradError, UsageError
from corpus.curriculum.client import SkillAPIClient, TeacherError
from corpus.curriculum.services import running
from corpus.curriculum.skills import TEACHERS, known_skills, skill_of
from corpus.curriculum.wire import Wish
from store.config import ConfigLoader
from validation import DataValidator

LOOPBACK = ("127.0.0.1", 0)


@pytest.fixture(scope="module")
def urls() -> Iterator[dict[str, str]]:
    with running(list(TEACHERS.values()), dict.fromkeys(TEACHERS, LOOPBACK)) as urls:
        yield urls


@pytest.fixture
def config(urls: dict[str, str], tmp_path: Path) -> Path:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"home": "home", "skills": {name: {"url": url} for name, url in urls.items()}}))
    return path


def said(config: Path, *words: str) -> Result:
    return CliRunner().invoke(lorad, ["skills", *words, "--config", str(config)], standalone_mode=False)


def told(config: Path, *words: str) -> Any:
    result = said(config, *words, "--format", "json")
    if result.exception:
        raise result.exception
    return json.loads(result.stdout)


@pytest.mark.parametrize("name", TEACHERS)
def test_generated_rows_lie_in_the_inbox_and_pass_the_gate_at_its_deepest(config: Path, name: str) -> None:
    (drawn,) = told(config, "generate", name, "--count", "120", "--level", "2")
    file = Path(drawn["file"])
    assert file == config.parent / "home" / "inbox" / "skills" / name / f"{name}-level-2-seed-0.jsonl"
    sidecar = json.loads(file.with_name(f"{file.stem}.job.json").read_text())
    lineage = {"skill": name, "generator": f"lorad-{name}", "version": "1", "level": 2, "first_seed": 0, "last_seed": 1}
    assert sidecar == {"schema_id": TEACHERS[name].schema_id, "lineage": lineage, "source": "skills"}
    report = DataValidator().check_file(file, sidecar["schema_id"], "DEEP")
    assert report.verdict == "accepted", report.to_text()
    assert not [finding for finding in report.findings if finding.id != "N01"], report.to_text()
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert {row["metadata"]["seed"] for row in rows} == {0, 1}
    assert not list(file.parent.glob(".*")), "no half-made file is left"


def test_the_daemon_takes_the_lineage_of_a_sidecar_as_it_is() -> None:
    lineage = {"generator": "adder", "level": 2, "a.b": {"c": []}}
    assert sidecar_layer({"schema_id": "syllo_v1", "lineage": lineage}, "x.job.json") == ({"schema_id": "syllo_v1"}, {"lineage": lineage})
    with pytest.raises(LoradError, match="lineage"):
        sidecar_layer({"lineage": "the teacher"}, "x.job.json")


def test_a_second_drop_goes_on_with_the_next_seed_and_status_tells(config: Path) -> None:
    told(config, "generate", "binary", "--count", "30")
    (drawn,) = told(config, "generate", "binary", "--count", "30")
    assert (drawn["first_seed"], drawn["rows"]) == (1, 30)
    syllo, binary = told(config, "status")
    assert (syllo["name"], next(level["title"] for level in syllo["levels"])) == ("syllo", "4 words")
    assert (binary["levels"][0]["next_seed"], binary["levels"][0]["rows_drawn"], binary["levels"][1]["rows_drawn"]) == (2, 60, 0)


def test_words_for_people(config: Path) -> None:
    assert "syllo: 10 rows of level 1, seed 0; dropped as " in said(config, "generate", "--count", "10").stdout
    assert "60 rows" not in said(config, "status").stdout
    assert "10 rows drawn, 1 of 129 seeds" in said(config, "status").stdout
    assert "skills/binary" in said(config, "list").stdout


def test_a_source_that_the_config_does_not_know_is_not_named(config: Path) -> None:
    config.write_text(json.dumps(json.loads(config.read_text()) | {"validation": {"sources": {"scraped": "deep"}}}))
    (drawn,) = told(config, "generate", "binary", "--count", "5")
    assert "source" not in json.loads(Path(drawn["file"]).with_suffix("").with_suffix(".job.json").read_text())


def test_wrong_words_are_told(config: Path) -> None:
    for words, code in (
        (["generate", "chess", "--count", "1"], "SKILL_UNKNOWN"),
        (["generate", "--count", "1", "--seed", "3"], "SKILL_UNKNOWN"),
        (["generate", "syllo", "--count", "1", "--level", "6"], "SKILL_LEVEL"),
        (["serve", "chess"], "SKILL_UNKNOWN"),
    ):
        error = said(config, *words).exception
        assert isinstance(error, UsageError), words
        assert error.code == code


def test_what_ships_is_known_without_a_config_and_a_third_party_s_by_its_url(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"skills": {"chess": {"url": "https://teacher.example/chess/", "adapter": "games/chess"}}}')
    config = ConfigLoader(str(path)).load().config
    urls = {name: skill.settings.url for name, skill in known_skills(config).items()}
    assert urls == {"syllo": "http://127.0.0.1:8080", "binary": "http://127.0.0.1:8090", "chess": "https://teacher.example/chess"}
    assert (skill_of(config, "chess").adapter, skill_of(config, "syllo").adapter) == ("games/chess", "skills/syllo")


def test_the_service_refuses_what_it_has_not(urls: dict[str, str]) -> None:
    client = SkillAPIClient(url=urls["binary"], waits_s=())
    for wish in (Wish(8, 1, 0), Wish(1, 101, 0), Wish(1, 1, 129), Wish(0, 1, 0)):
        with pytest.raises(TeacherError, match="HTTP 422 to /generate"):
            client.generate(wish)


def test_a_teacher_that_does_not_run_is_named_by_status(tmp_path: Path) -> None:
    with socket.create_server(LOOPBACK) as taken:
        port = taken.getsockname()[1]
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"skills": {name: {"url": f"http://127.0.0.1:{port}"} for name in TEACHERS}}))
    result = said(path, "status")
    assert result.return_value == 1
    assert "lorad skills serve" in result.stdout


def test_a_port_that_is_taken_is_told_and_nothing_is_left() -> None:
    with socket.create_server(LOOPBACK) as taken:
        addresses = {"syllo": LOOPBACK, "binary": taken.getsockname()[:2]}
        with pytest.raises(LoradError) as caught, running(list(TEACHERS.values()), addresses):
            pass
    assert caught.value.code == "PORT_TAKEN"


def test_serve_teaches_until_it_is_ended(tmp_path: Path) -> None:
    with socket.create_server(LOOPBACK) as free:
        port = free.getsockname()[1]
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"home": "home", "skills": {"binary": {"url": f"http://localhost:{port}"}}}))
    words = [sys.executable, "-c", "from cli.main import main; main()", "skills", "serve", "binary", "--config", str(config)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ, PYTHONUNBUFFERED="1")) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert f"binary teaches at http://127.0.0.1:{port}" in line, process.stderr.read() if process.stderr else ""
            assert SkillAPIClient(url=f"http://localhost:{port}").health().skill == "binary"
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
        finally:
            if process.poll() is None:
                process.kill()
