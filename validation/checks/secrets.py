"""D07: keys, tokens and passwords of real services, in any string of a row.

Only shapes that a provider has published are looked for: no "high entropy" and no `password =`, which drown in false
alarms. The shapes are facts from the providers' documentation and from the rule sets of detect-secrets 1.5 and
gitleaks 8; their long repeats are bounded here, because a row may hold four million spaces. What has the shape is then
judged: made-up values, documented examples and placeholders pass.
"""

import base64
import binascii
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

from validation.case import Case
from validation.checks.registry import Check, Need, entered
from validation.context import Context
from validation.findings import Level, Problem, Severity
from validation.patterns import Late, Pattern, Patterns

if TYPE_CHECKING:
    from validation.survey import Survey

REDACT = "lorad fix {file} -o {out} --repair redact"

_LEFT, _RIGHT = r"(?<![A-Za-z0-9_])", r"(?![A-Za-z0-9_])"
_WORDS = Late(
    r"example|sample|placeholder|your|dummy|fake|redacted|change.?me|x{4}|insert|replace|token.?here|key.?here|not.?a?.?real|notareal|secret.?here"
    r"|\.\.\.|\*{3}|<|>|\$\{|\{\{|^test",
    re.IGNORECASE,
)
# Published with the documentation they come from; everybody copies them.
DOCUMENTED = frozenset(
    {
        "16C7e42F292c6912E7710c838347Ae178B4a",  # GitHub, OAuth apps
        "AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw",  # Telegram, bots
        "AAFD39kkdpWt3ywyRZergyOLMaJhac60qc",  # Telegram, bot tutorial
        "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==",  # Azure storage emulator
        "C2y6yDjf5/R+ob0N8A7Cgv30VRDJIWEHLM+4QDU5DE2nQ9nDuVTqobD4b8mGGyPMbIZnqyMsEcaGQy67XIw/Jw==",  # Azure Cosmos emulator
        "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",  # AWS
    }
)
_TRIVIAL = Late(
    r"(?:my|the|db|secret|super|root|admin|user|some)*[_-]?(?:pass(?:wor[dt]|wd)?|pwd?|secret|user(?:name)?|admin|root|test(?:ing)?|postgres|my|my?sql|mongo(?:db)?"
    r"|redis|guest|qwerty|letmein|db|token|hunter|foo|bar|baz|w)[\d_!-]*",
    re.IGNORECASE,
)
_LOCAL = Late(
    r"^(?:localhost|127\.|0\.0\.0\.0|\[?::1|10\.|192\.168\.|host\.docker\.internal|[a-z0-9_-]+$|.*\.(?:example|test|invalid|localhost|local)$|(?:.*\.)?example\.(?:com|net|org)$)"
)
_LEAST_ENTROPY = 2.6  # bits a character; 32 random hexadecimal digits have 3.2 to 3.9, "deadbeef" four times over has 2.2
_SHORTEST_RUN = 4
_ENOUGH_KEY = 24  # base64 characters of a private key; its header alone is only talked about
_ENOUGH_ENDED = 20  # of one whose end is there too: the first 16 are the same in all keys of a kind
_SHORTENED = 200  # characters of a key that an example shows the beginning of, with dots behind


def made_up(value: str) -> bool:
    """Whether a value of a secret's shape is a placeholder: words of examples, counting characters, few different ones."""
    if value in DOCUMENTED or _WORDS.search(value):
        return True
    return entropy(value) < _LEAST_ENTROPY or 2 * counting(value) >= len(value)


def entropy(value: str) -> float:
    """Bits a character by the value's own frequencies (Shannon)."""
    total = len(value)
    return -sum(count / total * math.log2(count / total) for count in Counter(value).values()) if total else 0.0


def counting(value: str) -> int:
    """Characters in runs that stay or count on, up or down: "1234567890", "aaaa", "fedcba"."""
    codes = [ord(letter) for letter in value.lower().replace("0", ":")]  # ":" follows "9"
    total, run, step = 0, 1, 9
    for before, after in pairwise(codes):
        here = after - before
        run = 1 if abs(here) > 1 else run + 1 if here == step else 2
        step = here
        if run >= _SHORTEST_RUN:
            total += _SHORTEST_RUN if run == _SHORTEST_RUN else 1
    return total


