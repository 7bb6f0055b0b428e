"""Suites: what lorad ships, what one's own may be, and what is told of one that is wrong."""

import json
from pathlib import Path

import pytest

from core.errors import ConfigError
from rendering.suites import Choices, Written, check_suites, file_name, list_suites, of_names, read_suite, shipped, value_of
from rendering.suites.shelf import ON_CPU

SUBJECTS = {"arithmetic", "instructions", "json", "languages", "memory", "refusals", "tools"}


def suite_file(folder: Path, *lines: object, name: str = "mine") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.jsonl"
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def test_every_subject_comes_once_by_likelihood_and_once_written_with_200_items() -> None:
    suites = {name: read_suite(path) for name, path in shipped().items()}
    assert set(suites) == SUBJECTS | {f"{subject}-written" for subject in SUBJECTS}
    for name, suite in suites.items():
        assert suite.is_generated == name.endswith("-written")
        assert len(suite.items) >= (200 if suite.is_generated else 20), name
        assert suite.about


def test_the_shipped_files_are_what_their_maker_makes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from bench import suite_items

    monkeypatch.setattr(suite_items, "HERE", tmp_path)
    for subject in suite_items.SUBJECTS:
        suite_items.write(subject)
    for name, path in shipped().items():
        assert (tmp_path / f"{name}.jsonl").read_bytes() == path.read_bytes(), f"run `python -m bench.suite_items`: {name} differs"


def test_the_right_choice_of_an_instruction_is_the_only_one_that_passes_its_checks() -> None:
    """The two forms of a subject are made of the same parts; so the checks must tell the choices apart."""
    from random import Random

    import msgspec

    from bench import suite_items
    from rendering.suites.checks import AnyCheck

    made = suite_items.instructions(Random(5))  # noqa: S311 - made-up answers
    for _ in range(60):
        asked, choices, checks = next(made)
        item = Written(id="x", group="x", messages=(), checks=tuple(msgspec.convert(check, AnyCheck) for check in checks))
        values = [value_of(item, str(choice)) for choice in choices]
        assert values[0] == 1.0, (asked, choices)
        assert max(values[1:]) < 1.0, (asked, choices)


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        ({"kind": "number", "value": 12}, "So it is 12.", "It is 13"),
        ({"kind": "equals", "texts": ["Paris"]}, "paris.", "Paris, France"),
        ({"kind": "contains", "texts": ["rome"]}, "It is Rome!", "Milan"),
        ({"kind": "excludes", "texts": ["sorry"]}, "Here you are", "I am SORRY"),
        ({"kind": "json", "value": {"a": 1}}, 'Here: {"a": 1.0}', '{"a": true}'),
        ({"kind": "json", "value": None}, "null", "nothing"),
        ({"kind": "tool", "name": "f", "arguments": {"x": "1"}}, '<tool_call>{"name": "f", "arguments": {"x": "1"}}</tool_call>', "f(1)"),
        ({"kind": "option", "letter": "B"}, "(B)", "A"),
        ({"kind": "words", "least": 2, "most": 3}, "two words", "one"),
        ({"kind": "lines", "least": 2}, "a\n\nb", "a b"),
        ({"kind": "case", "upper": True}, "YES 1", "123"),
        ({"kind": "matches", "pattern": "^a+$"}, "aaa", "ab"),
        ({"kind": "starts", "text": "So"}, " So it is", "so it is"),
        ({"kind": "ends", "text": "end"}, "the end\n", "the end."),
        ({"kind": "refusal", "wanted": False}, "Press it flat.", ""),
    ],
)
def test_a_check_holds_for_a_good_answer_and_not_for_a_bad_one(tmp_path: Path, check: object, good: str, bad: str) -> None:
    (item,) = read_suite(suite_file(tmp_path, {"id": "1", "prompt": "?", "check": [check]})).items
    assert isinstance(item, Written)
    assert (value_of(item, good), value_of(item, bad)) == (1.0, 0.0)


def test_the_value_is_the_share_of_the_checks_that_hold(tmp_path: Path) -> None:
    checks = [{"kind": "contains", "texts": ["a"]}, {"kind": "contains", "texts": ["z"]}]
    (item,) = read_suite(suite_file(tmp_path, {"id": "1", "prompt": "?", "check": checks})).items
    assert isinstance(item, Written)
    assert value_of(item, "abc") == 0.5


