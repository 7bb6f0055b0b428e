"""Imports beside the daemon's work: the number that a job took meanwhile is not given twice, and a failure leaves nothing."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from core.commands import Answer, Command, CommandKind
from core.config import Config
from core.wire import Manifest
from daemon.importing import Imports
from daemon.worker import Chore, ChoreDone
from store.bases import STUB_BASE
from store.codec import read
from store.commands import put_command
from store.keys import ensure_keys
from store.paths import Home
from store.wire import write_manifest

ADAPTER = "support/tone"
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


class Bench:
    """An index that knows versions, a worker that remembers what it was asked, a command that waits."""

    def __init__(self, root: Path) -> None:
        self.home = Home(root)
        self.home.prepare()
        ensure_keys(self.home.keys)
        self.highest, self.chores, self.told = 0, [], []
        self.on_done: Callable[[ChoreDone], None]
        index: Any = SimpleNamespace(home=self.home, base_sha256=STUB_BASE, config=Config(), releases={}, highest_versions=lambda: {ADAPTER: self.highest})
        self.index = index
        self.imports = Imports(index, self, lambda now, action, **fields: self.told.append(action))  # type: ignore[arg-type]
        details = {"folder": str(root / "staged"), "sha256": "a" * 64, "source": "theirs.zip"}
        self.command = Command(id="command-1", kind=CommandKind.IMPORT, adapter=ADAPTER, details=details, made_at=NOW, expires_at=NOW)
        put_command(self.home, self.command)

    def hear(self, kind: str, listener: Callable[[ChoreDone], None]) -> None:
        self.on_done = listener

    def submit(self, chore: Chore) -> bool:
        self.chores.append(chore)
        return True

    def pack(self) -> str:
        """What the chore would leave for the newest task."""
        task = self.chores[-1].spec["task"]
        folder = Path(self.chores[-1].spec["folder"]) / "release"
        folder.mkdir(parents=True, exist_ok=True)
        hashes = {"base_sha256": "stub", "tokenizer_sha256": "stub", "template_sha256": "stub", "checkpoint_sha256": "a" * 64, "verdict_sha256": ""}
        manifest = Manifest(
            format=1,
            adapter=ADAPTER,
            version=task["version"],
            job="",
            backend="stub",
            parent=None,
            drops=(),
            created_at=NOW,
            files={},
            origin="imported",
            **hashes,
        )
        return write_manifest(folder, manifest, self.home.keys)

    def end(self, *, ok: bool = True, **result: str) -> None:
        self.on_done(ChoreDone(kind="import", key="command-1", ok=ok, message="" if ok else "it is spoilt", result=result))

    @property
    def answer(self) -> Answer:
        return read(Answer, self.home.commands / "command-1.answer.json")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "home")


def test_a_job_that_takes_the_number_meanwhile_keeps_it(bench: Bench) -> None:
    bench.imports.begin(bench.command, 4)
    bench.pack()
    bench.highest = 4
    bench.end(release="0" * 64)
    assert [chore.spec["task"]["version"] for chore in bench.chores] == [4, 5]
    assert not (bench.home.commands / "command-1.answer.json").exists()
    release = bench.pack()
    bench.end(release=release)
    assert (bench.answer.ok, bench.answer.made) == (True, release)
    assert [(one.version, one.manifest.origin) for one in bench.index.releases.values()] == [(5, "imported")]
    assert bench.told == ["release.imported"]


def test_the_task_takes_nothing_from_the_wish_but_the_staged_folder(bench: Bench) -> None:
    bench.imports.begin(bench.command, 1)
    task = bench.chores[0].spec["task"]
    assert (task["base_sha256"], task["keys"], task["verdict"], task["origin"]) == (STUB_BASE, str(bench.home.keys), "", "imported")
    assert task["checkpoint"].startswith(bench.command.details["folder"])


def test_a_failed_import_is_answered_and_leaves_nothing(bench: Bench) -> None:
    bench.imports.begin(bench.command, 1)
    bench.pack()
    bench.end(ok=False, code="ADAPTER_UNSERVABLE")
    assert (bench.answer.ok, bench.answer.code, bench.answer.message) == (False, "ADAPTER_UNSERVABLE", "it is spoilt")
    assert not list(bench.home.tmp.iterdir())
    assert not list((bench.home.root / "adapters").rglob("*"))


def test_without_a_base_nothing_is_begun(bench: Bench) -> None:
    bench.index.base_sha256 = None
    bench.imports.begin(bench.command, 1)
    assert not bench.chores
    assert bench.answer.code == "BASE_MISSING"
