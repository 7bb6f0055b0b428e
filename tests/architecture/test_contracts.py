"""The contracts on paper are those of the source: made pages, docstrings, type hints, file formats, names for the outside."""

import dataclasses
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

import configtable  # noqa: E402
import contracts  # noqa: E402
from contracts import Source  # noqa: E402

from store.paths import Box, Home  # noqa: E402

FORMATS = (ROOT / "docs" / "formats.md").read_text()
INDEX = FORMATS.partition("## Module to formats")[2]
RECORD = re.compile(r"`((?:core|store|daemon|serving|ranking|trainer)(?:\.[a-z_]+)+\.[A-Z]\w+)`(?:, format \d| \([^)]*\)| a line)?:")


@pytest.fixture(scope="module")
def source() -> Source:
    return Source()


def _fresh(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout.strip()


# ---------------------------------------------------------------- the made pages


def test_the_made_pages_are_up_to_date(source: Source) -> None:
    assert [str(path.relative_to(ROOT)) for path in contracts.stale(contracts.pages(source))] == [], "run scripts/contracts.py"


def test_the_table_of_config_keys_is_that_of_the_schema() -> None:
    text = configtable.GUIDE.read_text()
    assert configtable.page(text) == text, "run scripts/configtable.py"
    assert "| `feedback.waiting_cap` | `100000` |" in text


def test_a_page_that_somebody_edited_or_left_over_is_seen(source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = {tmp_path / "one.md": "one\n", tmp_path / "two.md": "two\n"}
    monkeypatch.setattr(contracts, "API", tmp_path)
    (tmp_path / "one.md").write_text("one, but edited\n")
    (tmp_path / "gone.md").write_text("of a package that is gone\n")
    assert contracts.stale(made) == [tmp_path / "one.md", tmp_path / "two.md", tmp_path / "gone.md"]


@pytest.mark.parametrize(
    ("name", "effects"),
    [
        ("store.durable.replace_file", ["writes files"]),
        ("store.seals.is_sealed", ["reads files"]),
        ("store.locks.is_locked", ["reads files", "takes locks"]),
        ("core.reconcile.decide", []),
    ],
)
def test_side_effects_are_found(source: Source, name: str, effects: list[str]) -> None:
    assert source.effects(source.name(name)) == effects


def test_side_effects_are_followed_through_objects_that_are_handed_in(source: Source) -> None:
    expected = {"writes files", "reads files", "starts processes", "sends signals", "takes locks", "reads the clock"}
    assert expected <= set(source.effects(source.name("daemon.main.Daemon.run")))


def test_deciding_has_no_side_effects(source: Source) -> None:
    core = [name for module in source.modules if module.name.split(".")[0] == "core" for name in module.public]
    assert {f"{name.module.name}.{name.path}": source.effects(name) for name in core if source.effects(name)} == {}


# ---------------------------------------------------------------- docstrings and type hints


def test_every_module_and_every_public_name_says_what_you_get(source: Source) -> None:
    names = [f"{module.name}.{name.path}" for module in source.modules for name in module.public if not name.text]
    assert names == []
    assert [module.name for module in source.modules if not module.text] == []


def test_every_public_function_has_full_type_hints(source: Source) -> None:
    functions = [(module.name, name) for module in source.modules for name in module.public if not name.is_class]
    bare = [f"{module}.{name.path}" for module, name in functions if name.returns == "?" or any(one.annotation is None for one in name.arguments)]
    assert bare == []


# ---------------------------------------------------------------- formats


def test_every_module_that_touches_files_names_its_formats(source: Source) -> None:
    named = set(re.findall(r"`([a-z_]+(?:\.[a-z_]+)+)`", "".join(line.split("|")[1] for line in INDEX.splitlines() if line.startswith("| `"))))
    touching = {module.name for module in source.modules if source.touches_files(module)}
    assert sorted(touching - named) == [], "name them at the end of docs/formats.md"
    assert sorted(named - touching) == [], "they touch no file any more: take them out of docs/formats.md"


def _places(kind: type) -> set[str]:
    """Where things lie, relative to the root: the paths that take no argument."""
    names = [name for name, value in vars(kind).items() if isinstance(value, property)]
    return {str(getattr(kind(Path("/")), name).relative_to("/")) for name in names}


def test_every_place_under_home_and_box_is_on_paper() -> None:
    tails = {place: place.rpartition("/")[2] for place in _places(Home) | _places(Box)}
    assert sorted(place for place, tail in tails.items() if tail not in FORMATS) == []
    under_home = (ROOT / "docs" / "user-guide.md").read_text().partition("## Files under home")[2]
    assert sorted(place for place in _places(Home) if place.partition("/")[0] not in under_home) == []


def _described() -> list[tuple[str, str]]:
    """(full name of a record, the words about it up to the next one, or the end of the paragraph or cell)."""
    marks = list(RECORD.finditer(FORMATS))
    ends = [mark.start() for mark in marks[1:]] + [len(FORMATS)]
    return [(mark[1], re.split(r"\n\n| \|\n", FORMATS[mark.end() : end])[0].replace("\n", " ")) for mark, end in zip(marks, ends, strict=True)]


@pytest.mark.parametrize(("record", "words"), _described(), ids=[record for record, _ in _described()])
def test_the_fields_on_paper_are_those_of_the_record(record: str, words: str) -> None:
    module, _, name = record.rpartition(".")
    fields = [field.name for field in dataclasses.fields(getattr(importlib.import_module(module), name))]
    assert [field for field in fields if f"`{field}`" not in words] == []
    assert sorted(set(re.findall(r"(?:· |^ )`([a-z_0-9]+)`", words)) - set(fields)) == []


def test_the_records_that_lie_on_disk_are_described() -> None:
    described = {record for record, _ in _described()}
    for module, kinds in {
        "core.records": ("JobCard", "Queued", "Training", "Ranking", "Held", "Releasing", "Ended", "Claim", "Settling", "Gating", "Accepted", "Deep"),
        "core.wire": ("Desired", "Wish", "Active", "AliasState", "Activation", "Capacity", "Observed", "Manifest"),
        "core.tasks": ("TrainTask", "ScoreTask", "RankTask", "PackTask", "EmbedTask", "ExitNote"),
        "core.gate": ("GateSpec", "GateResult"),
        "core.commands": ("Command", "Answer"),
    }.items():
        assert [kind for kind in kinds if f"{module}.{kind}" not in described] == []


# ---------------------------------------------------------------- names for the outside

OUTSIDE = {
    "validation": ("SpecValidator", "DataValidator", "DATASET_SPECS", "DataRefusedError"),
    "trainer": ("TrainerConfig", "ConfigLoader", "TrainerEngine"),
    "daemon": ("PIDManager", "FileWatcher", "SnapshotService", "BackgroundWorker"),
}
CONTRACT = ("Args:", "Returns:", "Raises:", "Side effects:")
PROMISED = [(package, name) for package, names in OUTSIDE.items() for name in names if name not in ("DATASET_SPECS", "DataRefusedError", "TrainerConfig")]


@pytest.mark.parametrize(("package", "name"), [(package, name) for package, names in OUTSIDE.items() for name in names])
def test_the_names_for_the_outside_are_there(package: str, name: str) -> None:
    module = importlib.import_module(package)
    assert name in module.__all__
    assert getattr(module, name) is not None


@pytest.mark.parametrize(("package", "name"), PROMISED)
def test_the_classes_for_the_outside_say_their_whole_contract(package: str, name: str) -> None:
    text = inspect.getdoc(getattr(importlib.import_module(package), name)) or ""
    assert [part for part in CONTRACT if part not in text] == []


def test_importing_the_packages_alone_loads_nothing_heavy() -> None:
    heavy = ("torch", "transformers", "pydantic", "watchdog", "watchfiles", "psutil", "apscheduler", "apprise", "daemon.worker", "daemon.watcher")
    assert _fresh(f"import daemon, trainer, sys; print([name for name in {heavy!r} if name in sys.modules])") == "[]"


def test_a_name_that_a_package_does_not_have_is_an_ordinary_error() -> None:
    for package in ("daemon", "trainer"):
        with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
            _ = importlib.import_module(package).Nonsense
