"""D08: mail addresses, telephone, account, card and social security numbers.

Values that are reserved for examples never count: domains of RFC 2606 and 6761, addresses of RFC 5737, telephone
numbers that the authorities of several countries keep for fiction, test cards of payment services, social security
numbers that are never issued. What is found is told by its kind and its last two characters.
"""

import ipaddress
import re
from collections.abc import Iterable, Iterator
from functools import cache
from typing import TYPE_CHECKING

import xxhash

from validation.checks.registry import Check, Need, entered
from validation.checks.secrets import REDACT, counting
from validation.context import Batch, Sheet
from validation.findings import Level, Problem, Severity
from validation.patterns import Late, Pattern, Patterns

if TYPE_CHECKING:
    from validation.survey import Survey

Found = re.Match[str]

_BEFORE = 40  # characters in which a word tells what a number is


def _digits(text: str) -> str:
    return "".join(letter for letter in text if letter.isdecimal())


def _before(match: Found, characters: int = _BEFORE) -> str:
    return match.string[max(0, match.start() - characters) : match.start()]


def _invented(digits: str) -> bool:
    """Whether digits repeat or count: 5555555555, 1234567890."""
    return len(set(digits)) <= 2 or counting(digits) >= len(digits)


# --- mail

# RFC 2606 and 6761, and names that everybody writes for "any domain".
_NO_DOMAIN = Late(
    r"(?:.*\.)?(?:test|invalid|localhost|example|local|internal|lan|home|arpa|onion|tld|png|jpe?g|gif|svg|webp|js|ts|css|py|md|json|html?|service|socket)"
    r"|(?:.*\.)?(?:example|my|your|some|the)?[-_]?(?:example|domain|company|email|mail|site|website|host|server|test|foo|bar|baz|acme|corp)"
    r"\.(?:com|net|org|edu|io|co|co\.uk|dev|baz)"
    r"|(?:.*\.)?(?:your|my|some|example)[a-z-]*\.[a-z.]{2,6}",
    re.IGNORECASE,
)
# RFC 2142 mailboxes and others that name a post, not a person.
_NO_PERSON = Late(
    r"(?:info|support|sales|contact|help|admin|administrator|hello|office|press|media|jobs|careers|hr|team|billing|security|privacy|legal|service|orders?"
    r"|webmaster|postmaster|hostmaster|abuse|root|git|hg|svn|ubuntu|ec2-user|no-?reply|do-?not-?reply|mailer-daemon|noreply|notifications?|newsletter"
    r"|feedback|enquiries|inquiries|user(?:name)?|you|your[._-]?\w*|me|name|someone|somebody|foo|bar|test|example|email)(?:\+[\w.-]*)?",
    re.IGNORECASE,
)


def _mail(match: Found) -> bool:
    user, _, domain = match[0].rpartition("@")
    if _NO_DOMAIN.fullmatch(domain) or _NO_PERSON.fullmatch(user) or ".." in match[0]:
        return False
    return "://" not in _before(match).rpartition(" ")[2]  # the user of an address, not a mailbox


# --- telephone

_GAP = r"[ .\u00a0\u202f/()\u2010-\u2013-]"
_RAW_GAP = r"(?:[ .()/\x80-\xff-]|\\u[0-9a-fA-F]{4}){0,4}"  # the same, as it stands in JSON
# Country codes in use (ITU-T E.164), after the "+".
_COUNTRY = Late(
    r"1|7|2[07]|3[0-469]|4[013-9]|5[1-8]|6[0-6]|8[1246]|9[0-58]|21[1-368]|2[2-6]\d|29[01789]|35\d|37\d|38[0-35-79]|42[013]|50\d|59\d|67[02-9]|68[0-35-9]|69[0-2]"
    r"|80[08]|85[02356]|8[78]\d|96[0-8]|97[0-79]|99[2-68]"
)
_FREE = frozenset({"800", "833", "844", "855", "866", "877", "888", "900"})  # area codes of firms, in North America
# Kept for fiction, by the authority of the country: NANP 555-01xx, Ofcom, ACMA, ARCEP, Bundesnetzagentur, ComReg, PTS.
_FICTION = Late(
    r"1?[2-9]\d\d55501\d\d"
    r"|(?:44|0)(?:1632960\d{3}|7700900\d{3}|2079460\d{3}|(?:11[3-8]|121|131|141|151|161)4960\d{3}|1914980\d{3}|28(?:90180|96496)\d{3}|2920180\d{3}"
    r"|3069990\d{3}|8081570\d{3}|9098790\d{3})"
    r"|(?:61|0)(?:[2378](?:5550|7010)\d{4}|49157\d{4})|(?:61)?1(?:800160401|[38]00975\d{3})"
    r"|(?:33|0)(?:19900|26191|35301|46571|53649|63998)\d{4}"
    r"|(?:49|0)(?:3023125\d{3}|6990009\d{3}|4066969\d{3}|2214710\d{3}|8999998\d{3}|152(?:28817386|28895456|54599371)"
    r"|172(?:9925904|9968532|997318[56])|174(?:9091317|9464308)|17139200\d\d|176040690\d\d)"
    r"|(?:353|0)2091\d{5}|(?:46|0)(?:3139006\d\d|4062804\d\d|8465004\d\d|980319[23]\d\d|7017406\d\d)"
)
_OTHER_NUMBER = Late(
    r"(?:order|ref(?:erence)?|invoice|sku|part|model|serial|isbn|issn|version|ticket|tracking|case|item|product|patent|grant|room|flight|build|id|doi|no\.|#)"
    r"(?:\W{0,3}(?:number|no|id|code|is|#))?\W{0,3}$",
    re.IGNORECASE,
)


