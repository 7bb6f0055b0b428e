"""Personal data is found by its pattern and check digits; reserved values and numbers of other kinds pass."""

import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace

import pytest
from gate_cases import GOOD, Check, chat, found, turns

from validation import Report
from validation.checks import names, personal
from validation.patterns import Patterns

FOUND = {
    "write to john.smith@gmail.com today": "mail",
    "mailto:a.keller@web.de": "mail",
    "<b.o'neil-42@mail.uni-bonn.de>": "mail",
    "call +49 151 98765432 at noon": "telephone",
    "+1 415-495-6500": "telephone",
    "+1 (415) 495-6500.": "telephone",
    "at (415) 495-6500 or": "telephone",
    "415-495-6500": "telephone",
    "415.495.6500": "telephone",
    "1-415-495-6500": "telephone",
    "+44 (0)20 7123 4567": "telephone",
    "+33 6 12 34 56 78": "telephone",
    "+8613812345678": "telephone",
    "phone: 030 4433221": "telephone",
    "Telefon 0171 2345678": "telephone",
    "please call 020 7123 4567": "telephone",
    "IBAN: DE86 5005 0000 0098 7654 03": "IBAN",
    "FR1420041010050500013M02606": "IBAN",
    "GB82 WEST 1234 5698 7654 32": "IBAN",
    "4539 1488 0343 6467": "card number",
    "card 4539148803436467, exp 09/29": "card number",
    "5425-2334-3010-9903": "card number",
    "SSN 536-90-4399": "social security",
    "her social security number is 536 90 4399": "social security",
    "536-90-4399": "social security",
}

SILENT = [
    "jane@example.com, joe@example.org, jim@mail.example.net, x@y.test, a@b.invalid, root@localhost, me@site.example",
    "user@domain.com, you@yourcompany.com, info@acme.io, support@shop.de, no-reply@news.fr, foo@bar.baz",
    "git@github.com:lorad/lorad.git and https://bob@host.com/x and postgres://bob:pw@db.acme.com/x",
    "logo@2x.png, lodash@4.17.21, @app.route, a @ b, user@host, me@home.local, follow @jane@social.coop",
    "555-0123, +1-202-555-0143, (212) 555-0199, 415-555-0100",
    "1-800-356-9377, (888) 280-4331, 123-456-7890, 555-555-5555, 911-456-7890",
    "020 7946 0958, +44 20 7946 0018, call 07700 900123, tel 01632 960123, +61 491 570 156, phone (02) 5550 1234, +33 1 99 00 12 34",
    "4242 4242 4242 4242, 4111-1111-1111-1111, card 4000056655665556, card 378282246310005, card 5555555555554444",
    "the number 4539148803436467 came up",
    "card 4539148803436468; 1234 5678 9012 3456",
    "SSN 000-12-3456, 666-12-3456, 912-12-3456, 078-05-1120, 536-00-4399, 536-90-0000",
    "192.0.2.1, 198.51.100.7, 203.0.113.9, 10.0.0.1, 127.0.0.1, host 8.8.8.8, from 1.1.1.1",
    "48 + 24 = 72; 1000 - 200 - 3000 = 5; 3.14159265358979; +12345678; 5,123,456,789",
    "order 402-7754321-1234567, order number 415-495-6500, invoice no. 536-90-4399, part 212-555-0100",
    "ISBN 978-0-306-40615-7, ISBN 0-306-40615-2, 1700000000123, 2023-10-12 14:33:07, 12/10/2023",
    "40.712776, -74.005974; 51.5074 0.1278; version 4.15.2.1; v1.2.3.4; section 3.1.2.4",
    "call on 2023-10-12 at 10:30, call 100 times, text 5 of 12345, reach 1,000,000,000 people",
    "DE12345678901234567890, DE00 5005 0000 0098 7654 03, AB12CDEF34567890, uuid 123e4567-e89b-12d3-a456-426614174000",
    "in the years 2019-2020 and 1998-2004-2010, 200-300-4000, 1-2-3-4-5-6-7-8-9-10",
    "👨‍👩‍👧‍👦 שלום עולם 2024 年 10 月 12 日 13812345678",
]


def mine(report: Report) -> list[tuple[str, str, int]]:
    return [(finding.severity.value, finding.message, finding.count) for finding in report.findings if finding.id == "D08"]


@pytest.mark.parametrize("text", FOUND)
def test_personal_data_is_a_warning(check: Check, text: str) -> None:
    finding = found(check([*GOOD, chat(answer=f"Here: {text}")], level="deep"), "D08")
    assert (finding.severity, finding.lines, finding.path, finding.count) == ("warning", (13,), "$.messages[1].content", 1)
    assert FOUND[text] in finding.message
    assert "--repair redact" in finding.fix
    assert text not in finding.message


@pytest.mark.parametrize("text", SILENT, ids=range(len(SILENT)))
def test_reserved_values_and_other_numbers_pass(check: Check, text: str) -> None:
    assert not mine(check([*GOOD, chat(text, text)], level="deep"))


def test_without_hyperscan_the_same_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hyperscan", None)
    plain = Patterns(personal.PATTERNS)
    for text in [*FOUND, *SILENT]:
        assert plain.in_text(text) == personal.compiled().in_text(text)


def test_keys_of_metadata_tell_what_a_number_is(check: Check) -> None:
    rows: list[object] = [*GOOD, chat(metadata={"phone_number": "0304433221"}), chat(metadata={"order": "0304433221"})]
    assert found(check(rows, level="deep"), "D08").lines == (13,)


