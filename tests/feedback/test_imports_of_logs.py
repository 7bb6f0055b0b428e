"""Exports of other systems, in the forms that they write, become signals; what nobody judged or nobody can read is counted and left out."""

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from feedbackhome import home_with
from said import ADAPTER, NOON

from core.errors import UsageError
from core.signals import Signal, SignalKind
from feedback.importers.files import records_of
from feedback.importers.port import time_of, verdict_of
from feedback.importers.reading import AGAIN, IMPORTERS, chore_signals
from store.paths import Home
from store.signallog import signals_in

POSITIVE, MISTAKE, CORRECTION, IMPORT = SignalKind.POSITIVE, SignalKind.MISTAKE, SignalKind.CORRECTION, SignalKind.IMPORT


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return home_with(tmp_path / "home", [])


def taken(home: Home, content: Any, name: str = "export.json", **words: Any) -> tuple[list[Signal], dict[str, Any]]:
    """What the chore makes of one file, or of several by name."""
    files = content if isinstance(content, list) and content and isinstance(content[0], Path) else [home.root / name]
    if files != content:
        text = content if isinstance(content, str) else json.dumps(content)
        files[0].write_text(text)
    out = home.root / "signals.part"
    spec = {"files": [str(file) for file in files], "out": str(out), "adapter": ADAPTER, "consent": True, "weight": 1.0, "at": NOON.isoformat(), **words}
    done = chore_signals(home, spec)
    found = list(signals_in(out))
    assert done["signals"] == len(found)
    return found, done


# ---------------------------------------------------------------- Open WebUI


def webui(rating: Any, answer: str = "Bob.", **data: Any) -> dict[str, Any]:
    messages = {
        "m1": {"id": "m1", "parentId": None, "childrenIds": ["m2", "m9"], "role": "user", "content": "Who?"},
        "m2": {"id": "m2", "parentId": "m1", "role": "assistant", "content": answer, "model": "acme"},
        "m9": {"id": "m9", "parentId": "m1", "role": "assistant", "content": "another branch"},
        "m3": {"id": "m3", "parentId": "m2", "role": "user", "content": "Sure?"},
    }
    chat = {"id": "c", "chat": {"title": "t", "history": {"messages": messages, "currentId": "m3"}}}
    return {
        "id": f"f-{rating}-{answer}",
        "user_id": "user-7",
        "version": 0,
        "type": "rating",
        "data": {"rating": rating, "model_id": "acme", "sibling_model_ids": None, "reason": "other", "comment": "", **data},
        "meta": {"message_id": "m2", "chat_id": "c", "message_index": 1},
        "snapshot": {"chat": chat},
        "created_at": 1767700800,
        "updated_at": 1767704400,
    }


def test_open_webui_thumbs_become_signals_of_the_rated_message(home: Home) -> None:
    (up, down), done = taken(home, [webui(1), webui(-1, "Eve.", comment="that was last year"), webui(None, "x")])
    assert done["format"] == "openwebui"
    assert done["left_out"] == {"nobody judged it": 1}
    assert (up.kind, up.correct_output, up.wrong_output) == (POSITIVE, "Bob.", "")
    assert (down.kind, down.wrong_output, down.correct_output, down.context) == (MISTAKE, "Eve.", "", "that was last year")
    assert [dict(turn) for turn in up.input] == [{"role": "user", "content": "Who?"}]
    assert up.at.isoformat() == "2026-01-06T13:00:00+00:00"
    assert up.metadata == {"model": "acme", "reason": "other"}


def test_a_users_name_becomes_a_hash_that_is_the_same_each_time_and_only_in_this_home(home: Home, tmp_path: Path) -> None:
    first, second = taken(home, [webui(1)])[0][0], taken(home, [webui(-1)])[0][0]
    assert first.user == second.user != ""
    assert "user-7" not in json.dumps(first.user)
    assert taken(home_with(tmp_path / "other", []), [webui(1)])[0][0].user != first.user