def _american(digits: str) -> bool:
    """Ten digits that may be a subscriber's in North America."""
    return len(digits) == 10 and digits[0] > "1" < digits[3] and digits[1:3] not in ("11", "00") and digits[4:6] != "11" and digits[:3] not in _FREE


def _a_persons(digits: str) -> bool:
    return not _FICTION.fullmatch(digits) and not _invented(digits[-10:])


def _international(match: Found) -> bool:
    digits = _digits(match[0].replace("(0)", ""))
    if digits[0] == "1":
        return len(digits) == 11 and _american(digits[1:]) and _a_persons(digits)
    if not 9 <= len(digits) <= 15 or not _COUNTRY.match(digits) or digits.endswith("0000"):
        return False
    return _a_persons(digits) and (len(digits) >= 10 or len(digits) < len(match[0]) - 1)


def _north_american(match: Found) -> bool:
    digits = _digits(match[0])[-10:]
    return _american(digits) and _a_persons(digits) and not _OTHER_NUMBER.search(_before(match))


def _national(match: Found) -> bool:
    """A number after a word such as "phone": with the 0 that national numbers begin with, or of ten digits or more."""
    value, digits = match["value"], _digits(match["value"])
    if not 9 <= len(digits) <= 13 or re.match(r"(?:19|20)\d\d\D", value) or not _a_persons(digits):
        return False
    return digits[0] == "0" or _american(digits) or (match["sure"] is not None and len(digits) in (10, 11) and digits[0] in "136789")


# --- numbers with a check digit

_IBANS = """
    AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DK18 DO28 EE20 EG29 ES24 FI18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28
    HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MR27 MT31 MU30 NL18 NO15 PK24 PL28 PS29 PT25
    QA29 RO24 RS22 SA24 SC31 SE24 SI19 SK24 SM27 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20
"""
_IBAN_LENGTHS = {code[:2]: int(code[2:]) for code in _IBANS.split()}
# Accounts have no reserved range. These stand in manuals (SWIFT's registry among them), so they never refuse a file.
_MANUAL = """
    DE89370400440532013000 DE75512108001245126199 DE12500105170648489890 GB29NWBK60161331926819 GB82WEST12345698765432 GB33BUKB20201555555555
    FR1420041010050500013M02606 FR7630006000011234567890189 ES9121000418450200051332 IT60X0542811101000000123456 NL91ABNA0417164300 NL02ABNA0123456789
    BE68539007547034 CH9300762011623852957 AT611904300234573201 PL61109010140000071219812874 SE4550000000058398257466 NO9386011117947 DK5000400440116243
    FI2112345600000785 IE29AIBK93115212345678 PT50000201231234567890154 LU280019400644750000 GR1601101250000000012300695 CZ6508000000192000145399
    TR330006100519786457841326
"""
_MANUAL_IBANS = frozenset(_MANUAL.split())
# Test cards that payment services publish (Stripe, Adyen, Braintree, PayPal, Worldpay), besides 4000 0…
_CARDS = """
    4242424242424242 4111111111111111 4012888888881881 4222222222222 4917610000000000 4988438843884305 4005519200000004 4009348888881881 4012000033330026
    4012000077777777 4217651111111119 4500600000000061 4444333322221111 4911830000000 5555555555554444 5105105105105100 5200828282828210 2223003122003222
    5454545454545454 5424000000000015 2223000048400011 2222400070000005 5555341244441115 378282246310005 371449635398431 378734493671000 370000000000002
    6011111111111117 6011000990139424 6011981111111113 6011601160116611 3056930009020004 30569309025904 36227206271667 36006666333344 38520000023237
    3530111333300000 3566002020360505 3569990010095841 6200000000000005 6555900000604105
"""
_TEST_CARDS = frozenset(_CARDS.split())
_ISSUER = Late(
    r"4(?:\d{12}|\d{15}|\d{18})|(?:5[1-5]|2(?:22[1-9]|2[3-9]|[3-6]|7[01]|720))\d+|3[47]\d{13}|(?:6011|64[4-9]|65)\d+|35(?:2[89]|[3-8])\d+|3(?:0[0-5]|[68])\d{11,12}"
)
_CARD_WORD = Late(r"card|visa|master|amex|american express|discover|credit|debit|\bcvv\b|\bcvc\b|expir|carte|karte|tarjeta", re.IGNORECASE)
_CARD_GROUPS = Late(r"\d{4}([ -])\d{4}\1\d{4}\1\d{1,7}|\d{4}([ -])\d{6}\2\d{4,5}")
_SECURITY_WORD = Late(r"\bssn\b|\bss#|social.{0,3}security|social.{0,3}(?:number|no\b)|tax.{0,3}(?:payer|id)", re.IGNORECASE)
_SECURITY_SHAPE = r"(?<![\d.,+/-])(?<!\d )\d{3}([ -])\d\d\1\d{4}(?![\d/-]|[.,]\d)"
_NEVER_ISSUED = frozenset({"078051120", "219099999"})  # printed on a wallet's sample card and in a brochure


