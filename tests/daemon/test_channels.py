"""Notices on their way to people: a real receiver verifies the signature; Apprise posts to it by its json:// form."""

import base64
import json
import socket
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from core.alerts import Alert, Severity
from core.notices import Notice
from daemon.channels import AppriseUrl, ChannelError, Webhook, channels_of, key_of, send, text_of, title_of, verify
from store.codec import to_plain
from store.paths import Home

sys.path.insert(0, str(Path(__file__).parent))
from datetime import UTC, datetime

from receiver import receiver

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what Apprise imports

KEY = "whsec_" + base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()
AT = datetime(2026, 3, 1, tzinfo=UTC)


def notice(identity: str = "n1", kind: str = "happened") -> dict[str, Any]:
    alert = Alert(
        rule="failed_job",
        about="job-1",
        severity=Severity.CRITICAL,
        title="a/main: job job-1 failed",
        reason="BAD_DATA: no rows",
        next="lorad jobs show job-1",
        job="job-1",
        run="01-train",
        log=("ERROR trainer.run: no rows",),
    )
    plain: dict[str, Any] = to_plain(Notice(id=identity, kind=kind, at=AT, alert=alert, opened_at=AT, more=2))
    return plain


@pytest.fixture
def key_file(tmp_path: Path) -> str:
    path = tmp_path / "webhook.key"
    path.write_text(KEY + "\n")
    return str(path)


def test_the_receiver_verifies_the_signature_and_finds_run_reason_log_and_command(key_file: str) -> None:
    with receiver() as server:
        Webhook(server.url, key_file).send(notice())
    (request,) = server.got
    assert verify(key_of(KEY), request.headers, request.body, time.time())
    body = json.loads(request.body)
    assert body["type"] == "alert.happened"
    assert {"job": "job-1", "run": "01-train", "reason": "BAD_DATA: no rows", "next": "lorad jobs show job-1", "more": 2}.items() <= body["data"].items()
    assert body["data"]["log"] == ["ERROR trainer.run: no rows"]
    assert request.headers["webhook-id"] == "n1"


def test_a_changed_body_another_key_an_old_timestamp_and_a_missing_signature_are_refused(key_file: str) -> None:
    with receiver() as server:
        Webhook(server.url, key_file).send(notice())
    (request,) = server.got
    key, now_s = key_of(KEY), time.time()
    assert not verify(key, request.headers, request.body.replace(b"job-1", b"job-2"), now_s)
    assert not verify(b"another key of enough bytes", request.headers, request.body, now_s)
    assert not verify(key, request.headers, request.body, now_s + 3600)
    assert not verify(key, request.headers | {"webhook-timestamp": str(int(now_s) + 1)}, request.body, now_s)
    assert not verify(key, request.headers | {"webhook-id": "n2"}, request.body, now_s)
    assert not verify(key, {name: value for name, value in request.headers.items() if name != "webhook-signature"}, request.body, now_s)
    two = request.headers | {"webhook-signature": f"v1,AAAA {request.headers['webhook-signature']}"}
    assert verify(key, two, request.body, now_s), "while a key is changed, one of several signatures must fit"


