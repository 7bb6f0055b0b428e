"""Sends notices to people: by the webhook, and by every Apprise URL. Runs in a child (`daemon.chores`) or in `lorad alerts test`.

The webhook is a POST of JSON with three headers, as Standard Webhooks describes them:

    webhook-id          of the notice; the same when it is sent again, so that a receiver can tell a repeat
    webhook-timestamp   seconds since the epoch of this attempt; a receiver refuses one that is minutes away from its own clock
    webhook-signature   "v1," and the base64 of HMAC-SHA-256(key, id + "." + timestamp + "." + body)

`verify` is how a receiver checks them. URLs and keys hold secrets: no message, log or result names more than the scheme.
"""

import base64
import binascii
import hashlib
import hmac
import json
import logging
import re
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol
from urllib.parse import urlsplit

from core.errors import LoradError
from store.paths import Home

log = logging.getLogger(__name__)

TIMEOUT_S = 10.0
TOLERANCE_S = 300.0  # between the timestamp and the receiver's clock
KEY_PREFIX = "whsec_"
LEAST_KEY_BYTES = 16
APPRISE_TYPES = {"info": "info", "warning": "warning", "critical": "failure"}
HEADINGS = {"resolved": "over: ", "reminder": "still: ", "test": "test: "}


class ChannelError(LoradError):
    """A channel did not take a notice."""


def _failed(why: str, hint: str) -> ChannelError:
    return ChannelError(why, hint=hint, code="CHANNEL_FAILED")


class Channel(Protocol):
    """One way to people. `send` raises ChannelError; a repeat sends it again, with the same id."""

    @property
    def name(self) -> str:
        """For people, without a secret; the same as long as the channel is the same."""

    def send(self, notice: Mapping[str, Any]) -> None:
        """Hand the notice over. Returns once the other side has taken it."""


# ---------------------------------------------------------------- what is said


def payload(notice: Mapping[str, Any]) -> dict[str, Any]:
    """The body of the webhook."""
    told = {key: value for key, value in notice["alert"].items() if value not in ("", [], ())}
    known = {"id": notice["id"], "opened_at": notice["opened_at"], "host": socket.gethostname()}
    return {"type": f"alert.{notice['kind']}", "timestamp": notice["at"], "data": known | told | ({"more": notice["more"]} if notice["more"] else {})}


def title_of(notice: Mapping[str, Any]) -> str:
    """The title line of a notice, as chats and mails show it."""
    alert = notice["alert"]
    return f"[lorad {alert['severity']}] {HEADINGS.get(notice['kind'], '')}{alert['title']}"


def text_of(notice: Mapping[str, Any]) -> str:
    """The message for people."""
    alert = notice["alert"]
    lines = [alert["reason"]]
    lines += [f"job {alert['job']}" + (f", run {alert['run']}" if alert["run"] else "")] if alert["job"] else []
    lines += [f"it came up {notice['more']} times more without being told"] if notice["more"] and notice["kind"] != "more" else []
    lines += ["last lines of the log:", *(f"  {line}" for line in alert["log"])] if alert["log"] else []
    lines += [f"next: {alert['next']}"] if alert["next"] and notice["kind"] != "resolved" else []
    return "\n".join([*lines, f"{socket.gethostname()}, {notice['at'][:19]}Z, {alert['rule']}"])


# ---------------------------------------------------------------- the webhook