def _iban(match: Found) -> bool:
    value = match[0].replace(" ", "")
    if _IBAN_LENGTHS.get(value[:2]) != len(value):
        return False
    return int("".join(str(int(letter, 36)) for letter in value[4:] + value[:4])) % 97 == 1


def _card(match: Found) -> bool:
    digits = _digits(match[0])
    wanted = 16 if digits[0] in "25" else len(digits)
    if len(digits) != wanted or not _ISSUER.fullmatch(digits) or digits in _TEST_CARDS or digits.startswith("40000") or len(set(digits)) <= 3:
        return False
    doubled = [2 * int(digit) if place % 2 else int(digit) for place, digit in enumerate(reversed(digits))]
    if sum(value - 9 if value > 9 else value for value in doubled) % 10:
        return False
    around = match.string[max(0, match.start() - 200) : match.end() + 100]
    return _CARD_GROUPS.fullmatch(match[0]) is not None or (match[0].isdecimal() and _CARD_WORD.search(around) is not None)


def _security(match: Found) -> bool:
    digits = _digits(match[0])
    if digits in _NEVER_ISSUED or digits[:3] in ("000", "666") or digits[0] == "9" or digits[3:5] == "00" or digits[5:] == "0000" or len(set(digits)) <= 2:
        return False
    return _is_named(match) or ("-" in match[0] and not _OTHER_NUMBER.search(_before(match)))


def _is_named(match: Found) -> bool:
    return _SECURITY_WORD.search(_before(match, 100)) is not None


# --- addresses of machines

_ADDRESS_WORD = Late(r"\bip\b|address|\bhost|server|\bping|\bfrom|client|visitor|logged|login|\bssh|gateway|router|whois|traceroute", re.IGNORECASE)
_RESOLVERS = frozenset({"8.8.8.8", "8.8.4.4", "1.1.1.1", "1.0.0.1", "9.9.9.9", "208.67.222.222", "208.67.220.220"})


def _address(match: Found) -> bool:
    try:
        address = ipaddress.IPv4Address(match[0])
    except ValueError:
        return False
    return address.is_global and not address.is_multicast and match[0] not in _RESOLVERS and _ADDRESS_WORD.search(_before(match)) is not None


