"""What can never be trained on is refused by name, with what to do about it; the file itself is kept beside its report."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from circle import Circle, chat_rows

SETTLE = {"settle_s": 0.1, "unparsable_settle_s": 0.2}
COMPLETIONS = b"".join(json.dumps({"prompt": f"p {number}", "completion": f"c {number}"}).encode() + b"\n" for number in range(20))


@pytest.fixture(scope="module")
def circle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Circle]:
    """One daemon for all of these: it must outlive every file."""
    made = Circle(tmp_path_factory.mktemp("refused"), validation=SETTLE)
    made.start_daemon()
    yield made
    assert made.daemon.lives()
    assert made.jobs() == {}
    made.end()


def finding(circle: Circle, name: str) -> tuple[str, str, str]:
    """Code, message and hint of the first finding of the rejected file; the report for people says the same."""
    folder, report = circle.rejected(name)
    first = report["findings"][0]
    assert first["severity"] == "error"
    assert first["hint"]
    readable = unescaped((folder / "report.md").read_text())
    assert all(part in readable for part in unescaped(first["message"]).split(": "))  # what was found, and why it matters
    assert unescaped(first["hint"]) in readable
    told = (Path(name).name, "refused", first["id"])
    circle.wait(lambda: told in [(found["file"], found["verdict"], found["findings"][0]["id"]) for found in circle.status()["findings"]], "status names it")
    return first["id"], first["message"], first["hint"]


def unescaped(text: str) -> str:
    return text.replace("\\", "")


def test_broken_json(circle: Circle) -> None:
    rows = chat_rows(20)
    more = chat_rows(20, start=20)
    circle.drop(rows[:-5] + b"\n" + more, "broken.jsonl")
    code, message, _ = finding(circle, "broken.jsonl")
    folder, report = circle.rejected("broken.jsonl")
    assert (code, report["findings"][0]["lines"]) == ("J01", [20]), message
    assert (folder / "broken.jsonl").read_bytes() == rows[:-5] + b"\n" + more


def test_rows_of_another_schema(circle: Circle) -> None:
    circle.drop(COMPLETIONS, "completions.jsonl")
    _, message, hint = finding(circle, "completions.jsonl")
    assert "completion_v1" in message + hint


def test_an_unknown_schema(circle: Circle) -> None:
    circle.drop(chat_rows(20), "unknown.jsonl", sidecar={"schema_id": "chat_sft_v2"})
    _, message, hint = finding(circle, "unknown.jsonl")
    assert "'chat_sft_v2'" in message
    assert "chat_sft_v1" in message + hint


def test_a_sidecar_with_a_typo_names_the_nearest_key(circle: Circle) -> None:
    circle.drop(chat_rows(20), "typo.jsonl", sidecar={"learning_rat": 1e-4})
    code, message, hint = finding(circle, "typo.jsonl")
    assert code == "CONFIG_UNKNOWN_KEY"
    assert "'learning_rat'" in message
    assert "learning_rate" in hint
    assert (circle.rejected("typo.jsonl")[0] / "typo.job.json").exists(), "the sidecar is kept beside its file"


@pytest.mark.parametrize(("key", "value"), [("model_path", "/etc"), ("home", "/tmp/elsewhere"), ("deploy.targets", []), ("allow_stub", True)])
def test_a_sidecar_may_not_choose_base_path_or_target(circle: Circle, key: str, value: object) -> None:
    name = f"forbidden-{key}.jsonl"
    circle.drop(chat_rows(20), name, sidecar={key: value})
    code, message, hint = finding(circle, name)
    assert code == "SIDECAR_FORBIDDEN_KEY"
    assert f"'{key}'" in message
    assert "config.json" in hint


@pytest.mark.parametrize(("key", "value", "word"), [("method", "full", "a release is an adapter"), ("lora.use_dora", True, "vLLM")])
def test_what_no_server_takes_is_refused_before_it_is_trained(circle: Circle, key: str, value: object, word: str) -> None:
    name = f"unserved-{key}.jsonl"
    circle.drop(chat_rows(20), name, sidecar={key: value})
    code, message, hint = finding(circle, name)
    assert code == "METHOD_NOT_SERVED"
    assert word in message
    assert "lorad train" in hint


def test_a_sidecar_that_is_not_json(circle: Circle) -> None:
    circle.inbox.joinpath("torn.job.json").write_text('{"priority": ')
    circle.drop(chat_rows(20), "torn.jsonl")
    assert finding(circle, "torn.jsonl")[0] == "SIDECAR_SYNTAX"


def test_an_empty_file(circle: Circle) -> None:
    circle.drop(b"", "empty.jsonl")
    code, message, _ = finding(circle, "empty.jsonl")
    assert (code, message.partition(":")[0]) == ("F02", "the file has no bytes")


def test_a_directory(circle: Circle) -> None:
    (circle.inbox / "folder.jsonl").mkdir()
    (circle.inbox / "folder.jsonl" / "inner").write_text("kept")
    code, message, _ = finding(circle, "folder.jsonl")
    assert code == "F11"
    assert "is a folder" in message
    assert (circle.rejected("folder.jsonl")[0] / "folder.jsonl" / "inner").read_text() == "kept"


def test_a_fifo(circle: Circle) -> None:
    os.mkfifo(circle.inbox / "pipe.jsonl")
    code, message, _ = finding(circle, "pipe.jsonl")
    assert code == "F11"
    assert "is a FIFO" in message


def test_a_symlink_is_not_followed(circle: Circle) -> None:
    aim = circle.root / "aim.jsonl"
    aim.write_bytes(chat_rows(20))
    (circle.inbox / "link.jsonl").symlink_to(aim)
    code, message, _ = finding(circle, "link.jsonl")
    assert code == "F11"
    assert "symbolic link" in message
    assert (circle.rejected("link.jsonl")[0] / "link.jsonl").is_symlink()
    assert aim.read_bytes() == chat_rows(20)


def test_a_name_that_does_not_end_in_jsonl(circle: Circle) -> None:
    circle.drop(chat_rows(20), "rows.csv")
    code, message, hint = finding(circle, "rows.csv")
    assert code == "F11"
    assert "'rows.csv' does not end in .jsonl" in message
    assert ".jsonl" in hint


@pytest.mark.parametrize("name", ["Bad Persona", "good/Bad Domain", "good/fine/third"])
def test_a_folder_that_names_no_adapter(circle: Circle, name: str) -> None:
    aside = circle.root / f"aside-{Path(name).name}"
    aside.mkdir()
    (aside / "rows.jsonl").write_bytes(chat_rows(20))
    (circle.inbox / name).parent.mkdir(parents=True, exist_ok=True)
    aside.rename(circle.inbox / name)
    code, message, _ = finding(circle, name)
    assert code == "F11"
    assert repr(Path(name).name) in message
    assert (circle.rejected(name)[0] / Path(name).name / "rows.jsonl").read_bytes() == chat_rows(20)


def test_lorad_drop_waits_and_says_no(circle: Circle) -> None:
    broken = circle.root / "asked.jsonl"
    broken.write_bytes(b'{"messages": []}\n' * 20)
    done = circle.lorad("drop", str(broken), "--wait")
    assert done.returncode == 2
    assert "DROP_REFUSED" in done.stderr
    assert "report.md" in done.stderr


def test_a_file_without_read_permission(tmp_path: Path) -> None:
    made = Circle(tmp_path, validation=SETTLE)
    made.prefix = without_root_rights()
    try:
        made.start_daemon()
        secret = made.root / "secret.jsonl"
        secret.write_bytes(chat_rows(20))
        secret.chmod(0)
        secret.rename(made.inbox / "secret.jsonl")
        code, message, hint = finding(made, "secret.jsonl")
        assert code == "F11"
        assert "may not be read by the user that runs lorad" in message
        assert "readable for the user" in hint
        assert (made.rejected("secret.jsonl")[0] / "secret.jsonl").exists()
    finally:
        made.end()


def without_root_rights() -> tuple[str, ...]:
    """Words before a command that take root's right to read everything from it."""
    if os.geteuid() != 0:
        return ()
    if shutil.which("setpriv") is None:
        pytest.skip("root reads every file, and setpriv (util-linux), which would take that right away, is not here")
    return ("setpriv", "--bounding-set=-dac_override,-dac_read_search")
