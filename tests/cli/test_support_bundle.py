"""`lorad support-bundle`: how things stand, in one file; never a secret, never the text of a row."""

import io
import json
import tarfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import zstandard

from cli.masking import LEFT_OUT, Scrubber, secrets_in, without_secrets
from cli.support import support_bundle
from core.errors import UsageError
from store.paths import Home

MARK = "ZEBRAMARK"  # in everything that must not come out
SECRETS = {
    "urls.txt": f"tgram://{MARK}bottoken/12345\nmailto://user:{MARK}password@example.org\n",
    "hook.txt": f"{MARK}hmackey\n",
}
NOW = datetime.now(UTC).isoformat()


def bundled(path: Path) -> dict[str, str]:
    """Name -> text of every file in a bundle, nested archives refused."""
    with open(path, "rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as stream, tarfile.open(fileobj=io.BytesIO(stream.read())) as archive:
        found = {}
        for member in archive:
            inner = archive.extractfile(member)
            assert inner is not None
            assert member.mode == 0o600
            found[member.name.removeprefix("lorad-support/")] = inner.read().decode()
    assert not any(name.endswith((".zst", ".gz", ".safetensors", ".key")) for name in found)
    return found


def make(folder: Path, *words: str) -> dict[str, str]:
    out = folder / "bundle.tar.zst"
    out.unlink(missing_ok=True)
    support_bundle.main(["-o", str(out), "--config", str(folder / "config.json"), *words], standalone_mode=False)
    assert out.stat().st_mode & 0o777 == 0o600
    return bundled(out)


def put(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A home in which every file that may hold a marker holds it: rows, corrections, keys, alert addresses, words of people."""
    for name, content in SECRETS.items():
        put(tmp_path / name, content)
    alerts = {"urls_file": "urls.txt", "webhook": f"https://hooks.example.org/{MARK}hook/path?token={MARK}tok", "webhook_key_file": "hook.txt"}
    put(tmp_path / "config.json", {"home": "var", "backend": "stub", "alerts": alerts})
    home = Home(tmp_path / "var")
    home.prepare()
    put(home.keys / "release.key", f"-----BEGIN PRIVATE KEY-----\n{MARK}pemlines\n-----END PRIVATE KEY-----\n")
    row = json.dumps({"messages": [{"role": "user", "content": f"{MARK} question"}, {"role": "assistant", "content": f"{MARK} answer"}]})
    put(home.inbox / "waiting.jsonl", row)
    put(home.root / "feedback/default/main/pending/correction.json", {"text": f"{MARK} correction"})
    put(home.commands / "command-1.json", {"kind": "approve", "reason": f"{MARK} said a person"})
    finding = {"id": "T03", "severity": "error", "count": 2, "lines": [1, 2], "path": f"messages[0].{MARK}", "message": f"the row says {MARK}", "example": MARK}
    report = {"verdict": "refused", "level": "standard", "rows": 2, "name": MARK, "findings": [finding], "stats": {"languages": {MARK: 1}}}
    put(home.rejected / "drop-1" / "report.json", report)
    put(home.rejected / "drop-1" / "rows.jsonl", row)
    put(home.root / "drops/accepted/drop-2/rows/report.json", report | {"verdict": "accepted"})
    put(home.root / "drops/accepted/drop-2/original.job.json", {"notes": f"{MARK} is noted"})
    a_job(home, row)
    logs(home)
    return tmp_path


def a_job(home: Home, row: str) -> None:
    job, run = home.root / "jobs/failed/2026-05/job-1", home.runs("job-1") / "01-train"
    put(job / "job.json", {"id": "job-1", "adapter": "default/main", "file": "rows.jsonl"})
    put(job / "failed.json", {"at": NOW, "reason": f"ValueError: cannot parse {MARK} of a row", "code": "CHILD_CRASHED", "by": "lorad"})
    values = {"learning_rate": 0.1, "alerts": {"webhook": f"https://hooks.example.org/{MARK}hook"}}
    put(job / "config.json", {"values": values, "origins": {}, "job": {"notes": f"{MARK} is noted"}})
    put(run / "exit.json", {"code": 1, "reason": f"KeyError: '{MARK}'", "steps": 3})
    put(run / "spec.json", {"rows": [row]})
    put(run / "progress.jsonl", json.dumps({"at": NOW, "stage": "train", "step": 3, "loss": 1.5}) + "\n")
    put(run / "verdict.json", {"word": "hold", "legs": [{"name": "this drop", "passed": False}]})
    for name in ("samples/one.json", "probe.jsonl", "scores/gate-base.jsonl", "stack.txt"):
        put(run / name, row)


def logs(home: Home) -> None:
    own = "2026-05-01 10:00:00,000 INFO trainer.backends.peft: train: 70 rows, 0 over max_length\n"
    foreign = (
        f"2026-05-01 10:00:01,000 ERROR trainer: the child failed: ValueError: bad row {MARK}\n"
        f'Traceback (most recent call last):\n  File "/x/trainer/run.py", line 7, in report\n    raise ValueError("{MARK}")\n'
        f"ValueError: {MARK} is no number\n{MARK} printed by a library\n"
    )
    for path in (home.runs("job-1") / "01-train" / "log.txt", home.root / "gate.log", home.target("local") / "link.log"):
        put(path, own + foreign)
    journal = [
        {"at": NOW, "action": "job.failed", "job": "job-1", "reason": f"ValueError: {MARK}"},
        {"at": NOW, "action": "command.approve", "actor": f"{MARK}-ann", "reason": f"{MARK} says so", "message": f"{MARK} was told", "ok": True},
        {"at": NOW, "action": "wish", "target": "local", "reason": f'the row says "{MARK} is a longer passage of a row in quotes"'},
    ]
    put(home.journal, "".join(json.dumps(line) + "\n" for line in journal) + '{"torn": "' + MARK)
    put(home.status_log, json.dumps({"at": NOW, "action": "job.failed", "reason": f"could not post to https://hooks.example.org/{MARK}hook/path"}) + "\n")
    error = {"code": "STEP_FAILED", "what": f"ValueError: {MARK}", "hint": "look"}
    put(home.status, {"format": 1, "at": NOW, "daemon": {"pid": 1, "warnings": [], "started_at": NOW}, "error": error, "queue": {"failed": 1}})


def test_no_marker_of_rows_keys_addresses_or_people_comes_out(folder: Path) -> None:
    found = make(folder)
    leaks = {name: text[max(0, text.find(MARK) - 60) :][:140] for name, text in found.items() if MARK.lower() in text.lower() or MARK in name}
    assert leaks == {}


def test_what_helps_is_inside(folder: Path) -> None:
    found = make(folder)
    run = "jobs/job-1/01-train"
    assert {"README.txt", "versions.json", "doctor.json", "config.json", "status.json", "journal-tail.jsonl", "status-tail.jsonl"} <= set(found)
    assert f"{run}/verdict.json" in found
    assert json.loads(found["config.json"])["values"]["alerts"]["webhook"] == LEFT_OUT
    assert json.loads(found["config.json"])["values"]["alerts"]["urls_file"].endswith("urls.txt"), "where a secret lies is no secret"
    assert json.loads(found["jobs/job-1/failed.json"])["reason"] == "ValueError; its message stands in the log"
    assert json.loads(found["status.json"])["error"]["code"] == "STEP_FAILED"
    assert "at trainer/run.py:7 in report" in found[f"{run}/log.txt"]
    assert "train: 70 rows" in found[f"{run}/log.txt"]
    assert json.loads(found[f"{run}/progress-tail.jsonl"])["loss"] == 1.5
    report = json.loads(found["drops/drop-1.json"])
    assert report["findings"] == [{"id": "T03", "severity": "error", "count": 2, "lines": [1, 2]}]
    assert "lorad" in json.loads(found["versions.json"])["packages"]


def test_a_broken_config_gives_a_bundle_and_no_secret(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(path.read_text().replace('"backend": "stub"', '"backend": "stub", "alerts.webhook": 12, "bach_size": 3'))
    status = json.loads((folder / "var/status.json").read_text())
    status["error"]["what"] = f"alerts.webhook = 'https://hooks.example.org/{MARK}hook/path?token={MARK}tok' is wrong"
    put(folder / "var/status.json", status)
    found = make(folder)
    assert not any(MARK in text for text in found.values())
    assert "trouble" in json.loads(found["config.json"])


def test_a_damaged_home_still_gives_a_bundle(folder: Path) -> None:
    (folder / "var/status.json").write_text("{half")
    put(folder / "var/jobs/failed/2026-05/job-1/failed.json", "no json")
    found = make(folder)
    assert "JSONDecodeError" in found["status.txt"]
    assert "jobs/job-1/job.json" in found


def test_an_existing_file_is_never_written_over(folder: Path) -> None:
    out = folder / "mine.tar.zst"
    out.write_text("mine")
    with pytest.raises(UsageError):
        support_bundle.main(["-o", str(out), "--config", str(folder / "config.json")], standalone_mode=False)
    assert out.read_text() == "mine"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("posting to https://user:pass@example.org/x failed", f"posting to https://{LEFT_OUT} failed"),
        ("GET https://example.org/x?key=1234 failed", f"GET https://example.org/x?{LEFT_OUT} failed"),
        ("Authorization: Bearer abc.def", f"Authorization: {LEFT_OUT}"),
        ("it says 'a longer passage that came out of a row' there", f"it says {LEFT_OUT} there"),
        ("no file '/home/ann/rows.jsonl' there", "no file '/home/ann/rows.jsonl' there"),
        ("the key hunter22x was used", f"the key {LEFT_OUT} was used"),
    ],
)
def test_what_looks_like_a_secret_or_a_quote_is_left_out(text: str, left: str) -> None:
    assert Scrubber(["hunter22x"]).text(text) == left


def test_secrets_are_found_in_every_form_they_take_in_json() -> None:
    secret = 'pä"ss\\word1'
    scrub = Scrubber([secret])
    for text in (json.dumps({"a": secret}), json.dumps({"a": secret}, ensure_ascii=False), secret):
        assert LEFT_OUT in scrub.secrets(text)
        assert "ss" not in scrub.secrets(text).replace(LEFT_OUT, "")


def test_config_values_are_left_out_by_name_and_switches_stay() -> None:
    values: dict[str, Any] = {"alerts": {"webhook": "https://x", "webhook_key_file": "k", "cooldown_s": 3}, "api_token": "t", "max_new_tokens": 256}
    values |= {"list": [{"password": "p"}]}
    assert without_secrets(values) == {
        "alerts": {"webhook": LEFT_OUT, "webhook_key_file": "k", "cooldown_s": 3},
        "api_token": LEFT_OUT,
        "max_new_tokens": 256,
        "list": [{"password": LEFT_OUT}],
    }


def test_the_parts_of_an_address_are_secrets_too_and_its_host_is_not(tmp_path: Path) -> None:
    found = secrets_in([], ["https://ann:hunter22@hooks.example.org/services/T0000000/Babcdefgh?key=qwertyuiop"])
    assert {"hunter22", "T0000000", "Babcdefgh", "qwertyuiop", "services/T0000000/Babcdefgh"} <= found
    assert "hooks.example.org" not in found


def test_short_lines_of_key_files_are_not_taken_for_secrets(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("ab\n# a comment\nlong-enough-key\n")
    assert secrets_in([tmp_path / "keys", tmp_path / "none"]) == {"long-enough-key"}


def test_a_wrong_value_of_a_config_that_the_daemon_refused_is_not_quoted(folder: Path) -> None:
    what = f"alerts.webhook = ['https://hooks.example.org/{MARK}elder'] (config.json): Input should be a valid string"
    home = Home(folder / "var")
    with open(home.journal, "a") as file:
        file.write("\n" + json.dumps({"at": NOW, "action": "config.refused", "code": "CONFIG_VALUE", "reason": what}) + "\n")
    put(home.status, {"at": NOW, "error": {"at": NOW, "code": "CONFIG_VALUE", "what": what, "hint": "correct it"}})
    found = make(folder)
    assert "config.refused" in found["journal-tail.jsonl"]
    assert "CONFIG_VALUE" in found["status.json"]
    assert not [name for name, text in found.items() if MARK in text]
