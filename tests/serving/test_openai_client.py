"""The OpenAI Python client, unmodified, against a real serving process with the stub engine."""

import openai
import pytest
from openai import OpenAI
from serving_process import ServingProcess, wait_until


@pytest.fixture(scope="module")
def release(running: ServingProcess) -> str:
    """A release that is live on the process."""
    release = running.world.release(None)
    wait_until(lambda: running.ask().headers["x-lorad-release"] == release, "the release is live")
    return release


@pytest.fixture(scope="module")
def client(running: ServingProcess) -> OpenAI:
    return OpenAI(base_url=f"{running.address}/v1", api_key="none", max_retries=0)


def test_it_lists_the_models(client: OpenAI, release: str) -> None:
    assert [model.id for model in client.models.list()] == ["tiny", "default/main", "default/main@v1"]
    assert client.models.retrieve("default/main@v1").owned_by == "lorad"


def test_it_chats(client: OpenAI, release: str) -> None:
    answer = client.chat.completions.create(model="default/main", messages=[{"role": "user", "content": "good morning"}], temperature=0)
    assert answer.choices[0].message.content == f"[stub {release[:12]}] good morning"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model == "default/main@v1"
    assert answer.system_fingerprint == f"lorad-{release[:12]}"
    assert answer.usage is not None
    assert answer.usage.total_tokens == 5


def test_it_streams(client: OpenAI, release: str) -> None:
    stream = client.chat.completions.create(
        model="default/main", messages=[{"role": "user", "content": "good morning"}], stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == f"[stub {release[:12]}] good morning"
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 3


def test_it_raises_its_own_errors(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="models here: tiny"):
        client.chat.completions.create(model="no/such", messages=[{"role": "user", "content": "x"}])
    with pytest.raises(openai.BadRequestError, match="only one answer"):
        client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "x"}], n=3)