def test_the_signature_is_the_one_of_the_published_example() -> None:
    """The example of the Standard Webhooks specification."""
    body = b'{"test": 2432232314}'
    headers = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    assert verify(key_of("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), headers, body, 1614265330)


def test_a_redirect_is_not_followed_and_an_error_is_told_by_its_number(key_file: str) -> None:
    with receiver() as other, receiver() as server:
        server.status, server.location = 302, other.url
        with pytest.raises(ChannelError, match="answered 302"):
            Webhook(server.url, key_file).send(notice())
        server.status = 503
        with pytest.raises(ChannelError, match="answered 503"):
            Webhook(server.url, key_file).send(notice())
    assert other.got == []


def test_nothing_is_sent_unsigned_or_with_a_poor_key(tmp_path: Path) -> None:
    with receiver() as server:
        with pytest.raises(ChannelError, match="not set"):
            Webhook(server.url, "").send(notice())
        poor = tmp_path / "poor.key"
        poor.write_text("secret")
        with pytest.raises(ChannelError, match="6 bytes"):
            Webhook(server.url, str(poor)).send(notice())
        with pytest.raises(ChannelError, match=r"gone\.key"):
            Webhook(server.url, str(tmp_path / "gone.key")).send(notice())
    assert server.got == []


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/x", "nonsense"])
def test_only_http_is_posted_to(url: str, key_file: str) -> None:
    with pytest.raises(ChannelError):
        Webhook(url, key_file).send(notice())


def test_apprise_carries_title_reason_log_and_command() -> None:
    with receiver() as server:
        AppriseUrl(f"json://127.0.0.1:{server.port}/notify").send(notice())
    (request,) = server.got
    body = json.loads(request.body)
    assert body["title"] == title_of(notice()) == "[lorad critical] a/main: job job-1 failed"
    for part in ("BAD_DATA: no rows", "job job-1, run 01-train", "ERROR trainer.run: no rows", "next: lorad jobs show job-1"):
        assert part in body["message"]
    assert body["type"] == "failure"


def test_an_apprise_url_that_fails_is_told_without_its_secret(caplog: pytest.LogCaptureFixture) -> None:
    with receiver() as server:
        server.status = 500
        url = f"json://ann:s3cr3t@127.0.0.1:{server.port}/token-4711"
        with pytest.raises(ChannelError) as raised:
            AppriseUrl(url).send(notice())
    with pytest.raises(ChannelError) as unknown:
        AppriseUrl("nosuch://s3cr3t").send(notice())
    told = f"{raised.value.what} {raised.value.hint} {unknown.value.what} {caplog.text} {AppriseUrl(url).name}"
    assert "HTTP 500" in told
    assert "s3cr3t" not in told
    assert "4711" not in told


def test_each_channel_gets_a_notice_once_and_a_broken_one_does_not_keep_it_from_the_others(tmp_path: Path, key_file: str) -> None:
    urls = tmp_path / "urls.txt"
    with receiver() as good, receiver() as bad:
        bad.status = 500
        urls.write_text(f"# mine\n\njson://127.0.0.1:{bad.port}/a\njson://127.0.0.1:{good.port}/b\n")
        config = {"webhook": good.url, "webhook_key_file": key_file, "urls_file": str(urls)}
        pending = [{"notice": notice("n1"), "delivered": ["webhook"]}, {"notice": notice("n2"), "delivered": []}]
        sent = send(Home(tmp_path), {"config": config, "pending": pending})["sent"]
    assert [request.path for request in good.got] == ["/b", "/hook", "/b"]
    assert len(bad.got) == 1, "a channel that fails is not asked again by the same child"
    names = [channel.name for channel in channels_of(config)]
    assert sent["n1"]["failed"].keys() == sent["n2"]["failed"].keys() == {names[1]}
    assert set(sent["n2"]["delivered"]) == {"webhook", names[2], "urls_file"}


def test_an_urls_file_that_cannot_be_read_keeps_the_webhook_going(tmp_path: Path, key_file: str) -> None:
    with receiver() as server:
        config = {"webhook": server.url, "webhook_key_file": key_file, "urls_file": str(tmp_path / "gone.txt")}
        sent = send(Home(tmp_path), {"config": config, "pending": [{"notice": notice(), "delivered": []}]})["sent"]
    assert len(server.got) == 1
    assert "gone.txt" in sent["n1"]["failed"]["urls_file"]


def test_a_server_that_is_not_there_is_told_as_not_reached(key_file: str) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/"
        with pytest.raises(ChannelError, match="not reached: ConnectionRefusedError"):
            Webhook(url, key_file).send(notice())


def test_the_end_of_an_alert_reads_as_such() -> None:
    assert title_of(notice(kind="resolved")).endswith("over: a/main: job job-1 failed")
    assert "next:" not in text_of(notice(kind="resolved"))
