"""Takes out of a value what may be a secret, before a part of it is shown in a report.

Wider than the check D07, which names true secrets: here a long run of letters and digits is enough, because what is
shown is only to be recognised, and a report is read by others than the file.
"""

import re

LONGEST_LOOK = 4_000  # characters; far more than is ever shown
_PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*", re.DOTALL)
_PASSWORD_IN_URL = re.compile(r"(?<=://)[^\s:/@'\"]{0,60}:[^\s@'\"]{1,200}(?=@)")
_PASSWORD = re.compile(r"(?i)\b(pass(?:word|wd|phrase)?|secret|token|api[_-]?key)(\s{0,3}[=:]\s{0,3})[^\s\"',;]{4,200}")
_KEY_LIKE = re.compile(r"[A-Za-z0-9_+/=\-]{20,}")
_NUMBERED = re.compile(r"\b\d{3}-\d{2}-\d{4}\b|\b\d{4}[ -]\d{4}[ -]\d{4}[ -]\d{1,7}\b")  # a social security number, a card
# How keys of common providers begin.
_ISSUED = re.compile(r"\b(?:gh[opusr]_|github_pat_|glpat-|xox[abeoprs]-|xapp-|sk[-_]|pk_live_|rk_live_|hf_|npm_|pypi-|dop_v1_|AKIA|ASIA|AIza|ya29)\S{12,200}")


def masked(text: str) -> str:
    """The text with everything that looks like a key, a password or a card number as its length in brackets."""
    return _KEY_LIKE.sub(_length, without_secrets(text))


def without_secrets(text: str) -> str:
    """The text without what is surely a key, a password or a card number; long names and paths stay."""
    if "-----BEGIN" in text:
        text = _PRIVATE_KEY.sub("[a private key]", text)
    if "://" in text:
        text = _PASSWORD_IN_URL.sub("[a password]", text)
    text = _ISSUED.sub(lambda key: f"[{len(key[0])} characters]", text)
    return _NUMBERED.sub("[a number]", _PASSWORD.sub(r"\1\2[a password]", text))


def _length(run: re.Match[str]) -> str:
    found = run[0]
    # A word of prose, however long, has no digits in it; a number no letters.
    has_both = any(letter.isdigit() for letter in found) and any(letter.isalpha() for letter in found)
    return f"[{len(found)} characters]" if has_both else found
