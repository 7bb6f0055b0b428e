"""The vault through the public door: marks, an import, an encrypted release, the way back, on real processes with the stub."""

import json

from circle import Circle, chat_rows, read_json, read_lines
from click.testing import CliRunner, Result

from cli.main import lorad
from core.config import Config
from core.errors import LoradError
from store.encryption import ENCRYPTED, WEIGHTS
from trainer.backends.stub import write_stub_adapter


def call(circle: Circle, *words: str) -> Result:
    """One command, in this process: a fresh interpreter for each would take most of the test's time."""
    return CliRunner().invoke(lorad, [*words, "--config", str(circle.config)], standalone_mode=False)


def say(circle: Circle, *words: str) -> str:
    """A command that is obeyed. Returns what it says."""
    done = call(circle, *words)
    assert done.exception is None, repr(done.exception)
    assert not done.return_value
    return done.stdout


def refusal(circle: Circle, *words: str) -> tuple[str, int]:
    """(code, exit status) of a command that is refused."""
    error = call(circle, *words).exception
    assert isinstance(error, LoradError)
    return error.code, error.exit_status


def test_the_vault_from_a_first_release_to_an_import_that_serves(circle: Circle) -> None:
    key = circle.root / "vault.key"
    key.write_text("ab" * 32)
    key.chmod(0o600)
    circle.configure(deploy={"encryption_key": "vault.key"})
    circle.start_both()
    circle.drop(chat_rows(), "first.jsonl")
    first = circle.facts(circle.wait_state("released"))["release"]
    _is_encrypted_everywhere(circle, first)
    _can_be_marked_and_found(circle, first)
    _is_validated(circle)
    _serves_an_import_once_a_person_says_so(circle, first)


def _is_encrypted_everywhere(circle: Circle, release: str) -> None:
    folder = circle.home / "adapters" / "default" / "main" / "v1"
    assert (folder / ENCRYPTED).exists()
    assert not (folder / WEIGHTS).exists()
    assert not list(circle.box.rglob(WEIGHTS)), "the box holds no plain weights"
    assert circle.ask().headers["x-lorad-release"] == release


def _can_be_marked_and_found(circle: Circle, release: str) -> None:
    say(circle, "adapters", "tag", "default/main", "v1", "stable", "eu")
    say(circle, "adapters", "note", "default/main", "v1", "the one that support asked for")
    say(circle, "adapters", "label", "default/main", "latest", "v1.0.0")
    say(circle, "adapters", "expire", "default/main", "v1", "30d")
    assert refusal(circle, "adapters", "label", "default/main", "v1", "1.0") == ("LABEL_FORM", 2)
    (row,) = json.loads(say(circle, "adapters", "list", "--tag", "stable", "--format", "json"))
    assert (row["tags"], row["label"], row["encrypted"], row["origin"]) == (["stable", "eu"], "v1.0.0", True, "trained")
    assert "the one that" in say(circle, "adapters", "show", "default/main")
    assert "the one that" not in (circle.home / "journal.jsonl").read_text(), "a note is nobody's business but the vault's"
    assert "nothing differs" in say(circle, "adapters", "diff", "default/main@v1.0.0", release[:12])


def _is_validated(circle: Circle) -> None:
    file = circle.root / "test.jsonl"
    file.write_bytes(chat_rows(20, start=5000))
    done = call(circle, "adapters", "validate", "default/main@v1.0.0", "--test-set", str(file), "--min-quality", "0.99", "--format", "json")
    told = json.loads(done.stdout)
    assert (done.return_value, told["passed"], told["rows"]) == (2, False, 20)
    assert told["interval"][0] <= told["quality"] <= told["interval"][1]


def _serves_an_import_once_a_person_says_so(circle: Circle, live: str) -> None:
    source = circle.root / "theirs"
    source.mkdir()
    write_stub_adapter(source, Config(), 9)
    (source / "README.md").write_text("made elsewhere")
    assert "without a verdict" in say(circle, "adapters", "import", str(source), "--as", "default/main", "--label", "v1.3.0")
    manifest = read_json(circle.home / "adapters" / "default" / "main" / "v2" / "manifest.json")
    assert (manifest["origin"], manifest["job"], manifest["verdict_sha256"], manifest["drops"]) == ("imported", "", "", [])
    assert circle.ask().headers["x-lorad-release"] == live, "an import is never live by itself"
    assert not list((circle.home / "tmp").glob("import-*")), "nothing half-made stays"
    assert sorted(path.name for path in source.iterdir()) == ["README.md", "adapter_config.json", "adapter_model.safetensors"]
    (source / "evil.pkl").write_bytes(b"cos")
    assert refusal(circle, "adapters", "import", str(source), "--as", "default/main") == ("IMPORT_PICKLE", 2)

    say(circle, "adapters", "rollback", "default/main", "--to", "v1.3.0")
    (row,) = json.loads(say(circle, "adapters", "list", "--format", "json"))
    assert (row["version"], row["label"], row["live"], row["origin"]) == (2, "v1.3.0", True, "imported")
    assert circle.ask().headers["x-lorad-release"] == row["release"]
    copy = circle.home / "adapters" / "default" / "main" / "v1"
    say(circle, "adapters", "import", str(copy), "--as", "shared/tone")  # a release folder of ours, encrypted: its key is at hand
    say(circle, "adapters", "rollback", "shared/tone", "--to", "latest")
    (shared,) = json.loads(say(circle, "adapters", "show", "shared/tone", "--format", "json"))
    assert circle.ask(model="shared/tone").headers["x-lorad-release"] == shared["release"]
    assert [line["source"] for line in read_lines(circle.home / "journal.jsonl") if line["action"] == "release.imported"] == ["theirs", "v1"]
