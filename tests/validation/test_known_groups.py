"""The gate child remembers the conversations of earlier drops: each is read once, and none gets two splits."""

import json
from pathlib import Path

import pytest

from core.errors import LoradError
from core.gate import GateSpec
from rendering.rows import IndexRow
from validation import knowngroups
from validation.knowngroups import Acquaintances, drops_of

GROUPS = [f"{number:064x}"[::-1] for number in range(20_000)]


class Told:
    """The daemon's file, and the accepted drops that it names."""

    def __init__(self, root: Path) -> None:
        self.root, self.file = root / "accepted", root / "known-1.jsonl"
        self.file.touch()
        self.num_drops = 0

    def accept(self, *rows: tuple[str, str]) -> str:
        self.num_drops += 1
        drop = f"drop-{self.num_drops:06d}"
        folder = self.root / drop / "rows"
        folder.mkdir(parents=True)
        (folder / "index.jsonl").write_text("".join(json.dumps({"line": 1, "group": group, "split": split}) + "\n" for group, split in rows))
        with open(self.file, "a") as file:
            file.write(json.dumps([drop, "chat_sft_v1", "0" * 64]) + "\n")
        return drop

    def spec(self, drop: str = "drop-9", **fields: object) -> GateSpec:
        given = {"adapter": "a/main", "file": "", "schema_id": "chat_sft_v1", "level": "quick", "max_row_bytes": 1, "max_file_bytes": 1}
        known = {"known_file": str(self.file), "known_bytes": self.file.stat().st_size, "known_root": str(self.root)}
        return GateSpec(drop=drop, **(given | known | fields))  # type: ignore[arg-type]


@pytest.fixture
def told(tmp_path: Path) -> Told:
    return Told(tmp_path)


def row(group: str, split: str = "train") -> IndexRow:
    return IndexRow(line=1, group=group, split=split)  # type: ignore[arg-type]


def test_what_earlier_drops_hold_is_found_and_nothing_else(told: Told) -> None:
    told.accept((GROUPS[0], "gate"), (GROUPS[1], "train"))
    told.accept((GROUPS[2], "dev"))
    found = Acquaintances().splits_of(told.spec(), GROUPS[:5])
    assert found == {GROUPS[0]: "gate", GROUPS[1]: "train", GROUPS[2]: "dev"}


def test_a_drop_is_read_once_in_the_life_of_the_child(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    real = knowngroups.read_index
    monkeypatch.setattr(knowngroups, "read_index", lambda path: read.append(path.parts[-3]) or real(path))  # type: ignore[func-returns-value]
    met = Acquaintances()
    for number in range(10):
        told.accept((GROUPS[number], "dev"))
        assert met.splits_of(told.spec(), GROUPS[:20]) == dict.fromkeys(GROUPS[: number + 1], "dev")
    assert read == [f"drop-{number:06d}" for number in range(1, 11)]
    assert Acquaintances().splits_of(told.spec(), GROUPS[:20]) == dict.fromkeys(GROUPS[:10], "dev"), "a new child is told all again"


def test_only_as_much_of_the_file_counts_as_the_spec_says(told: Told) -> None:
    told.accept((GROUPS[0], "dev"))
    spec = told.spec()
    told.accept((GROUPS[1], "dev"))
    assert Acquaintances().splits_of(spec, GROUPS[:2]) == {GROUPS[0]: "dev"}


def test_many_groups_are_found_when_they_were_sorted_into_the_small_form(told: Told) -> None:
    splits = [("train", "dev", "gate")[number % 3] for number in range(len(GROUPS))]
    for begin in range(0, len(GROUPS), 2_500):
        told.accept(*zip(GROUPS[begin : begin + 2_500], splits[begin : begin + 2_500], strict=True))
    met = Acquaintances()
    assert met.splits_of(told.spec(), GROUPS) == dict(zip(GROUPS, splits, strict=True))
    assert met.splits_of(told.spec(), ["f" * 64]) == {}


def test_a_drop_that_was_just_accepted_here_counts_for_those_that_name_it(told: Told) -> None:
    met = Acquaintances()
    met.keep("drop-1", [row(GROUPS[0], "gate")])
    assert met.splits_of(told.spec(after=("drop-1",)), GROUPS[:1]) == {GROUPS[0]: "gate"}
    assert met.splits_of(told.spec(), GROUPS[:1]) == {}, "whether it will be accepted is not known"
    met.forget("drop-1")
    assert met.splits_of(told.spec(after=("drop-1",)), GROUPS[:1]) == {}, "it is asked about again"


def test_the_level_deep_is_told_each_drop_and_a_second_check_those_before_its_own(told: Told) -> None:
    names = [told.accept((GROUPS[number], "dev")) for number in range(3)]
    assert [Path(drop.folder).parent.name for drop in drops_of(told.spec())] == names
    assert [Path(drop.folder).parent.name for drop in drops_of(told.spec(names[1], accepted="x"))] == names[:1]


def test_a_file_that_is_gone_is_a_trouble_of_the_moment(told: Told) -> None:
    told.accept((GROUPS[0], "dev"))
    spec = told.spec()
    told.file.unlink()
    with pytest.raises(LoradError) as caught:
        Acquaintances().splits_of(spec, GROUPS[:1])
    assert caught.value.code == "IO_ERROR"