def test_several_kinds_are_told_apart(check: Check) -> None:
    rows: list[object] = [*GOOD, chat(answer="a.keller@web.de or 415-495-6500"), chat(answer="b.keller@web.de")]
    assert sorted((message.split(" in ")[0], count) for _, message, count in mine(check(rows, level="deep"))) == [
        ("a mail address", 2),
        ("a telephone number", 1),
    ]


def test_an_address_of_a_machine_is_a_note(check: Check) -> None:
    ((severity, message, _),) = mine(check([*GOOD, chat(answer="a login from 93.184.216.34 failed")], level="deep"))
    assert severity == "info"
    assert "network address" in message


def test_many_card_numbers_refuse_the_file(check: Check) -> None:
    cards = ["4539 1488 0343 6467", "5425-2334-3010-9903", "4716 2210 5188 5662"]
    rows: list[object] = [chat("My card?", f"It is {card}.") for card in cards]
    report = check([*GOOD, *rows], level="deep")
    error = next(finding for finding in report.findings if finding.id == "D08" and finding.severity == "error")
    assert (error.count, error.lines) == (3, (13, 14, 15))
    assert "3 different" in error.message
    twice = check([*GOOD, rows[0], rows[0], rows[0], rows[1]], level="deep")
    assert [severity for severity, _, _ in mine(twice)] == ["warning"]


def test_accounts_from_manuals_never_refuse(check: Check) -> None:
    manual = ["DE89370400440532013000", "GB29NWBK60161331926819", "FR1420041010050500013M02606", "NL91ABNA0417164300"]
    assert {severity for severity, _, _ in mine(check([*GOOD, *(chat(answer=account) for account in manual)], level="deep"))} == {"warning"}


def test_numbers_that_only_look_like_social_security_never_refuse(check: Check) -> None:
    rows: list[object] = [chat(answer=f"53{number}-90-4399") for number in range(5)]
    assert {severity for severity, _, _ in mine(check([*GOOD, *rows], level="deep"))} == {"warning"}


# --- D09


def recognise(text: str) -> Iterator[tuple[str, str]]:
    """A recogniser that knows a few names."""
    for name in ("Erika Mustermann", "Natalia", "Isaac Newton", "JOHN Smith of the second floor"):
        if name in text:
            yield "PERSON", name
    if "Baker Street" in text:
        yield "LOCATION", "Baker Street"
    if "London" in text:
        yield "LOCATION", "London"


@pytest.fixture
def recogniser(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "_absent", lambda: "")
    monkeypatch.setattr(names, "installed_recogniser", lambda: recognise)


@pytest.mark.usefixtures("recogniser")
def test_full_names_are_told(check: Check) -> None:
    report = check([*GOOD, *(turns(("user", f"Who signed {number}?"), ("assistant", f"Erika Mustermann, {number}")) for number in range(4))], level="deep")
    finding = found(report, "D09")
    assert (finding.severity, finding.count, finding.lines) == ("warning", 4, (13, 14, 15, 16))
    assert "Erika Mustermann" in finding.message
    assert report.stats["names"] == {"rows_looked_at": 16, "rows_with_names": 4}


@pytest.mark.usefixtures("recogniser")
def test_first_names_famous_people_and_cities_pass(check: Check) -> None:
    told = ["Natalia sold 48 clips.", "Isaac Newton saw an apple fall.", "It is in London.", "Baker Street is long."]
    assert not [finding for finding in check([*GOOD, *(chat("What?", text) for text in told)], level="deep").findings if finding.id == "D09"]


def test_a_street_with_its_number_is_an_address() -> None:
    assert [*names.named_in("She lives at 221b Baker Street.", recognise)] == [names.Named("address", "Baker Street")]


def test_without_a_recogniser_the_report_says_so(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names.importlib.util, "find_spec", lambda name: None)
    not_run = check(list(GOOD), level="deep").stats["checks_not_run"]
    assert isinstance(not_run, dict)
    assert "pip install presidio-analyzer" in not_run["D09"]


def test_a_recogniser_that_does_not_load_is_told(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> names.Recogniser:
        raise OSError("the model is damaged")

    monkeypatch.setattr(names, "_absent", lambda: "")
    monkeypatch.setattr(names, "installed_recogniser", broken)
    not_run = check(list(GOOD), level="deep").stats["checks_not_run"]
    assert isinstance(not_run, dict)
    assert "the model is damaged" in not_run["D09"]


def test_the_recogniser_never_brings_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    met: list[object] = []

    def analyze(text: str, **asked: object) -> list[SimpleNamespace]:
        return [SimpleNamespace(entity_type="PERSON", start=0, end=4)]

    engines = ModuleType("presidio_analyzer.nlp_engine")
    engines.NlpEngineProvider = lambda nlp_configuration: SimpleNamespace(create_engine=lambda: met.append(sys.modules.get("torch", "")))  # type: ignore[attr-defined]
    presidio = ModuleType("presidio_analyzer")
    presidio.AnalyzerEngine = lambda **made: SimpleNamespace(analyze=analyze)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "presidio_analyzer", presidio)
    monkeypatch.setitem(sys.modules, "presidio_analyzer.nlp_engine", engines)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert [*names.installed_recogniser()("Erna")] == [("PERSON", "Erna")]
    assert met == [None]
    assert "torch" not in sys.modules