def test_an_older_export_with_the_messages_as_a_list_is_read_too(home: Home) -> None:
    record = webui("1")
    history = record["snapshot"]["chat"]["chat"]["history"]
    record["snapshot"] = {"chat": {"id": "c"}, "history": {"messages": list(history["messages"].values())}}
    assert taken(home, [record])[0][0].correct_output == "Bob."


def test_a_message_that_is_its_own_ancestor_ends_all_the_same(home: Home) -> None:
    record = webui(1)
    record["snapshot"]["chat"]["chat"]["history"]["messages"]["m1"]["parentId"] = "m2"
    found, _ = taken(home, [record])
    assert len(found) == 1


# ---------------------------------------------------------------- Langfuse

ASKED = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who?"}]


def trace(**rest: Any) -> dict[str, Any]:
    said = {"role": "assistant", "content": "Bob."}
    return {"id": "t1", "timestamp": "2026-01-06T10:00:00.000Z", "name": "chat", "userId": "u", "sessionId": "s", "input": ASKED, "output": said, **rest}


def test_langfuse_scores_that_are_named_like_feedback_judge_and_others_do_not(home: Home) -> None:
    rows = [
        trace(id="a", **{"user-feedback": [1], "toxicity": [1]}),
        trace(id="b", scores=[{"name": "user-feedback", "value": 0, "dataType": "BOOLEAN", "comment": "no"}]),
        trace(id="c", scores=[{"name": "helpfulness-judge", "value": 1, "dataType": "NUMERIC"}]),
        trace(id="d", scores=[{"name": "thumbs", "stringValue": "thumbs_down", "value": 0, "dataType": "CATEGORICAL"}], output="Other."),
        trace(id="e", output=None, **{"user-feedback": [1]}),
    ]
    found, done = taken(home, "".join(json.dumps(row) + "\n" for row in rows), "export.jsonl")
    assert done["format"] == "langfuse"
    assert [one.kind for one in found] == [POSITIVE, MISTAKE, MISTAKE]
    assert done["left_out"] == {"nobody judged it": 1, "has no answer in words": 1}
    assert found[1].context == "no"
    by_name, _ = taken(home, rows, score="helpfulness-judge")
    assert [one.response for one in by_name] == ["c"]
    assert [one.kind for one in taken(home, [trace(quality=[0, 1])], score="quality")[0]] == [POSITIVE]


def test_a_corrected_output_of_langfuse_is_a_correction(home: Home) -> None:
    score = {"id": "s", "name": "output", "dataType": "CORRECTION", "value": "Alice.", "traceId": "t1"}
    (one,), _ = taken(home, trace(scores=[score]))
    assert (one.kind, one.wrong_output, one.correct_output) == (CORRECTION, "Bob.", "Alice.")
    assert [turn["role"] for turn in one.input] == ["system", "user"]


def test_scores_of_observations_within_a_trace_are_about_these(home: Home) -> None:
    inner = {"id": "o1", "type": "GENERATION", "startTime": "2026-01-06T10:00:00Z", "input": {"messages": ASKED}, "output": {"content": "Bob."}}
    scores = [{"name": "user-feedback", "value": 1, "dataType": "NUMERIC", "observationId": "o1"}]
    (one,), _ = taken(home, trace(input={"task": 3}, observations=[inner], scores=scores))
    assert (one.response, one.correct_output) == ("o1", "Bob.")


def test_the_two_files_of_the_blob_storage_export_are_one_import(home: Home) -> None:
    observation = {"id": "o1", "trace_id": "t1", "start_time": "2026-01-06 10:00:00.000000", "input": json.dumps(ASKED), "output": '{"content": "Bob."}'}
    score = {"id": "s1", "name": "user_feedback", "value": 0, "data_type": "NUMERIC", "trace_id": "t1", "observation_id": "o1"}
    for name, record in (("observations.jsonl", observation), ("scores.jsonl", score)):
        (home.root / name).write_text(json.dumps(record) + "\n")
    (one,), _ = taken(home, [home.root / "observations.jsonl", home.root / "scores.jsonl"])
    assert (one.kind, one.wrong_output) == (MISTAKE, "Bob.")