def sign(key: bytes, identity: str, timestamp: str, body: bytes) -> str:
    """The value of webhook-signature."""
    digest = hmac.new(key, b".".join((identity.encode(), timestamp.encode(), body)), hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode()


def verify(key: bytes, headers: Mapping[str, str], body: bytes, now_s: float) -> bool:
    """Whether the request comes from who has the key, and is no old one: what a receiver does. Compares in constant time.

    Args: headers: by names in lower case. Several signatures may stand in one header, with blanks between: one must fit.
    """
    identity, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not timestamp.isdecimal() or abs(now_s - int(timestamp)) > TOLERANCE_S:
        return False
    expected = sign(key, identity, timestamp, body).encode()
    fits = [hmac.compare_digest(expected, given.encode()) for given in headers.get("webhook-signature", "").split()]
    return any(fits)


def key_of(text: str) -> bytes:
    """The key that a key file holds: `whsec_` and base64, or any other text as it stands. Raises ChannelError."""
    text = text.strip()
    try:
        key = base64.b64decode(text.removeprefix(KEY_PREFIX), validate=True) if text.startswith(KEY_PREFIX) else text.encode()
    except (binascii.Error, ValueError):
        raise _failed("alerts.webhook_key_file: what follows whsec_ is no base64", "make a key: openssl rand -base64 32") from None
    if len(key) < LEAST_KEY_BYTES:
        raise _failed(f"alerts.webhook_key_file holds {len(key)} bytes; a key needs {LEAST_KEY_BYTES}", "make a key: openssl rand -base64 32")
    return key


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the notice to who knows where."""

    def redirect_request(self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str) -> None:
        return None


@dataclass(frozen=True, slots=True)
class Webhook:
    """The webhook of alerts.webhook."""

    url: str
    key_file: str

    @property
    def name(self) -> str:
        """How the channel is called in records: never its URL, which may hold a secret."""
        return "webhook"

    def send(self, notice: Mapping[str, Any]) -> None:
        """POST the signed notice; a 2xx answer is a success. Blocks up to TIMEOUT_S. Raises ChannelError."""
        body = json.dumps(payload(notice), ensure_ascii=False).encode()
        timestamp = str(int(time.time()))
        headers = {"content-type": "application/json", "user-agent": "lorad", "webhook-id": notice["id"], "webhook-timestamp": timestamp}
        headers["webhook-signature"] = sign(self._key(), notice["id"], timestamp, body)
        if urlsplit(self.url).scheme not in ("http", "https"):
            raise _failed("alerts.webhook is no http or https URL", "write https://host/path")
        request = urllib.request.Request(self.url, data=body, headers=headers, method="POST")  # noqa: S310 - the scheme was looked at
        try:
            with urllib.request.build_opener(_NoRedirect).open(request, timeout=TIMEOUT_S):
                return
        except urllib.error.HTTPError as error:
            with error:
                raise _failed(f"the webhook answered {error.code}", "look at the log of the receiver") from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise _failed(f"the webhook is not reached: {type(reason).__name__} {getattr(reason, 'strerror', '') or ''}".strip(), _NETWORK) from None

    def _key(self) -> bytes:
        if not self.key_file:
            raise _failed("alerts.webhook_key_file is not set: nothing is sent unsigned", "make one: openssl rand -base64 32 > FILE")
        return key_of(_read(self.key_file, "alerts.webhook_key_file"))


_NETWORK = "check the address, and whether the service may reach it (docs/howto/alerts.md)"


def _read(path: str, key: str) -> str:
    try:
        return Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", "") or type(error).__name__
        raise _failed(f"{key} {path!r} cannot be read: {why}", "check the path and who may read it") from None


# ---------------------------------------------------------------- Apprise


@dataclass(frozen=True, slots=True)
class AppriseUrl:
    """One line of alerts.urls_file."""

    url: str

    @property
    def name(self) -> str:
        """Its scheme, and a mark by which two of the same scheme are told apart."""
        scheme = self.url.split(":", 1)[0].lower()
        return f"{scheme if scheme.isalnum() else 'apprise'}-{hashlib.sha256(self.url.encode()).hexdigest()[:6]}"

    def send(self, notice: Mapping[str, Any]) -> None:
        """Send the notice through Apprise. Blocks. Raises ChannelError, which never quotes the URL."""
        try:
            import apprise
        except ImportError:
            raise _failed("the package apprise is missing", "pip install 'lorad[alerts]'") from None
        kind = "success" if notice["kind"] == "resolved" else APPRISE_TYPES[notice["alert"]["severity"]]
        said = _Listener()
        logger = logging.getLogger("apprise")
        logger.propagate, logger.handlers = False, [said]  # what it says may hold the URL
        sender = apprise.Apprise(asset=apprise.AppriseAsset(app_id="lorad", storage_mode="memory"))
        if not sender.add(self.url):
            raise _failed(f"a line of alerts.urls_file is no URL that Apprise knows ({self.name})", "its forms: https://appriseit.com")
        if not sender.notify(body=text_of(notice), title=title_of(notice), notify_type=kind, body_format="text"):
            code = f" ({said.code})" if said.code else ""
            raise _failed(f"{self.name} did not take it{code}", _NETWORK)


class _Listener(logging.Handler):
    """Keeps of what Apprise logs the HTTP status alone."""

    code = ""

    def emit(self, record: logging.LogRecord) -> None:
        if found := re.search(r"error=(\d{3})", record.getMessage()):
            self.code = f"HTTP {found[1]}"


# ---------------------------------------------------------------- all channels


def channels_of(config: Mapping[str, Any]) -> list[Channel]:
    """The channels that alerts of the config names. Raises ChannelError where alerts.urls_file cannot be read."""
    found: list[Channel] = [Webhook(config["webhook"], config["webhook_key_file"])] if config["webhook"] else []
    if config["urls_file"]:
        lines = (line.strip() for line in _read(config["urls_file"], "alerts.urls_file").splitlines())
        found += [AppriseUrl(line) for line in lines if line and not line.startswith("#")]
    return found


def send(home: Home, spec: Mapping[str, Any]) -> dict[str, Any]:
    """Send each notice of `spec` to every channel that has not got it. A channel that fails is not asked again by this child.

    Args: spec: {"config": {webhook, webhook_key_file, urls_file}, "pending": [{"notice": …, "delivered": [channel]}]}.
    Returns: {"sent": {notice id: {"delivered": [channel], "failed": {channel: why}}}}.
    """
    try:
        channels, trouble = channels_of(spec["config"]), {}
    except ChannelError as error:
        channels, trouble = channels_of({**spec["config"], "urls_file": ""}), {"urls_file": f"{error.what}; {error.hint}"}
    broken: dict[str, str] = {}
    sent = {}
    for one in spec["pending"]:
        delivered, failed = [] if trouble else ["urls_file"], dict(trouble)
        for channel in channels:
            if channel.name in one["delivered"]:
                continue
            why = broken.get(channel.name) or _try(channel, one["notice"])
            if why:
                broken[channel.name] = failed[channel.name] = why
            else:
                delivered.append(channel.name)
        sent[one["notice"]["id"]] = {"delivered": delivered, "failed": failed}
    return {"sent": sent}


def _try(channel: Channel, notice: Mapping[str, Any]) -> str:
    """Why the channel did not take it, in words; empty: it did."""
    try:
        channel.send(notice)
    except ChannelError as error:
        log.warning("%s", error.what, extra={"action": "alert_not_sent", "channel": channel.name})
        return f"{error.what}; {error.hint}"
    except Exception as error:  # a plugin call: whatever a channel raises must not keep the others from being asked
        log.warning("%s raised %s", channel.name, type(error).__name__, extra={"action": "alert_not_sent", "channel": channel.name})
        return f"{channel.name} raised {type(error).__name__}"
    return ""