def test_every_fault_of_a_file_is_told_by_its_line(tmp_path: Path) -> None:
    good = {"id": "1", "prompt": "?", "choices": ["a", "b"], "right": 0}
    path = suite_file(
        tmp_path,
        {"suite": "mine", "about": "x"},
        good,
        good,
        "{torn",
        good | {"id": "2", "right": 2},
        good | {"id": "3", "colour": "red"},
        {"id": "4", "prompt": "?"},
        {"id": "5", "prompt": "?", "check": [{"kind": "matches", "pattern": "("}]},
        {"id": "6", "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "choices": ["a", "b"], "right": 0},
        {"id": "7", "prompt": "?", "choices": ["a", "a"], "right": 0},
        {"id": "8", "prompt": "?", "check": [{"kind": "guess"}]},
    )
    with pytest.raises(ConfigError) as told:
        read_suite(path)
    words = told.value.what
    for number, part in ((3, "'1' stands in line 2"), (4, ""), (5, "`right`"), (6, "colour"), (7, "either `choices`"), (8, "regular expression")):
        assert f"line {number}: " in words
        assert part in words
    for number, part in ((9, "the answer must be the model's"), (10, "the same"), (11, "guess")):
        assert f"line {number}: " in words
        assert part in words
    assert "line 2:" not in words


def test_an_empty_file_is_no_suite_and_a_missing_one_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="it holds no item"):
        read_suite(suite_file(tmp_path, name="empty"))
    with pytest.raises(ConfigError, match="cannot be read"):
        read_suite(tmp_path / "gone.jsonl")


def test_auto_is_what_the_machine_can_afford_and_names_are_ones_own_or_lm_evals(tmp_path: Path) -> None:
    suite_file(tmp_path, {"id": "1", "prompt": "?", "choices": ["a", "b"], "right": 0})
    assert {suite.name for suite in of_names(["auto"], tmp_path, on_gpu=False)} == set(ON_CPU)
    assert {suite.name for suite in of_names(["auto"], tmp_path, on_gpu=True)} == set(shipped())
    mine, other = of_names(["mine", "lm_eval:arc_easy", "mine"], tmp_path, on_gpu=False)
    assert (mine.name, mine.path) == ("mine", str(tmp_path / "mine.jsonl"))
    assert (other.name, other.path) == ("lm_eval:arc_easy", "")
    assert "/" not in file_name(other.name, "base")
    assert ":" not in file_name(other.name, "base")
    assert of_names([], tmp_path, on_gpu=True) == ()


def test_a_name_that_nobody_knows_is_told_with_the_nearest_unless_the_job_began_with_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="aritmetic") as told:
        of_names(["aritmetic"], tmp_path, on_gpu=False)
    assert "arithmetic" in told.value.hint
    (gone,) = of_names(["gone"], tmp_path, on_gpu=False, strict=False)
    assert gone.sha256 == ""


def test_a_config_is_refused_for_an_own_suite_that_is_damaged_or_has_a_shipped_name(tmp_path: Path) -> None:
    suite_file(tmp_path, "{torn")
    check_suites(["auto"], tmp_path)
    with pytest.raises(ConfigError, match="line 1"):
        check_suites(["mine"], tmp_path)
    suite_file(tmp_path, {"id": "1", "prompt": "?", "choices": ["a", "b"], "right": 0}, name="json")
    with pytest.raises(ConfigError, match="name of a suite that lorad ships"):
        check_suites(["json"], tmp_path)
    assert {name for name, _, found in list_suites(tmp_path) if isinstance(found, ConfigError)} == {"mine"}


def test_items_are_asked_with_their_tools_and_may_share_a_group(tmp_path: Path) -> None:
    call = {"role": "assistant", "content": "", "tool_calls": [{"name": "f", "arguments": "{}"}]}
    line = {"id": "1", "prompt": "?", "group": "g", "tools": [{"type": "function", "function": {"name": "f"}}], "choices": [call, "no"], "right": 0}
    (item,) = read_suite(suite_file(tmp_path, line)).items
    assert isinstance(item, Choices)
    assert (item.group, item.choices[0].tool_calls[0].name, item.tools[0]["type"]) == ("g", "f", "function")