# ---------------------------------------------------------------- OpenAI


def chat(id: str = "c1") -> dict[str, Any]:
    def node(name: str, parent: str | None, role: str, text: str, **meta: Any) -> dict[str, Any]:
        message = {"id": name, "author": {"role": role}, "content": {"content_type": "text", "parts": [text]}, "metadata": meta}
        return {"id": name, "message": message, "parent": parent, "children": []}

    nodes = [
        {"id": "root", "message": None, "parent": None, "children": []},
        node("sys", "root", "system", "hidden", is_visually_hidden_from_conversation=True),
        node("u1", "sys", "user", "Who?"),
        node("a1", "u1", "assistant", "Let me look."),
        node("t1", "a1", "tool", "{}"),
        node("a2", "t1", "assistant", "Bob."),
        node("u2", "a2", "user", "Sure?"),
        node("a3", "u2", "assistant", "Quite."),
    ]
    return {"id": id, "title": "t", "update_time": 1767700800.5, "mapping": {one["id"]: one for one in nodes}, "current_node": "a3", "default_model_slug": "m"}


def thumb(message: str, rating: str) -> dict[str, Any]:
    return {"message_id": message, "conversation_id": "c1", "user_id": "u", "rating": rating, "content": '{"tags": ["not-helpful"]}'}


def test_the_zip_of_a_chatgpt_export_gives_its_thumbs_with_the_way_to_each_answer(home: Home) -> None:
    file = home.root / "export.zip"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("conversations-000.json", json.dumps([chat()]))
        archive.writestr("user.json", json.dumps({"email": "a@example.com"}))
        archive.writestr("message_feedback.json", json.dumps([thumb("a2", "thumbsDown"), thumb("a3", "thumbs_up"), thumb("gone", "thumbsUp")]))
    (down, up), done = taken(home, [file])
    assert done["format"] == "openai"
    assert done["left_out"] == {"its message is in none of the conversations": 1}
    assert (down.kind, down.wrong_output, down.context) == (MISTAKE, "Let me look.\n\nBob.", "not-helpful")
    assert [turn["content"] for turn in down.input] == ["Who?"]
    assert [turn["role"] for turn in up.input] == ["user", "assistant", "user"]


def test_conversations_that_nobody_rated_are_counted_and_left_out(home: Home) -> None:
    found, done = taken(home, [chat(), chat("c2")])
    assert (found, done["left_out"]) == ([], {"nobody judged it": 2})


def test_preference_pairs_are_corrections_and_logged_answers_are_proposals(home: Home) -> None:
    pair = {
        "input": {"messages": ASKED},
        "preferred_output": [{"role": "assistant", "content": "Alice."}],
        "non_preferred_output": [{"role": "assistant", "content": "Bob."}],
    }
    response = {"id": "chatcmpl-1", "created": 1767700800, "model": "m", "choices": [{"message": {"role": "assistant", "content": "Carol."}}]}
    rows = [
        pair,
        {"request": {"messages": ASKED}, "response": response},
        {"custom_id": "r", "body": {"messages": ASKED}, "response": {"status_code": 200, "body": {**response, "choices": [{"message": {"content": "Dave."}}]}}},
        {"messages": [*ASKED, {"role": "assistant", "content": "Eve."}]},
        {"messages": ASKED},
    ]
    found, done = taken(home, "\n".join(json.dumps(row) for row in rows), "log.jsonl")
    assert [(one.kind, one.is_proposal, one.correct_output) for one in found] == [
        (CORRECTION, False, "Alice."),
        (IMPORT, True, "Carol."),
        (IMPORT, True, "Dave."),
        (IMPORT, True, "Eve."),
    ]
    assert found[0].wrong_output == "Bob."
    assert done["left_out"] == {"has no answer in words": 1}


# ---------------------------------------------------------------- lorad's own form, and files of any kind


