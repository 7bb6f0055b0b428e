"""What of lorad's records may leave the machine: no secrets, no text of rows.

Three nets, one behind the other: keys of a config whose values are secrets are left out by name; files that could quote a row
are taken over field by field (`cli.bundle`); and every text that goes out is searched for the secrets of this machine by
their very bytes, for what looks like one, and for longer passages in quotes, which may come from a row.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

LEFT_OUT = "[left out]"
SECRET_KEYS = ("webhook", "password", "passwd", "secret", "token", "credential", "api_key", "apikey", "private")
NOT_SECRET = ("_file", "_tokens", "max_length", "tokens", "token_s", "tokens_per_s")
LEAST_SECRET = 6  # characters; a shorter line of a key file would be found in every word
_QUOTED = re.compile(r"""(?P<quote>['"])(?=(?:(?!(?P=quote)).)*\s(?:(?!(?P=quote)).)*\s)(?:(?!(?P=quote)).){20,}(?P=quote)""")
_USERINFO = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*)://[^\s/\"']*@[^\s\"']*", re.IGNORECASE)
_QUERY = re.compile(r"(?P<url>[a-z][a-z0-9+.-]*://[^\s?\"']+)\?[^\s\"']+", re.IGNORECASE)
_BEARER = re.compile(
    r"\b(?:sk|pk|ghp|gho|hf|xox[abp]|glpat)[-_][A-Za-z0-9_-]{12,}|\bBearer\s+\S+|-----BEGIN[^-]+PRIVATE KEY-----.*?-----END[^-]+-----", re.DOTALL
)


def is_secret_key(key: str) -> bool:
    """Whether the value under this config key is a secret. Names of files that hold secrets are not."""
    last = key.rsplit(".", 1)[-1].lower()
    return not last.endswith(NOT_SECRET) and any(word in last for word in SECRET_KEYS)


def without_secrets(values: Any, key: str = "") -> Any:
    """A config, or a part of one, without the values of secret keys: that one was set is still told."""
    if isinstance(values, Mapping):
        return {name: without_secrets(value, name) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return [without_secrets(value, key) for value in values]
    return LEFT_OUT if is_secret_key(key) and values not in ("", None, False, True) else values


def secrets_in(files: Iterable[Path], values: Iterable[str] = ()) -> frozenset[str]:
    """Every line of the files of secrets, and its first word; a file that cannot be read adds none."""
    found = set(values)
    for path in files:
        try:
            lines = path.read_text(errors="replace").splitlines()
        except OSError:
            continue
        found |= {piece for line in lines if not line.lstrip().startswith("#") for piece in (line.strip(), *line.split()[:1])}
    found |= {piece for value in found for piece in _pieces_of_address(value)}
    return frozenset(piece for piece in found if len(piece) >= LEAST_SECRET)


def _pieces_of_address(value: str) -> Iterator[str]:
    """An address is told in many ways: without its query, by its path alone. What of it can be a secret, each by itself; not the scheme."""
    scheme, mark, rest = value.partition("://")
    if not mark:
        return
    whole, _, query = rest.partition("?")
    place, _, path = whole.partition("/")
    yield f"{scheme}://{whole}"
    yield from (piece for piece in (path, *path.split("/")) if len(piece) >= LEAST_SECRET)
    userinfo, at, _ = place.rpartition("@")
    yield from (userinfo, *userinfo.split(":")) if at else ()
    yield from (value for _, _, value in (word.partition("=") for word in query.split("&")))


class Scrubber:
    """Takes secrets and quoted passages out of text."""

    def __init__(self, secrets: Iterable[str]) -> None:
        written = {form for secret in secrets for form in (secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1])}
        self._secrets = sorted(written, key=len, reverse=True)  # a longer one first: it may hold a shorter one

    def text(self, text: str) -> str:
        """Plain text: secrets, what looks like one, passages in quotes."""
        return _QUOTED.sub(LEFT_OUT, self.secrets(text))

    def secrets(self, text: str) -> str:
        """Without secrets alone: for JSON, whose own quotes must stay."""
        for secret in self._secrets:
            text = text.replace(secret, LEFT_OUT)
        text = _USERINFO.sub(rf"\g<scheme>://{LEFT_OUT}", text)
        return _BEARER.sub(LEFT_OUT, _QUERY.sub(rf"\g<url>?{LEFT_OUT}", text))

    def plain(self, values: Any) -> Any:
        """JSON values with every text in them scrubbed."""
        if isinstance(values, str):
            return self.text(values)
        if isinstance(values, Mapping):
            return {str(key): self.plain(value) for key, value in values.items()}
        return [self.plain(value) for value in values] if isinstance(values, list | tuple) else values
