"""Asks an OpenAI-compatible endpoint one question. What comes back is an answer or an error: an error in disguise never counts.

Error texts with status 200, pages of HTML, answers cut off and answers too long are errors. Nothing that an endpoint sends is
quoted in a message: it may hold rows.
"""

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn
from urllib.parse import urlsplit

from core.errors import LoradError

MOST_BYTES = 1 << 20  # of an answer
WAITS_S = (1.0, 4.0)  # before the second and third try
LONGEST_WAIT_S = 30.0  # that an endpoint may ask for
PASSING = (408, 425, 429, 500, 502, 503, 504)


class EndpointError(LoradError):
    """An endpoint could not be asked. `passing`: another try may fare better, after `wait_s` where it named a time."""

    def __init__(self, what: str, *, role: "Role | None" = None, passing: bool = False, wait_s: float | None = None) -> None:
        super().__init__(what, hint=(role or JUDGE).hint, code=(role or JUDGE).code)
        self.passing = passing
        self.wait_s = wait_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """What a model is asked for: its word in messages, and what an error about it says."""

    name: str
    code: str
    hint: str


JUDGE = Role(name="judge", code="JUDGE_FAILED", hint="see that ranking.judge names a model and its endpoint, and that it answers")
PEER = Role(name="peer", code="PEER_FAILED", hint="see that feedback.peer_url and peer_model name a model, and that it answers")


class _Straight(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: the key and the rows go where config says, and nowhere else."""

    def redirect_request(self, *arguments: object) -> None:
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where a model answers. `url` goes up to and with /v1."""

    url: str
    model: str
    key: str = ""
    timeout_s: float = 60.0
    role: Role = JUDGE

    @property
    def name(self) -> str:
        """Model and host, without what a URL may hide."""
        parts = urlsplit(self.url)
        return f"{self.model} at {parts.hostname}" + (f":{parts.port}" if parts.port else "")

    def ask(self, messages: Sequence[Mapping[str, str]], seed: int, form: Mapping[str, Any] | None = None) -> str:
        """The text of one answer, tried three times where it fails in passing. Raises EndpointError. Reads the network; waits.

        Args: form: OpenAI's `response_format`; an endpoint that does not know it may answer otherwise.
        """
        for wait_s in (*WAITS_S, None):
            try:
                return self._ask_once(messages, seed, form)
            except EndpointError as error:
                if not error.passing or wait_s is None:
                    raise
                time.sleep(wait_s if error.wait_s is None else min(error.wait_s, LONGEST_WAIT_S))
        raise AssertionError("the last try returns or raises")

    def _ask_once(self, messages: Sequence[Mapping[str, str]], seed: int, form: Mapping[str, Any] | None) -> str:
        headers = {"Content-Type": "application/json", "Accept": "application/json"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})
        asked = {"model": self.model, "messages": list(messages), "seed": seed, "stream": False} | ({"response_format": form} if form else {})
        body = json.dumps(asked).encode()
        request = urllib.request.Request(f"{self.url.rstrip('/')}/chat/completions", data=body, headers=headers, method="POST")  # noqa: S310 - checked below
        if urlsplit(self.url).scheme not in ("http", "https"):
            self._fail("has an address that is neither http nor https")
        try:
            with urllib.request.build_opener(_Straight).open(request, timeout=self.timeout_s) as response:
                return self._text_of(response.headers.get_content_type(), self._read(response))
        except urllib.error.HTTPError as error:
            with error:
                self._fail(f"answers HTTP {error.code}", passing=error.code in PASSING, wait_s=_seconds(error.headers.get("Retry-After")))
        except (OSError, http.client.HTTPException) as error:  # refused, unknown host, timed out, broken off
            reason = getattr(error, "reason", error)
            late = isinstance(reason, TimeoutError)
            self._fail(f"gives no answer within {self.timeout_s:g} s" if late else f"cannot be reached ({type(reason).__name__})", passing=True)

    def _read(self, response: http.client.HTTPResponse) -> bytes:
        """The whole body. The socket's own time limit starts again with every byte; this one does not."""
        deadline = time.monotonic() + self.timeout_s
        parts, size = list[bytes](), 0
        while part := response.read1(1 << 16):
            parts.append(part)
            size += len(part)
            if size > MOST_BYTES:
                self._fail(f"sends more than {MOST_BYTES:,} bytes")
            if time.monotonic() > deadline:
                self._fail(f"gives no answer within {self.timeout_s:g} s", passing=True)
        return b"".join(parts)

    def _text_of(self, content_type: str, body: bytes) -> str:
        try:
            answer: Any = json.loads(body)
        except (ValueError, RecursionError):
            self._fail("sends a page of HTML" if content_type == "text/html" or body.lstrip()[:1] == b"<" else "sends what is not JSON", passing=True)
        if not isinstance(answer, dict) or answer.get("error"):
            self._fail("sends an error with HTTP 200", passing=True)
        match answer.get("choices"):
            case [{"message": {"content": str(text)}} as choice, *_]:
                if choice.get("finish_reason") == "length":
                    self._fail("cuts its answer off: give it more room", passing=True)
                return text
        self._fail("sends JSON that is no chat completion")

    def _fail(self, what: str, *, passing: bool = False, wait_s: float | None = None) -> NoReturn:
        raise EndpointError(f"the {self.role.name} {self.name} {what}", role=self.role, passing=passing, wait_s=wait_s) from None


def _seconds(text: str | None) -> float | None:
    return float(text) if text and text.isdigit() else None