def test_lorads_own_lines_say_each_kind(home: Home) -> None:
    rows = [
        {"kind": "correction", "messages": ASKED, "answer": "Bob.", "correction": "Alice.", "user": "u", "metadata": {"ticket": 7}},
        {"kind": "positive", "messages": [*ASKED, {"role": "assistant", "content": "Alice!"}], "time": "2026-01-05T08:00:00+01:00"},
        {"kind": "mistake", "messages": ASKED, "answer": "Nonsense."},
        {"kind": "import", "messages": ASKED, "answer": "As it is."},
        {"kind": "correction", "messages": ASKED, "answer": "Bob."},
        {"kind": "correction", "messages": ASKED, "answer": "Bob.", "correction": "Alice.", "user": "u"},
    ]
    found, done = taken(home, "\n".join(json.dumps(row) for row in rows), "own.jsonl")
    assert [(one.kind, one.wrong_output, one.correct_output) for one in found] == [
        (CORRECTION, "Bob.", "Alice."),
        (POSITIVE, "", "Alice!"),
        (MISTAKE, "Nonsense.", ""),
        (IMPORT, "", "As it is."),
    ]
    assert done["left_out"] == {"has no answer in words": 1, AGAIN: 1}
    assert found[0].metadata == {"ticket": "7"}
    assert found[1].at.isoformat() == "2026-01-05T08:00:00+01:00"


def test_the_same_export_twice_gives_the_same_signals(home: Home) -> None:
    assert [one.id for one in taken(home, [webui(1), webui(-1, "Eve.")])[0]] == [one.id for one in taken(home, [webui(1), webui(-1, "Eve.")])[0]]


@pytest.mark.parametrize(
    ("content", "code"),
    [("<html>no export</html>", "IMPORT_FORMAT"), ("[1, 2]", "IMPORT_FORMAT"), ("[" * 100_000, "IMPORT_FORMAT"), ('[{"a": 1}]', "IMPORT_FORMAT")],
)
def test_what_is_no_export_is_refused_and_nothing_is_written(home: Home, content: str, code: str) -> None:
    with pytest.raises(UsageError) as caught:
        taken(home, content)
    assert caught.value.code == code
    assert not (home.root / "signals.part").exists()


def test_a_damaged_line_costs_only_itself(home: Home) -> None:
    row = json.dumps({"kind": "mistake", "messages": ASKED, "answer": "Nonsense."})
    found, _ = taken(home, f'{row}\n{{"kind": "mis\n', "own.jsonl")
    assert len(found) == 1


def test_an_archive_that_unpacks_to_more_than_is_read_is_refused(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    file = home.root / "bomb.zip"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("conversations.json", " " * 100_000)
    monkeypatch.setattr("feedback.importers.files.MOST_BYTES", 50_000)
    with pytest.raises(UsageError) as caught:
        records_of([file])
    assert caught.value.code == "IMPORT_SIZE"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("../../conversations.txt", "[]")
    with pytest.raises(UsageError) as caught:
        records_of([file])
    assert caught.value.code == "IMPORT_FORMAT"


def test_ratings_and_times_in_all_their_spellings() -> None:
    assert {verdict_of(word) for word in (1, 1.0, True, "1", "thumbsUp", "THUMBS_UP", "thumbs-up", "like")} == {POSITIVE}
    assert {verdict_of(word) for word in (-1, 0, False, "-1", "thumbsDown", "bad")} == {MISTAKE}
    assert [verdict_of(word) for word in (None, "", 3, 0.5, "maybe")] == [None] * 5
    assert time_of(1767700800000) == time_of(1767700800) == time_of("2026-01-06T12:00:00Z") == time_of("2026-01-06 12:00:00.000000")
    assert [time_of(value) for value in (None, True, "soon", 1e300)] == [None] * 4


def test_every_importer_has_the_name_that_the_command_line_offers() -> None:
    from cli.signalling import FORMATS

    assert tuple(IMPORTERS) == FORMATS
