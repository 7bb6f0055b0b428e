"""A real serving process: thumbs and corrections by key in `lorad chat`, and a correction in the talk itself, all in the spool."""

import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from serving_process import ServingProcess, wait_until

from core.signals import Signal, SignalKind
from store.spool import spooled_after

LORAD = (sys.executable, "-c", "from cli.main import main; main()")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServingProcess]:
    made = ServingProcess(tmp_path_factory.mktemp("thumbs"), models_dir=str(tmp_path_factory.mktemp("models")))
    made.start()
    yield made
    made.kill()


def kept(server: ServingProcess, number: int, after: int = 0) -> list[Signal]:
    """So many signals, once they can be fetched."""
    spool = server.world.box.spool
    found = wait_until(lambda: len(lines := spooled_after(spool, after, 1000)) >= number and lines, f"{number} signals lie in the spool")
    return [line.signal for line in found]


def talk(server: ServingProcess, *said: str) -> str:
    """What the terminal showed while these lines were typed."""
    near, far = pty.openpty()
    child = subprocess.Popen([*LORAD, "chat", "--config", str(server.config)], stdin=far, stdout=far, stderr=far, close_fds=True)
    os.close(far)
    seen = b""
    for line in (*said, "/quit"):
        part = b""
        while not part.endswith(b"> "):
            part += os.read(near, 65536)
        seen += part
        os.write(near, f"{line}\n".encode())
    assert child.wait(60) == 0
    os.close(near)
    return seen.decode()


def test_a_key_says_what_was_right_and_what_was_wrong_without_capture(server: ServingProcess) -> None:
    shown = talk(server, "+", "hello", "+", "the capital is Sydney", "-", "=", "= The capital is Canberra.", "/reset", "-")
    assert "nothing was answered yet" in shown
    assert "write what would have been right behind the =" in shown
    assert shown.count("kept for default/main") == 4
    good, bad, right, again = kept(server, 4)
    assert (good.kind, good.correct_output) == (SignalKind.POSITIVE, "[stub base] hello")
    assert [turn["content"] for turn in bad.input] == ["hello", "[stub base] hello", "the capital is Sydney"]
    assert (bad.kind, bad.wrong_output, bad.release) == (SignalKind.MISTAKE, "[stub base] the capital is Sydney", "base")
    assert (right.kind, right.correct_output, right.response) == (SignalKind.CORRECTION, "The capital is Canberra.", bad.response)
    assert {one.consent for one in (good, bad, right)} == {True}
    assert len({one.user for one in (good, bad, right)}) == 1
    assert again.id == bad.id, "the same click is the same signal, also after a reset"


def test_a_correction_in_the_talk_is_a_proposal_and_survives_the_servers_end(server: ServingProcess) -> None:
    before = server.world.box.spool
    last = max((line.number for line in spooled_after(before, 0, 1000)), default=0)
    first = httpx.post(f"{server.address}/api/ai-echo/chat", json={"message": "the capital is Sydney"}, timeout=60).json()
    second = {"message": "No, it's Canberra, not Sydney.", "session_id": first["session_id"], "consent": True}
    httpx.post(f"{server.address}/api/ai-echo/chat", json=second, timeout=60)
    messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "It is 12."}, {"role": "user", "content": "That's wrong, it is 14."}]
    httpx.post(f"{server.address}/v1/chat/completions", json={"model": "default/main", "messages": messages, "store": True}, timeout=60)
    server.terminate()
    assert server.wait() == 0
    detected, other = kept(server, 2, last)
    assert (detected.source, detected.is_proposal, detected.response) == ("detected", True, first["response_id"])
    assert detected.correct_output == "[stub base] the capital is Canberra"
    assert (other.wrong_output, other.correct_output, other.adapter, other.consent) == ("It is 12.", "It is 14.", "default/main", True)


@pytest.mark.model
@pytest.mark.full
def test_with_the_sentence_model_of_the_default_folder_a_correction_in_other_words_is_found(tmp_path: Path) -> None:
    server = ServingProcess(tmp_path)
    try:
        server.start()
        for said in ("Lovely, thanks. And who built it?", "The year is off by a decade."):
            messages = [{"role": "user", "content": "When?"}, {"role": "assistant", "content": "In 1901."}, {"role": "user", "content": said}]
            httpx.post(f"{server.address}/v1/chat/completions", json={"model": "default/main", "messages": messages}, timeout=60)
        (signal,) = kept(server, 1)
        assert (signal.context, signal.metadata["rule"]) == ("The year is off by a decade.", "classifier")
        assert httpx.post(f"{server.address}/v1/embeddings", json={"model": "all-minilm-l6-v2", "input": "hello"}, timeout=60).status_code == 200
    finally:
        server.kill()
