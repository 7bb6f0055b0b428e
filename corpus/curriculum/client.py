"""Asks a teacher over HTTP. What comes back is what was asked for, or an error: nothing of a reply is believed unread.

A teacher may be anybody's. It may hang, answer a page of HTML, send rows of another level, or the same row for ever. Texts
that it sends are quoted short, if at all.
"""

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

import msgspec

from core.errors import LoradError
from corpus.curriculum.wire import MOST_CHECKS, Generated, Health, LevelOffer, Levels, Question, Questions, Result, Results, Wish

MOST_BYTES = 32 << 20  # of a reply
WAITS_S = (0.5, 2.0)  # before the second and third try
PASSING = (408, 425, 429, 500, 502, 503, 504)
SHOWN = 120  # letters of a teacher's own words

T = TypeVar("T")


class TeacherError(LoradError):
    """A teacher did not do what was asked. `passing`: another try may fare better."""

    def __init__(self, what: str, *, code: str, hint: str, passing: bool = False) -> None:
        super().__init__(what, hint=hint, code=code)
        self.passing = passing


class _Straight(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: rows come from where the config says, and from nowhere else."""

    def redirect_request(self, *arguments: object) -> None:
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class SkillAPIClient:
    """A teacher at `url`. Each request has `timeout_s` from its first byte to its last, and is tried again where it failed in passing."""

    url: str
    timeout_s: float = 30.0
    waits_s: tuple[float, ...] = WAITS_S

    def health(self) -> Health:
        """Who teaches. Raises TeacherError. Reads the network; waits."""
        return self._ask("/health", None, Health)

    def levels(self) -> tuple[LevelOffer, ...]:
        """Its levels by number. Raises TeacherError, also where a level is named twice."""
        levels = sorted(self._ask("/levels", None, Levels).levels, key=lambda each: each.level)
        if len({each.level for each in levels}) < len(levels):
            self._fail("names a level twice", code="TEACHER_REPLY")
        return tuple(levels)

    def generate(self, wish: Wish) -> list[dict[str, Any]]:
        """The rows of a wish, as many as were asked for. Raises TeacherError, also for rows of another level or seed."""
        reply = self._ask("/generate", wish, Generated)
        if (reply.level, reply.seed) != (wish.level, wish.seed):
            self._fail(f"was asked for level {wish.level}, seed {wish.seed}, and sends level {reply.level}, seed {reply.seed}", code="TEACHER_ROWS")
        if len(reply.rows) != wish.count:
            self._fail(f"was asked for {wish.count} rows and sends {len(reply.rows)}", code="TEACHER_ROWS")
        return reply.rows

    def check(self, answers: Sequence[Question]) -> list[Result]:
        """What the teacher's own checker says of each answer, in their order. Raises TeacherError."""
        found: list[Result] = []
        for start in range(0, len(answers), MOST_CHECKS):
            part = list(answers[start : start + MOST_CHECKS])
            results = self._ask("/check", Questions(part), Results).results
            if len(results) != len(part):
                self._fail(f"was asked to check {len(part)} answers and sends {len(results)} results", code="TEACHER_REPLY")
            found += results
        return found

    def _ask(self, path: str, body: object, kind: type[T]) -> T:
        for wait_s in (*self.waits_s, None):
            try:
                return self._decoded(path, self._ask_once(path, body), kind)
            except TeacherError as error:
                if not error.passing or wait_s is None:
                    raise
                time.sleep(wait_s)
        raise AssertionError("the last try returns or raises")

    def _ask_once(self, path: str, body: object) -> bytes:
        data = None if body is None else msgspec.json.encode(body)
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        request = urllib.request.Request(self.url.rstrip("/") + path, data, headers)  # noqa: S310 - the config takes http and https only
        deadline = time.monotonic() + self.timeout_s
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({}), _Straight).open(request, timeout=self.timeout_s) as response:
                return self._read(response, deadline)
        except urllib.error.HTTPError as error:
            with error:
                said = _message(self._read(error, deadline))
            self._fail(f"answers HTTP {error.code} to {path}{said}", code="TEACHER_REPLY", passing=error.code in PASSING)
        except (OSError, http.client.HTTPException) as error:  # refused, unknown host, timed out, broken off
            if isinstance(getattr(error, "reason", error), TimeoutError):
                self._late()
            self._fail(f"cannot be reached ({type(getattr(error, 'reason', error)).__name__})", code="TEACHER_DOWN", passing=True)

    def _read(self, response: Any, deadline: float) -> bytes:
        """The whole body. The socket's own time limit starts again with every byte; this one does not."""
        parts, size = list[bytes](), 0
        while part := response.read1(1 << 16):
            parts.append(part)
            size += len(part)
            if size > MOST_BYTES:
                self._fail(f"sends more than {MOST_BYTES:,} bytes", code="TEACHER_REPLY")
            if time.monotonic() > deadline:
                self._late()
        return b"".join(parts)

    def _decoded(self, path: str, body: bytes, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(body, type=kind)
        except msgspec.ValidationError as error:
            self._fail(f"answers {path} in another shape: {str(error)[:SHOWN]}", code="TEACHER_REPLY")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self._fail(f"answers {path} with {'a page of HTML' if body.lstrip()[:1] == b'<' else 'what is not JSON'}", code="TEACHER_REPLY", passing=True)

    def _late(self) -> NoReturn:
        self._fail(f"gives no answer within {self.timeout_s:g} s", code="TEACHER_DOWN", passing=True)

    def _fail(self, what: str, *, code: str, passing: bool = False) -> NoReturn:
        hint = "start it (`lorad skills serve` serves those that ship), or correct its url" if code == "TEACHER_DOWN" else "see docs/howto/own-skill.md"
        raise TeacherError(f"the teacher at {self.url} {what}", code=code, hint=hint, passing=passing) from None


def _message(body: bytes) -> str:
    """A teacher's own words on an error, short; empty where it has none."""
    try:
        said = json.loads(body)["error"]["message"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
    return f": {said[:SHOWN]!r}" if isinstance(said, str) else ""
