"""Keys and passwords are found wherever they stand and never shown; what only looks like one passes."""

import base64
import json
import random
import string
import sys

import pytest
from gate_cases import GOOD, Check, chat, found, pair, turns

from validation import Report
from validation.checks import secrets
from validation.patterns import PLAIN, Patterns

_CHANCE = random.Random(4)  # noqa: S311 - invented keys must not be secret
ANY = string.ascii_letters + string.digits
HEX = "0123456789abcdef"


def drawn(length: int, letters: str = ANY) -> str:
    """Random characters, with a capital, a small letter and a digit where the letters have them."""
    wanted = [kind for kind in (string.ascii_lowercase, string.ascii_uppercase, string.digits) if set(kind) & set(letters)]
    while True:
        text = "".join(_CHANCE.choice(letters) for _ in range(length))
        if all(set(text) & set(kind) for kind in wanted):
            return text


def token(header: dict[str, object], claims: dict[str, object]) -> str:
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in (header, claims)]
    return ".".join([*parts, drawn(43)])


def key_block(kind: str = "RSA ", lines: int = 6) -> str:
    return f"-----BEGIN {kind}PRIVATE KEY-----\n" + "\n".join(drawn(64, ANY + "+/") for _ in range(lines)) + f"\n-----END {kind}PRIVATE KEY-----"


SECRETS = {
    "AWS access key": f"AKIA{drawn(16, string.ascii_uppercase + string.digits)}",
    "AWS secret": f"aws_secret_access_key = {drawn(40, ANY + '+/')}",
    "GitHub token": f"ghp_{drawn(36)}",
    "GitHub token, new": f"github_pat_{drawn(22)}_{drawn(59)}",
    "GitLab token": f"glpat-{drawn(20)}",
    "Slack token": f"xoxb-{drawn(12, string.digits)}-{drawn(13, string.digits)}-{drawn(24)}",
    "Slack token, app": f"xapp-1-A{drawn(10, string.digits)}-{drawn(13, string.digits)}-{drawn(64, HEX)}",
    "Slack webhook": f"https://hooks.slack.com/services/T{drawn(8)}/B{drawn(8)}/{drawn(24)}",
    "Discord bot token": f"M{drawn(23)}.{drawn(6)}.{drawn(27)}",
    "OpenAI key": f"sk-proj-{drawn(64)}",
    "OpenAI key, old": f"sk-{drawn(20)}T3BlbkFJ{drawn(20)}",
    "Anthropic key": f"sk-ant-api03-{drawn(93)}AA",
    "Hugging Face token": f"hf_{drawn(34)}",
    "Google API key": f"AIza{drawn(35)}",
    "npm token": f"npm_{drawn(36)}",
    "PyPI token": f"pypi-AgEIcHlwaS5vcmc{drawn(80)}",
    "Stripe live key": f"sk_live_{drawn(24)}",
    "Twilio key": f"SK{drawn(32, HEX)}",
    "SendGrid key": f"SG.{drawn(22)}.{drawn(43)}",
    "Mailchimp key": f"{drawn(32, HEX)}-us12",
    "Telegram bot token": f"{drawn(9, string.digits)}:AA{drawn(33)}",
    "DigitalOcean token": f"dop_v1_{drawn(64, HEX)}",
    "Azure access key": f"DefaultEndpointsProtocol=https;AccountName=x;AccountKey={drawn(86)}==;EndpointSuffix=core.windows.net",
    "JSON web token": token({"alg": "HS256", "typ": "JWT"}, {"sub": "u-83", "adm": True, "exp": 1999999999}),
    "private key": key_block(),
    "private key, escaped": key_block("").replace("\n", "\\n"),
    "private key, OpenSSH": key_block("OPENSSH "),
    "address with its password": f"postgresql://billing:{drawn(12)}@db3.acme-prod.io:5432/main",
    "address with its password, MongoDB": f"mongodb+srv://app:{drawn(14)}@cluster0.ab1cd.mongodb.net/x",
}