PATTERNS: tuple[Pattern, ...] = (
    Pattern(
        kind="EMAIL",
        title="a mail address",
        anchor=r"[A-Za-z0-9_%+-]@[A-Za-z0-9.-]{1,80}\.[A-Za-z]{2}",
        shape=r"(?<![A-Za-z0-9._%+@/-])[A-Za-z0-9_%+][A-Za-z0-9._%+-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,18}(?![A-Za-z0-9@]|-[A-Za-z0-9])",
        holds=_mail,
        grave=False,
    ),
    Pattern(
        kind="PHONE",
        title="a telephone number",
        anchor=rf"\+[1-9](?:{_RAW_GAP}[0-9]){{7}}",
        shape=rf"(?<![\w+/.=])\+[1-9](?:{_GAP}{{0,3}}\d){{7,15}}(?!\d)",
        holds=_international,
        grave=False,
    ),
    Pattern(
        kind="PHONE",
        title="a telephone number",
        anchor=r"[2-9][0-9]{2}(?:\) ?|[ .\x80-\xff-]{1,3}|\\u[0-9a-fA-F]{4})[2-9][0-9]{2}(?:[ .\x80-\xff-]{1,3}|\\u[0-9a-fA-F]{4})[0-9]{4}",
        shape=r"(?<![\w.+/=-])(?:1[ .-])?(?:\([2-9]\d\d\) ?|[2-9]\d\d[.\u2010-\u2013-])[2-9]\d\d[.\u2010-\u2013-]\d{4}(?![\w-]|\.\d)",
        holds=_north_american,
        grave=False,
    ),
    Pattern(
        kind="PHONE",
        title="a telephone number",
        anchor=rf"(?:phone|mobile|cell|\bfax|whatsapp|handy|telefon|\btel|rufnummer|\bcall|\bdial|\bring|\btext|\breach)[^0-9]{{0,40}}[0-9](?:{_RAW_GAP}[0-9]){{8}}",
        caseless=True,
        shape=rf"(?i:\b(?:(?P<sure>\w*phone|mobile|cell|fax|whatsapp|handy|telefon\w*|tel|rufnummer)|call|dial|ring|text|reach))(?![a-z])[^\d\n]{{0,30}}?(?<![\d+])"
        rf"(?P<value>\(?\d(?:{_GAP}{{0,2}}\d){{8,12}})(?!\d|{_GAP}\d)",
        holds=_national,
        grave=False,
    ),
    Pattern(
        kind="IBAN",
        title="a bank account number (IBAN)",
        anchor="[A-Z]{2}[0-9]{2} ?[A-Z0-9]{4}",
        shape=r"(?<![A-Za-z0-9])[A-Z]{2}\d\d(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?![A-Za-z0-9])",
        holds=_iban,
    ),
    Pattern(kind="CARD", title="a card number", anchor="[0-9](?:[ -]?[0-9]){12}", shape=r"(?<![\d.,+-])\d(?:[ -]?\d){12,18}(?!\d|[.-]\d)", holds=_card),
    Pattern(
        kind="SSN",
        title="a US social security number",
        anchor="[0-9]{3}[ -][0-9]{2}[ -][0-9]{4}",
        shape=_SECURITY_SHAPE,
        holds=lambda match: _security(match) and _is_named(match) and not _invented(_digits(match[0])),
    ),
    Pattern(
        kind="SSN",
        title="a number like a US social security number",
        anchor="[0-9]{3}[ -][0-9]{2}[ -][0-9]{4}",
        shape=_SECURITY_SHAPE,
        holds=_security,
        grave=False,
    ),
    Pattern(
        kind="IP",
        title="a public network address",
        anchor=r"[0-9]\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]",
        shape=r"(?<![\w.-])\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}(?![\w-]|\.\d)",
        holds=_address,
        grave=False,
    ),
)


@cache
def compiled() -> Patterns:
    """The patterns, compiled once a process."""
    return Patterns(PATTERNS)


def _masked(text: str) -> str:
    """Enough of a value to find it again, too little to be the value."""
    user, _, domain = text.partition("@")
    return f"{user[0]}…@…{domain[domain.rindex('.') :]}" if domain else f"…{text[-2:]}"


def _many(survey: "Survey") -> Iterable[Problem]:
    values, lines = survey.sheet.column(_VALUES), survey.sheet.column(_LINES)
    if len(set(values)) >= survey.context.limit("D08", "error_values"):
        found = tuple(sorted(set(lines)))
        message = f"{len(set(values)):,} different card, bank account or social security numbers stand in {len(found):,} rows"
        yield Problem(message=message, lines=found, count=len(found), kind="many", severity=Severity.ERROR, fix=REDACT)


@entered(
    Check(
        "D08",
        "pii.pattern",
        Severity.WARNING,
        Need.BATCH,
        "have it replaced by marks, unless the person agreed or the number is public",
        why="a model repeats what it was trained on, to people who were never meant to know it",
        level=Level.DEEP,
        limits={"error_values": 3},
        conclude=_many,
    )
)
def personal_values(batch: Batch, sheet: Sheet) -> Iterator[tuple[int, Problem]]:
    """Values that name a person or an account. Many different card, account or social security numbers are an error."""
    patterns = compiled()
    for case in batch.cases:
        for path, text, span in patterns.in_case(case):
            value = text[span.start : span.end]
            if span.grave and value.replace(" ", "") not in _MANUAL_IBANS:
                sheet.column(_VALUES).append(xxhash.xxh3_64_intdigest(re.sub("[ -]", "", value).encode()))
                sheet.column(_LINES).append(case.line)
            # A machine's address alone seldom leads to a person.
            severity = Severity.INFO if span.kind == "IP" else None
            yield case.line, Problem(message=f"{span.title} in {path}: {_masked(value)}", path=path, kind=span.kind, severity=severity, fix=REDACT)


_VALUES, _LINES = "D08.values", "D08.lines"
