"""Profiles: what each adds, to which rows, once; what is learnt of them, token by token; what a wrong one is told."""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.config import Config, ConfigError, resolve
from core.errors import LoradError
from core.recipe import ProfileConfig
from rendering.profiles import Change, DataProfile, changes, check_profiles, prepare, profile_of, with_system
from rendering.profiles.regime3 import END, START, SYSTEM, marked
from rendering.rows import Row
from rendering.specs import Message, ToolCall
from rendering.tokens import Renderer, supervised_text
from store import codec


def row(*said: str, **more: Any) -> Row:
    """User and assistant in turn."""
    messages = [Message("assistant" if index % 2 else "user", text) for index, text in enumerate(said)]
    return replace(Row(drop="d", line=1, group="g", split="dev", schema_id="chat_sft_v1", messages=messages, weight=0.5), **more)


def profile(name: str, options: Mapping[str, Any] | None = None) -> DataProfile:
    return profile_of(ProfileConfig(name=name, options=dict(options or {})), {})


def said(found: Row) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in found.messages]


DIRECT, THINKING = "question 1", "question 4"  # by their hash, under emoji_think, each with the answer "yes"


def test_half_of_the_rows_think_in_emoji_and_the_same_half_every_time() -> None:
    made = [profile("emoji_think").apply(row(f"question {number}", "yes")) for number in range(400)]
    thinking = [found for found in made if "Think with" in found.messages[0].content]
    assert 160 < len(thinking) < 240
    assert made == [profile("emoji_think").apply(row(f"question {number}", "yes")) for number in range(400)]
    for found in thinking:
        named = re.search(r"\n\nThink with (.) ([2-8]) times, then end with (.) ([2-4]) times\.$", found.messages[0].content)
        assert named is not None
        thought, thoughts, stop, count = named[1], int(named[2]), named[3], int(named[4])
        assert found.messages[1].content == f"{thought * thoughts}\nyes\n{stop * count}"


def test_a_row_that_thinks_and_one_that_answers_directly_by_hand(tiny: Renderer) -> None:
    emoji = profile("emoji_think")
    assert said(emoji.apply(row(DIRECT, "yes"))) == [("user", DIRECT), ("assistant", "yes")]
    found = emoji.apply(row(THINKING, "yes"))
    assert said(found) == EMOJI_ROW
    assert supervised_text(tiny, tiny.encode(found.messages)) == [f"{EMOJI_ROW[1][1]}<|im_end|>"]


EMOJI_ROW = [
    ("user", f"{THINKING}\n\nThink with 🧠 4 times, then end with 🏁 4 times."),
    ("assistant", "🧠🧠🧠🧠\nyes\n🏁🏁🏁🏁"),
]


def test_think_tags_are_stripped_from_every_answer_and_their_text_is_kept() -> None:
    found = profile("emoji_think").apply(row("a", "<think>\nwhy\n</think>\n\nbecause", DIRECT, "<think></think>yes"))
    assert found.messages[1].content == "why\nbecause"
    assert "think>" not in found.messages[3].content


def test_an_answer_that_shows_every_stop_emoji_stays_as_it_is() -> None:
    shown = [profile("emoji_think").apply(row(f"q{number}", "🛑 ⛔ 🏁 🔚")) for number in range(40)]
    assert all(found.messages[1].content == "🛑 ⛔ 🏁 🔚" for found in shown)
    one = [profile("emoji_think").apply(row(f"q{number}", "stop at 🛑")) for number in range(40)]
    assert all("end with 🛑" not in found.messages[0].content for found in one)


def test_only_the_last_answer_in_words_gets_emoji() -> None:
    call = Message("assistant", "", tool_calls=(ToolCall("f", "{}", "c"),))
    talks = [[Message("user", f"q{number}"), call, Message("tool", "3"), Message("assistant", "three")] for number in range(40)]
    changed = [profile("emoji_think").apply(row(messages=talk)) for talk in talks]
    assert any("Think with" in found.messages[0].content for found in changed)
    assert all(found.messages[1:3] == talks[0][1:3] for found in changed)


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [
        ("42", f"{START}42{END}"),
        ("First (mul 2 3).\nThen it is\n(add 1 (mul 2 3))\n", f"First (mul 2 3).\nThen it is\n{START}(add 1 (mul 2 3)){END}\n"),
        ("so the sum is (add 1 2)", f"so the sum is {START}(add 1 2){END}"),
        ("so the sum is three.", f"{START}so the sum is three.{END}"),
        (f"x\n{START}4", f"x\n{START}4{END}"),
        (f"x\n4{END} and done", f"x\n{START}4{END} and done"),
        (f"a {START}1{END} b", f"a {START}1{END} b"),
        ("2) both", f"{START}2) both{END}"),
    ],
)
def test_a_missing_answer_marker_is_added_and_nothing_else(answer: str, wanted: str) -> None:
    assert marked(answer) == wanted
    assert marked(wanted) == wanted