def silent(report: Report) -> None:
    assert not [finding for finding in report.findings if finding.id == "D07"], report.to_text()


@pytest.mark.parametrize("kind", SECRETS)
def test_a_secret_refuses_the_file_and_is_never_told(check: Check, kind: str) -> None:
    secret = SECRETS[kind]
    report = check([*GOOD, chat("How do I connect?", f"Use this:\n{secret}\nand keep it safe.")], level="deep")
    finding = found(report, "D07")
    assert (finding.severity, finding.count, finding.lines, finding.path) == ("error", 1, (13,), "$.messages[1].content")
    assert "--repair redact" in finding.fix
    assert kind.split(",")[0].lower() in finding.message.lower()
    told = report.to_text() + report.to_json()
    assert not any(secret[start : start + 8] in told for start in range(len(secret) - 8) if secret[start : start + 8].isalnum() and "http" not in secret[:8])


@pytest.mark.parametrize("kind", SECRETS)
def test_a_secret_is_found_without_hyperscan(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setitem(sys.modules, "hyperscan", None)
    plain = Patterns(secrets.PATTERNS)
    assert plain.engine == PLAIN
    assert [span.kind for span in plain.in_text(f"it is {SECRETS[kind]} now")] == [
        span.kind for span in secrets.compiled().in_text(f"it is {SECRETS[kind]} now")
    ]


GITHUB = SECRETS["GitHub token"]
PLACES: dict[str, tuple[object, str]] = {
    "the question": (chat(f"Why does {GITHUB} not work?"), "$.messages[0].content"),
    "the system prompt": (turns(("system", f"token: {GITHUB}"), ("user", "q"), ("assistant", "a")), "$.messages[0].content"),
    "the metadata": (chat(metadata={"source": {"auth": [GITHUB]}}), "$.metadata.source.auth[0]"),
    "a new line before it": (chat(answer=f"First:\n{GITHUB}\n"), "$.messages[1].content"),
    "a tab before it": (chat(answer=f"First\t{GITHUB}\tthen"), "$.messages[1].content"),
    "quotes around it": (chat(answer=f'"{GITHUB}"'), "$.messages[1].content"),
    "an extra column": (chat(note=GITHUB), "$.note"),
}


@pytest.mark.parametrize("place", PLACES)
def test_every_string_of_a_row_is_looked_at(check: Check, place: str) -> None:
    row, path = PLACES[place]
    finding = found(check([*GOOD, row], level="deep", columns=("note",)), "D07")
    assert (finding.lines, finding.path) == ((13,), path)


def test_tool_arguments_and_their_keys(check: Check) -> None:
    def called(arguments: object) -> dict[str, object]:
        call = {"id": "c1", "type": "function", "function": {"name": "login", "arguments": arguments}}
        tool = {"type": "function", "function": {"name": "login", "parameters": {"type": "object", "properties": {}}}}
        answer = {"role": "assistant", "content": None, "tool_calls": [call]}
        done = [{"role": "tool", "tool_call_id": "c1", "content": "ok"}, {"role": "assistant", "content": "done"}]
        return {"messages": [{"role": "user", "content": "log in"}, answer, *done], "tools": [tool]}

    secret = drawn(40, ANY + "+/")
    told = json.dumps({"aws_secret_access_key": secret})
    for arguments in ({"token": GITHUB}, json.dumps({"token": GITHUB}), '{"token": "\\u0067\\u0068' + GITHUB[2:] + '"}', told):
        finding = found(check([*GOOD, called(arguments)], level="deep"), "D07")
        assert finding.path.startswith("$.messages[1].tool_calls[0].function.arguments")


def test_a_secret_that_json_escapes_is_found(check: Check) -> None:
    url = "postgresql://billing:Xk39fjw0aQ@db3.acme-prod.io/main"
    for written in (GITHUB.replace("ghp", "\\u0067hp"), url.replace("/", "\\/"), "".join(f"\\u{ord(letter):04x}" for letter in GITHUB)):
        row = b'{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "x ' + written.encode() + b' y"}]}'
        assert found(check([*GOOD, row], level="deep"), "D07").lines == (13,)


def test_kinds_are_told_apart_and_rows_counted(check: Check) -> None:
    rows: list[object] = [*GOOD, chat(answer=GITHUB), chat(answer=f"{GITHUB} and {SECRETS['npm token']}")]
    counts = {finding.message.split(" in ")[0]: finding.count for finding in check(rows, level="deep").findings if finding.id == "D07"}
    assert counts == {"a GitHub token": 2, "an npm token": 1}


LOOK_ALIKES = [
    "AKIAIOSFODNN7EXAMPLE and wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    "aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    "ghp_" + "x" * 36,
    "ghp_" + "0" * 36,
    "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
    "AKIA1234567890ABCDEF",
    "sk-your-api-key-goes-here-and-is-long-enough",
    "sk-" + "X" * 48,
    "OPENAI_API_KEY=<your-key>",
    "export GITHUB_TOKEN=${GITHUB_TOKEN}",
    "xoxb-your-token-here",
    "https://hooks.slack.com/services/T00000000/B00000000/XXXXXXXXXXXXXXXXXXXXXXXX",
    "git checkout 3f786850e387550fdab836ed7e6dc881de23001b",
    "sha256 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "id 123e4567-e89b-12d3-a456-426614174000",
    "begins with -----BEGIN RSA PRIVATE KEY----- and ends with -----END RSA PRIVATE KEY-----",
    "-----BEGIN PRIVATE KEY-----\n...\n-----END PRIVATE KEY-----",
    "-----BEGIN PUBLIC KEY-----\n" + drawn(64) + "\n" + drawn(64) + "\n-----END PUBLIC KEY-----",
    "-----BEGIN CERTIFICATE-----\n" + drawn(64) + "\n" + drawn(64) + "\n-----END CERTIFICATE-----",
    "postgres://postgres:postgres@localhost:5432/postgres",
    "postgresql://user:password@db.acme.io/app",
    "mysql://root:Kx83kfQz1@127.0.0.1/app",
    "redis://:Kx83kfQz1@redis:6379/0",
    "postgres://$USER:$PASSWORD@db.acme.io/app",
    "postgres://app:Kx83kfQz1@db.example.com/app",
    "https://user:pass@acme.io/",
    token({"alg": "HS256", "typ": "JWT"}, {"sub": "1234567890", "name": "John Doe", "iat": 1516239022}),
    "eyJub3QiOiJhIHRva2VuIn0.eyJhIjoxfQ." + drawn(43),
    "ASIAPACIFICECONOMICS",
    "DefaultEndpointsProtocol=http;AccountKey=Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==;",
    "110201543:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw",
    "task-" + drawn(40) + " and risk-" + drawn(48),
    "data:image/png;base64," + drawn(400, ANY + "+/"),
    "the password is hunter2 and the api key is abc123",
    "sk_test_" + drawn(24),
]


@pytest.mark.parametrize("text", LOOK_ALIKES, ids=range(len(LOOK_ALIKES)))
def test_what_only_looks_like_a_secret_passes(check: Check, text: str) -> None:
    silent(check([*GOOD, chat(text, text), chat(metadata={"sha": text})], level="deep"))


def test_completions_are_looked_at_too(check: Check) -> None:
    report = check([pair(f"p{number}", f"c{number}") for number in range(12)] + [pair("p", GITHUB)], "completion_v1", level="deep")
    assert found(report, "D07").path == "$.completion"
    assert report.stats["pattern_engine"] == "hyperscan"


@pytest.mark.parametrize(
    "bomb", ["eyJ" * 60_000, "-----BEGIN PRIVATE KEY-----" + "A" * 200_000, "aws key " + " " * 200_000, "http://" + "a:" * 100_000, "ibm key" * 30_000]
)
def test_no_text_makes_the_search_slow(bomb: str) -> None:
    assert secrets.compiled().spans(bomb) is not None
