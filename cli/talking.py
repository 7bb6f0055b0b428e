"""A client of the conversation service, with nothing but the standard library: `lorad chat` stays light."""

import json
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any
from urllib.parse import urlencode, urlsplit

from core.deployment import ServingConfig
from core.errors import LoradError, UsageError

Json = dict[str, Any]
PATH = "/api/ai-echo"
TIMEOUT_S = 330.0  # above serving.timeout_s' default: the server ends a slow answer first, and says why
MOST_LINE = 4 << 20  # bytes of one event
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - a server that listens everywhere also listens here


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Where the service is, and what opens it. `ca` is a file that a server's own certificate is checked against; empty: the system's."""

    url: str
    key: str = ""
    ca: str = ""

    def events(self, message: Mapping[str, Any]) -> Iterator[Json]:
        """The events of an answer; ends after `done`. Raises LoradError for a refusal, an `error` event and a lost connection."""
        with self._asked("POST", f"{PATH}/chat", {**message, "stream": True}) as response:
            while line := response.readline(MOST_LINE):
                if not line.startswith(b"data: "):
                    continue
                event: Json = json.loads(line[6:])
                if event["type"] == "error":
                    raise LoradError(event["message"], hint="", code=str(event["code"]).upper())
                yield event
                if event["type"] == "done":
                    return
        raise LoradError("the server broke the answer off", hint="ask again", code="ANSWER_CUT")

    def get(self, path: str, **query: str) -> Json:
        """What a GET route answers. Raises LoradError."""
        return self._json("GET", f"{path}?{urlencode(query)}" if query else path)

    def history(self, session: str) -> Json:
        """A session. Raises LoradError."""
        return self.get(f"{PATH}/history", session_id=session)

    def reset(self, session: str) -> None:
        """Let the session begin anew. Raises LoradError."""
        self._json("POST", f"{PATH}/reset-context", {"session_id": session})

    def delete(self, session: str) -> None:
        """Delete the session. Raises LoradError."""
        self._json("DELETE", f"{PATH}/history?{urlencode({'session_id': session})}")

    def rate(self, said: Mapping[str, Any]) -> Json:
        """Send feedback on an answer; what the server says it kept. Raises LoradError."""
        return self._json("POST", "/v1/feedback", said)

    def _json(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Json:
        with self._asked(method, path, body) as response:
            found: Json = json.loads(response.read())
            return found

    @contextmanager
    def _asked(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Iterator[HTTPResponse]:
        connection = self._connection()
        headers = {"accept": "application/json"} | ({"authorization": f"Bearer {self.key}"} if self.key else {})
        raw = None if body is None else json.dumps(body).encode()
        try:
            connection.request(method, urlsplit(self.url).path.rstrip("/") + path, raw, headers | ({"content-type": "application/json"} if raw else {}))
            response = connection.getresponse()
            if response.status >= 400:
                raise _refusal(response)
            yield response
        except (OSError, HTTPException) as error:
            hint = "start it with `lorad serve`, or name another with --url"
            raise LoradError(f"no answer from {self.url}: {error or type(error).__name__}", hint=hint, code="SERVER_UNREACHABLE") from None
        finally:
            connection.close()

    def _connection(self) -> HTTPConnection:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(f"{self.url!r} is no address of a server", hint="for example http://127.0.0.1:8765", code="URL_FORM")
        if parts.scheme == "http":
            return HTTPConnection(parts.hostname, parts.port or 80, timeout=TIMEOUT_S)
        context = ssl.create_default_context(cafile=self.ca or None)
        return HTTPSConnection(parts.hostname, parts.port or 443, timeout=TIMEOUT_S, context=context)


def url_of(serving: ServingConfig) -> str:
    """Where the config's own server is."""
    host = EVERYWHERE.get(serving.host, serving.host)
    return f"{'https' if serving.tls_cert else 'http'}://{f'[{host}]' if ':' in host else host}:{serving.port}"


def _refusal(response: HTTPResponse) -> LoradError:
    try:
        told = json.loads(response.read())["error"]
        what, code = str(told["message"]), str(told["code"]).upper()
    except (ValueError, KeyError, TypeError):
        what, code = f"the server answered {response.status}", "SERVER_REFUSED"
    hint = "put the key into LORAD_API_KEY; `lorad keys add NAME` makes one" if response.status in (401, 403) else ""
    wait = response.headers.get("retry-after")
    return LoradError(what, hint=hint or (f"try again in {wait} s" if wait else ""), code=code)