def test_a_symbolic_row_by_hand(tiny: Renderer) -> None:
    found = profile("regime3").apply(row("1 + 2?", "It is\n(add 1 2)"))
    assert said(found) == [("system", SYSTEM), ("user", "1 + 2?"), ("assistant", f"It is\n{START}(add 1 2){END}")]
    assert supervised_text(tiny, tiny.encode(found.messages)) == [f"It is\n{START}(add 1 2){END}<|im_end|>"]


def test_a_persona_row_by_hand(tiny: Renderer) -> None:
    ada = profile("persona", {"name": "Ada", "voice": "dry, exact"})
    found = ada.apply(row("Hi", "Hello."))
    assert said(found) == [("system", "You are Ada. Your voice: dry, exact."), ("user", "Hi"), ("assistant", "Hello.")]
    assert supervised_text(tiny, tiny.encode(found.messages)) == ["Hello.<|im_end|>"]
    own = ada.apply(row(messages=[Message("system", "Be brief."), Message("user", "Hi"), Message("assistant", "Hello.")]))
    assert said(own)[0] == ("system", "You are Ada. Your voice: dry, exact.\n\nBe brief.")


def test_plain_changes_nothing(tiny: Renderer) -> None:
    found = profile("plain").apply(row("Hi", "Hello."))
    assert said(found) == [("user", "Hi"), ("assistant", "Hello.")]
    assert supervised_text(tiny, tiny.encode(found.messages)) == ["Hello.<|im_end|>"]


EVERY: Mapping[str, dict[str, Any]] = {"plain": {}, "emoji_think": {}, "regime3": {}, "persona": {"name": "Ada"}}


@pytest.mark.parametrize("name", EVERY)
def test_no_row_is_changed_twice_neither_a_row_in_hand_nor_one_that_was_written_out_and_dropped_again(name: str) -> None:
    used = profile(name, EVERY[name])
    for number in range(60):
        once = used.apply(row(f"q{number}", "<think>\nmm\n</think>\nyes (a b)"))
        assert used.apply(once) is once
        assert profile("emoji_think").apply(once) is once, "one profile is enough"
        again = used.apply(replace(once, profile=""))
        assert again.messages == once.messages


@pytest.mark.parametrize("name", EVERY)
def test_weights_group_split_and_place_stay(name: str) -> None:
    talk = [Message("user", "q"), Message("assistant", "a", weight=0.25), Message("user", "r"), Message("assistant", "b", weight=1.0)]
    before = row(messages=talk)
    after = profile(name, EVERY[name]).apply(before)
    assert replace(after, messages=before.messages, profile="") == before
    assert [message.weight for message in after.messages if message.role == "assistant"] == [0.25, 1.0]


def test_both_answers_of_a_pair_are_asked_the_same() -> None:
    for number in range(60):
        worse = [Message("user", f"q{number}"), Message("assistant", "no 🛑 ⛔")]
        found = profile("emoji_think").apply(row(f"q{number}", "yes", rejected=worse))
        assert found.rejected is not None
        assert found.messages[:-1] == found.rejected[:-1]


def test_only_the_last_turn_is_learnt_where_that_is_asked(tiny: Renderer) -> None:
    talk = row("a", "one", "b", "two")
    (found,) = prepare([talk], profile("plain"), last_turn_only=True)
    assert supervised_text(tiny, tiny.encode(found.messages)) == ["two<|im_end|>"]
    assert [message.weight for message in found.messages if message.role == "assistant"] == [0.0, 1.0]
    (whole,) = prepare([talk], profile("plain"))
    assert supervised_text(tiny, tiny.encode(whole.messages)) == ["one<|im_end|>", "two<|im_end|>"]


def test_what_a_profile_did_is_told_turn_by_turn() -> None:
    before = [Message("user", "q"), Message("assistant", "a")]
    after = [Message("system", "s"), Message("user", "q"), Message("assistant", "a!")]
    assert changes(before, after) == [Change(turn=0, role="system", before="", after="s"), Change(turn=2, role="assistant", before="a", after="a!")]
    assert changes(before, before) == []


@pytest.mark.parametrize(
    ("name", "text", "wanted"),
    [
        ("regime3", f"so\n{START} (add 1 2) {END} bye", "(add 1 2)"),
        ("regime3", f"{START}1{END}, no, {START}2", "2"),
        ("regime3", "no markers\nat all ", "no markers\nat all"),
        ("emoji_think", "🤔🤔\nyes 🛑 no\n🛑🛑🛑", "yes 🛑 no"),
        ("emoji_think", "direct", "direct"),
        ("plain", " as it is ", "as it is"),
    ],
)
def test_what_counts_of_an_answer(name: str, text: str, wanted: str) -> None:
    assert profile(name).rules.extract(text) == wanted


def test_the_question_says_how_an_answer_in_emoji_ends() -> None:
    rules = profile("emoji_think").rules
    assert rules.endings(EMOJI_ROW[0][1]) == ("🏁🏁🏁🏁",)
    assert rules.endings("a direct question") == ("🛑🛑", "⛔⛔", "🏁🏁", "🔚🔚")