def _value(match: "re.Match[str]") -> str:
    return match["value"] if "value" in match.re.groupindex else match[0]


def _random(match: "re.Match[str]") -> bool:
    """The part that is random (group `body`, else the value) does not look made up, and mixes kinds of characters."""
    body = match["body"] if "body" in match.re.groupindex else _value(match)
    kinds = any(map(str.islower, body)) + any(map(str.isupper, body)) + any(map(str.isdigit, body))
    return kinds >= 2 and not made_up(body)


def _aws_id(match: "re.Match[str]") -> bool:
    # Of real ids one in thirty has no digit; of words that begin with ASIA all have none.
    body = match["body"]
    return not made_up(body) and entropy(body) > 2.8 and (match[0].startswith("AKIA") or any(map(str.isdigit, body)))


def _jwt(match: "re.Match[str]") -> bool:
    """The header is JSON with an algorithm, and the claims are not those of a tutorial."""
    header, claims = (_unbase64(part) for part in match[0].split(".")[:2])
    if b'"alg"' not in header or not claims.startswith(b"{") or made_up(match["body"]):
        return False
    return not re.search(rb'"John Doe"|"1234567890"|"iss":\s*"joe"|loggedInAs|example\.(?:com|org|net)', claims)


def _unbase64(part: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except (binascii.Error, ValueError):
        return b""


def _private_key(match: "re.Match[str]") -> bool:
    body = re.sub(r"\\[nr]|[A-Za-z-]{3,20}: [^\n\\]{0,80}|\s", "", match["body"])
    has_end = match[0].endswith("-----")
    if not has_end and len(body) < _SHORTENED and match.string[match.end() : match.end() + 8].strip("\\nr \n\r\t").startswith(("...", "…", "[", "<", "*")):
        return False
    least = _ENOUGH_ENDED if has_end else _ENOUGH_KEY
    return len(body) >= least and entropy(body[:400]) > _LEAST_ENTROPY and not _WORDS.search(body[:64])


def _url_password(match: "re.Match[str]") -> bool:
    """A password that was chosen, for a host that others can reach."""
    password, host = match["value"], match["host"].lower()
    if _TRIVIAL.fullmatch(password) or password.lower() == match["user"].lower() or _WORDS.search(password) or _LOCAL.match(host):
        return False
    chosen = len(set(password)) >= 5 and 2 * counting(password) < len(password)
    if match["scheme"].lower().startswith(("http", "git")):
        chosen = chosen and len(password) >= 8 and any(map(str.isdigit, password)) and any(map(str.isalpha, password))
    return chosen and not password.startswith(("$", "{", "%", "[", "<"))


def _mixed(match: "re.Match[str]") -> bool:
    """Random, with capitals and small letters: what base64 of that length always has, and hexadecimal digits never."""
    body = match["body"]
    return _random(match) and any(map(str.isupper, body)) and any(map(str.islower, body))


def _token(kind: str, title: str, prefix: str, body: str, tail: str = _RIGHT) -> Pattern:
    """A token that begins with a prefix of its own, all in one run of characters."""
    least = re.match(r"(\[[^\]]+\])\{(\d+)", body)
    start = f"{least[1]}{{{min(10, int(least[2]))}}}" if least else ""
    return Pattern(kind=kind, title=title, anchor=f"(?:{prefix}){start}", shape=f"{_LEFT}(?:{prefix})(?P<body>{body}){tail}", holds=_random)


_ANY = "[A-Za-z0-9]"
_URL_SAFE = "[A-Za-z0-9_-]"
_HEX = "[a-f0-9]"
_NOT_URL_SAFE = "(?![A-Za-z0-9_-])"
_IS = r"""["'\]]{0,2}\s{0,4}(?::=|=>|=|:|\s)\s{0,4}["']?"""
_DATABASES = "postgres(?:ql)?|mysql|mariadb|mongodb|rediss?|amqps?|mssql|sqlserver|oracle|clickhouse|cockroachdb|snowflake|ldaps?|s?ftps?|smtps?|ssh"

PATTERNS: tuple[Pattern, ...] = (
    Pattern(
        kind="aws-key",
        title="an AWS access key id",
        anchor="(?:A3T[A-Z0-9]|ABIA|ACCA|AKIA|ASIA)[0-9A-Z]{16}",
        shape=_LEFT + "(?:A3T[A-Z0-9]|ABIA|ACCA|AKIA|ASIA)(?P<body>[0-9A-Z]{16})" + _RIGHT,
        holds=_aws_id,
    ),
    Pattern(
        kind="aws-secret",
        title="an AWS secret access key",
        anchor=r"aws|secret.?access|secret.?key",
        caseless=True,
        shape=r"(?i:aws|secret)[\w .-]{0,30}?(?i:key|token|secret|pwd|password)" + _IS + r"(?P<value>(?P<body>[A-Za-z0-9/+]{40}))(?![A-Za-z0-9/+=_-])",
        holds=_mixed,
    ),
    Pattern(
        kind="private-key",
        title="a private key",
        anchor="PRIVATE KEY|PuTTY-User-Key-File|AGE-SECRET-KEY-1",
        shape=r"-----BEGIN (?:[A-Z0-9]{2,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----(?P<body>(?>(?:\\[nr]|\s|[A-Za-z-]{3,20}: [^\n\\]{0,80})*)"
        r"(?>(?:[A-Za-z0-9+/=]{16,}+(?:\\[nr]|\s)*+)+))(?:(?:[A-Za-z0-9+/=]{1,15}(?:\\[nr]|\s)*+)?-----END [A-Z0-9 ]{3,40}-----)?",
        holds=_private_key,
    ),
    Pattern(
        kind="private-key",
        title="a private key",
        anchor="PuTTY-User-Key-File",
        shape=r"PuTTY-User-Key-File-\d: [^\n]{1,40}\n(?P<body>(?:[^\n]{0,200}\n){0,200}?Private-Lines: \d+\n(?:[A-Za-z0-9+/=]{10,80}\n?){1,100})",
        holds=_private_key,
    ),
    _token("private-key", "a private key", "AGE-SECRET-KEY-1", "[A-Z0-9]{58}"),
    _token("github-token", "a GitHub token", "gh[pousr]_", _ANY + "{36,255}"),
    _token("github-token", "a GitHub token", "github_pat_", "[A-Za-z0-9_]{36,255}"),
    _token("gitlab-token", "a GitLab token", "gl(?:pat|dt|ft|soat|rt|cbt|imt|ptt|agent|oas)-", _URL_SAFE + "{20,255}"),
    _token("gitlab-token", "a GitLab token", "GR1348941", _URL_SAFE + "{20,50}"),
    _token("slack-token", "a Slack token", r"xox[abeoprs]-(?:\d{1,16}-){1,4}", _ANY + "{10,80}"),
    _token("slack-token", "a Slack token", r"xapp-\d-[A-Z0-9]{5,20}-\d{5,20}-", _HEX + "{30,80}"),
    _token("slack-webhook", "the address of a Slack webhook", r"hooks\.slack\.com/services/T[A-Za-z0-9_]{6,14}/B[A-Za-z0-9_]{6,14}/", _ANY + "{20,40}"),
    _token("discord-webhook", "the address of a Discord webhook", r"discord(?:app)?\.com/api/webhooks/\d{16,20}/", _URL_SAFE + "{50,90}"),
    Pattern(
        kind="discord-token",
        title="a Discord bot token",
        anchor=r"[MNO][A-Za-z0-9_-]{23}[A-Za-z0-9_-]{0,2}\.[A-Za-z0-9_-]{6}\.",
        shape=_LEFT + r"(?P<body>[MNO][A-Za-z0-9_-]{23,25}\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27,38})" + _NOT_URL_SAFE,
        holds=_mixed,
    ),
    _token("openai-key", "an OpenAI key", "sk-(?:proj|svcacct|admin|None)-", _URL_SAFE + "{30,255}"),
    Pattern(kind="openai-key", title="an OpenAI key", anchor=f"sk-{_ANY}{{20}}", shape=f"{_LEFT}sk-(?P<body>{_ANY}{{32,64}}){_NOT_URL_SAFE}", holds=_mixed),
    _token("anthropic-key", "an Anthropic key", r"sk-ant-(?:[a-z]{3,8}\d{2}-)?", _URL_SAFE + "{24,255}"),
    _token("huggingface-token", "a Hugging Face token", "hf_|api_org_", _ANY + "{30,40}"),
    _token("google-key", "a Google API key", "AIza", _URL_SAFE + "{35}", _NOT_URL_SAFE),
    _token("google-secret", "a Google OAuth secret", "GOCSPX-", _URL_SAFE + "{28}", _NOT_URL_SAFE),
    _token("google-token", "a Google OAuth token", r"ya29\.", _URL_SAFE + "{30,255}"),
    _token("npm-token", "an npm token", "npm_", _ANY + "{36}"),
    Pattern(
        kind="npm-token",
        title="an npm token",
        anchor="_authToken",
        shape=r"_authToken\s{0,4}=\s{0,4}[\"']?(?P<value>[a-f0-9]{8}-[a-f0-9]{4}-[a-f0-9]{4}-[a-f0-9]{4}-[a-f0-9]{12})",
        holds=_random,
    ),
    _token("pypi-token", "a PyPI token", "pypi-Ag(?:EIcHlwaS5vcmc|ENdGVzdC5weXBpLm9yZw)", _URL_SAFE + "{50,255}"),
    _token("rubygems-key", "a RubyGems key", "rubygems_", _HEX + "{48}"),
    _token("docker-token", "a Docker Hub token", "dckr_(?:pat|oat)_", _URL_SAFE + "{27,40}"),
    _token("stripe-key", "a Stripe live key", "[rs]k_live_", _ANY + "{16,128}"),
    _token("stripe-secret", "a Stripe webhook secret", "whsec_", _ANY + "{32,64}"),
    _token("square-secret", "a Square secret", "sq0(?:csp|atp)-", _URL_SAFE + "{22,43}"),
    _token("shopify-token", "a Shopify token", "shp(?:at|ca|pa|ss)_", "[a-fA-F0-9]{32}"),
    _token("twilio-key", "a Twilio key", "AC|SK", _HEX + "{32}"),
    _token("sendgrid-key", "a SendGrid key", r"SG\.", r"[A-Za-z0-9_-]{16,32}\.[A-Za-z0-9_-]{32,64}"),
    _token("mailchimp-key", "a Mailchimp key", "", _HEX + "{32}-us[0-9]{1,2}"),
    Pattern(
        kind="mailgun-key",
        title="a Mailgun key",
        anchor=f"key-{_HEX}{{32}}",
        shape=f"(?i:mailgun)[^\\n]{{0,40}}?key-(?P<body>{_HEX}{{32}}){_RIGHT}",
        holds=_random,
    ),
    Pattern(
        kind="telegram-token",
        title="a Telegram bot token",
        anchor=r"[0-9]{8}:[A-Za-z0-9_-]{35}",
        holds=_mixed,
        shape=_LEFT + r"[0-9]{8,10}:(?P<body>[A-Za-z0-9_-]{35})" + _NOT_URL_SAFE,
    ),
    _token("digitalocean-token", "a DigitalOcean token", "do[opr]_v1_", _HEX + "{64}"),
    _token("databricks-token", "a Databricks token", "dapi", _HEX + "{32}"),
    _token("vault-token", "a Vault token", r"hv[sbr]\.", _URL_SAFE + "{24,255}"),
    _token("grafana-token", "a Grafana token", "glsa_", _ANY + "{32}_[a-fA-F0-9]{8}"),
    _token("airtable-token", "an Airtable token", "pat[A-Za-z0-9]{14}\\.", _HEX + "{64}"),
    _token("postman-key", "a Postman key", "PMAK-", _HEX + "{24}-[a-f0-9]{34}"),
    _token("newrelic-key", "a New Relic key", "NRAK-", "[A-Z0-9]{27}"),
    _token("groq-key", "a Groq key", "gsk_", _ANY + "{48,60}"),
    _token("replicate-token", "a Replicate token", "r8_", _ANY + "{37}"),
    _token("perplexity-key", "a Perplexity key", "pplx-", _ANY + "{48}"),
    _token("linear-key", "a Linear key", "lin_api_", _ANY + "{40}"),
    _token("notion-token", "a Notion token", "ntn_", _ANY + "{40,60}"),
    _token("supabase-token", "a Supabase token", "sbp_", _HEX + "{40}"),
    _token("tailscale-key", "a Tailscale key", "tskey-(?:auth|api|client)-[A-Za-z0-9]{8,20}-", _ANY + "{20,60}"),
    _token("artifactory-key", "an Artifactory key", "AKCp", _ANY + "{50,90}"),
    Pattern(
        kind="azure-secret",
        title="an Azure client secret",
        anchor=r"[0-9]Q~[A-Za-z0-9_~.-]{10}",
        shape=r"(?<![A-Za-z0-9_~.-])(?P<body>[A-Za-z0-9_~.-]{3}[0-9]Q~[A-Za-z0-9_~.-]{31,34})(?![A-Za-z0-9_~.-])",
        holds=_mixed,
    ),
    Pattern(
        kind="azure-key",
        title="an Azure access key",
        anchor="(?:AccountKey|SharedAccessKey)=",
        shape=r"(?:AccountKey|SharedAccessKey)=(?P<value>(?P<body>[A-Za-z0-9+/]{42,86}={1,2}))",
        holds=_mixed,
    ),
    Pattern(
        kind="cloud-key",
        title="a key of IBM Cloud",
        anchor="(?:ibm|cloudant|softlayer).{0,20}(?:key|pwd|pw|pass|token)",
        caseless=True,
        shape=r"(?i:ibm|cloudant|softlayer)[\w-]{0,20}?(?i:key|pwd|pw|password|pass|token)"
        + _IS
        + r"(?P<value>(?P<body>[A-Za-z0-9_-]{44}|[a-f0-9]{48}|[a-z0-9]{64}))"
        + _NOT_URL_SAFE,
        holds=_random,
    ),
    Pattern(
        kind="jwt",
        title="a JSON web token",
        anchor=r"eyJ[A-Za-z0-9_-]{8}[A-Za-z0-9_-]*\.eyJ",
        shape=r"(?<![A-Za-z0-9_.-])eyJ[A-Za-z0-9_-]{8,2000}\.eyJ[A-Za-z0-9_-]{8,8000}\.(?P<body>[A-Za-z0-9_-]{20,2000})" + _NOT_URL_SAFE,
        holds=_jwt,
    ),
    Pattern(
        kind="url-password",
        title="an address with its password",
        anchor=r"[a-z]://[^/\s:@]{1,64}:[^/\s@]{3,64}@",
        caseless=True,
        shape=rf"(?P<scheme>(?i:{_DATABASES}|https?|git)(?:\+[a-z0-9]{{1,16}})?)://(?P<user>[^/\s:@\"']{{0,64}}):(?P<value>[^/\s@\"']{{3,128}})@(?P<host>[A-Za-z0-9._\[\]:-]{{1,128}}?)(?=[:/?\s\"',;)]|\Z|$)",
        holds=_url_password,
    ),
)


@cache
def compiled() -> Patterns:
    """The patterns, compiled once a process."""
    return Patterns(PATTERNS)


@entered(
    Check(
        "D07",
        "secret",
        Severity.ERROR,
        Need.EACH,
        "take it out, and have it replaced where it was issued: whoever made this file has read it",
        why="a model repeats what it was trained on: whoever asks the adapter can get the key out of it",
        level=Level.DEEP,
        conclude=lambda survey: _engine(survey),
    )
)
def secret(case: Case, context: Context) -> Iterator[Problem]:
    """A key, token or password in any string of the row, metadata and tool arguments too. Its value is never told."""
    patterns = compiled()
    for path, _, span in patterns.in_case(case):
        yield Problem(message=f"{span.title} in {path}", path=path, kind=span.kind, fix=REDACT)


def _engine(survey: "Survey") -> Iterable[Problem]:
    survey.stats["pattern_engine"] = compiled().engine
    return ()