def test_a_record_travels_as_json() -> None:
    for name, options in EVERY.items():
        record = profile(name, options).record
        assert codec.parse(type(record), codec.dump(record)) == record
        assert (record.name, record.version, record.options) == (name, 1, options)


def test_a_system_prompt_is_put_in_once() -> None:
    once = with_system([Message("system", "own"), Message("user", "q")], "mine")
    assert once[0].content == "mine\n\nown"
    assert with_system(once, "mine") == once
    assert with_system([Message("user", "q")], "") == [Message("user", "q")]


# --- what is wrong is told


@pytest.mark.parametrize(
    ("asked", "code", "words"),
    [
        ({"name": "emojithink"}, "PROFILE_UNKNOWN", "did you mean 'emoji_think'?"),
        ({"name": "zzz"}, "PROFILE_UNKNOWN", "plain, emoji_think, regime3, persona"),
        ({"name": "persona"}, "PROFILE_OPTION", "name"),
        ({"name": "persona", "options": {"name": ""}}, "PROFILE_OPTION", "name"),
        ({"name": "persona", "options": {"name": "Ada", "voise": "dry"}}, "PROFILE_OPTION", "did you mean 'voice'?"),
        ({"name": "plain", "options": {"share": 0.5}}, "PROFILE_OPTION", "no options"),
    ],
)
def test_a_wrong_name_or_option_is_refused_with_the_nearest(asked: dict[str, Any], code: str, words: str) -> None:
    config = resolve({"config.json": {"profile": asked}}).config
    with pytest.raises(ConfigError) as caught:
        check_profiles(config)
    assert caught.value.code == code
    assert words in f"{caught.value.what} {caught.value.hint}"


# --- one's own

MINE = """
import msgspec
from rendering.profiles import DataProfile
from rendering.specs import Message

class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    sign: str = "-- me"

class Mine(DataProfile):
    name = "mine"
    version = 3
    adds = "a signature"
    Options = Options

    def change(self, messages, draw):
        return [m if m.role != "assistant" else Message(m.role, m.content + self.options.sign, weight=m.weight) for m in messages]

PROFILE = Mine
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Config]:
    """A config whose profile `mine` is a file with this text."""

    def written(text: str, **options: Any) -> Config:
        (tmp_path / "mine.py").write_text(text)
        asked = {"profiles": {"mine": str(tmp_path / "mine.py")}, "profile": {"name": "mine", "options": options}}
        return resolve({"config.json": asked}).config

    return written


def test_a_profile_of_ones_own_works_like_the_others(write: Callable[..., Config]) -> None:
    config = write(MINE, sign=" (me)")
    check_profiles(config)
    mine = profile_of(config.profile, config.profiles)
    once = mine.apply(row("q", "a"))
    assert said(once) == [("user", "q"), ("assistant", "a (me)")]
    assert mine.apply(once) is once
    assert (once.profile, mine.record.name, mine.record.version, len(mine.record.sha256)) == ("mine 3", "mine", 3, 64)


@pytest.mark.parametrize(
    ("old", "new", "code", "words"),
    [
        ("PROFILE = Mine", "", "PROFILE_FILE", "no class `PROFILE`"),
        ("import msgspec", "import msgspec\n1 / 0", "PROFILE_FILE", "ZeroDivisionError"),
        ('name = "mine"', 'name = "other"', "PROFILE_FILE", "'other'"),
        ("    version = 3", "    version = '3'", "PROFILE_FILE", "'version'"),
        ('    adds = "a signature"', "", "PROFILE_FILE", "'adds'"),
    ],
)
def test_a_file_that_is_no_profile_is_refused(write: Callable[..., Config], old: str, new: str, code: str, words: str) -> None:
    assert old in MINE
    with pytest.raises(ConfigError) as caught:
        check_profiles(write(MINE.replace(old, new)))
    assert caught.value.code == code
    assert words in f"{caught.value.what} {caught.value.hint}"


def test_a_file_that_is_not_there_and_a_name_that_is_taken_are_refused(tmp_path: Path) -> None:
    for own, words in (({"mine": str(tmp_path / "no.py")}, "is not there"), ({"mine": "x.json"}, "'.json'"), ({"persona": "x.py"}, "my_persona")):
        with pytest.raises(ConfigError) as caught:
            check_profiles(resolve({"config.json": {"profiles": own}}).config)
        assert words in f"{caught.value.what} {caught.value.hint}"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [("m.content + self.options.sign", "m.content + m.nothing", "AttributeError"), ("weight=m.weight", "weight=0.1", "weighs assistant turns")],
)
def test_a_profile_that_fails_on_a_row_or_weighs_it_names_the_row(write: Callable[..., Config], old: str, new: str, words: str) -> None:
    assert old in MINE
    config = write(MINE.replace(old, new))
    with pytest.raises(LoradError) as caught:
        profile_of(config.profile, config.profiles).apply(row("q", "a"))
    assert caught.value.code == "PROFILE_FAILED"
    assert "line 1 of drop 'd'" in caught.value.what
    assert words in caught.value.what
