"""The real serving process with the real 135M base: a hot swap under load, a kill -9, and the OpenAI client throughout."""

import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import real_adapters as real
from openai import OpenAI
from serving_process import ServingProcess, wait_until

pytestmark = pytest.mark.model

STORY: list[Any] = [{"role": "user", "content": "Write a long story about a fox."}]
LONG: dict[str, Any] = {"temperature": 0, "max_tokens": 140}
SHORT: list[Any] = [{"role": "user", "content": "Tell me about rain."}]


@pytest.fixture
def process(tmp_path: Path) -> Iterator[ServingProcess]:
    made = ServingProcess(tmp_path)
    # By transformers, whose answers are the same to the bit alone, in a batch and from a warm cache: llama.cpp's are not.
    exact = {"engine": "transformers", "threads": real.THREADS}
    made.write_config(backend="auto", models_dir=str(real.MODELS), model_name=real.MODEL, serving=exact)
    made.start()
    yield made
    made.kill()


class Asker(threading.Thread):
    """Asks the alias again and again; keeps (release, text) of each answer, and every error."""

    def __init__(self, client: OpenAI) -> None:
        super().__init__()
        self._client = client
        self._stop_asking = threading.Event()
        self.answers: list[tuple[str, str]] = []
        self.errors: list[Exception] = []

    def run(self) -> None:
        while not self._stop_asking.is_set():
            try:
                raw = self._client.chat.completions.with_raw_response.create(model="default/main", messages=SHORT, temperature=0, max_tokens=6)
                self.answers.append((raw.headers["x-lorad-release"], raw.parse().choices[0].message.content or ""))
            except Exception as error:
                self.errors.append(error)

    def finish(self) -> None:
        self._stop_asking.set()
        self.join(60)


def has_answered(asker: Asker, release: str) -> bool:
    return any(answered == release for answered, _ in asker.answers)


def ask_for(process: ServingProcess, release: str, replaces: str | None) -> None:
    process.world.send(release)
    process.world.wish(release, replaces)


def tell(client: OpenAI) -> Iterator[Any]:
    return iter(client.chat.completions.create(model="default/main", messages=STORY, stream=True, **LONG))


def test_a_swap_under_load_drops_nothing_and_a_running_stream_does_not_notice(process: ServingProcess) -> None:
    client = OpenAI(base_url=f"{process.address}/v1", api_key="none", max_retries=0, timeout=120)
    assert [model.id for model in client.models.list()] == [real.MODEL, "default/main"]
    whole = client.chat.completions.create(model=real.MODEL, messages=STORY, **LONG).choices[0].message.content
    first, second = (process.world.pack(real.recipe(seed=version, version=version)) for version in (1, 2))
    asker = Asker(client)
    asker.start()
    stream = tell(client)
    chunks = [next(stream), next(stream)]
    reader = threading.Thread(target=lambda: chunks.extend(stream))
    reader.start()
    ask_for(process, first, None)
    wait_until(partial(has_answered, asker, first), "the first release answers")
    came_before = len(chunks)
    reader.join(120)
    assert came_before < len(chunks), "the stream ran on after the swap"
    assert {chunk.model for chunk in chunks} == {real.MODEL}, "it ends on the base that it began with"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole
    ask_for(process, second, first)
    wait_until(partial(has_answered, asker, second), "the second release answers")
    asker.finish()
    assert asker.errors == []
    said = set(asker.answers)
    assert {release for release, _ in said} == {"base", first, second}
    assert len(said) == 3, "each release gave one answer, always the same"

    process.kill()
    process.start()
    again = client.chat.completions.with_raw_response.create(model="default/main", messages=SHORT, temperature=0, max_tokens=6)
    assert (again.headers["x-lorad-release"], again.parse().choices[0].message.content) in said
    assert again.headers["x-lorad-release"] == second
    assert client.chat.completions.create(model="default/main@v1", messages=SHORT, max_tokens=1).model == "default/main@v1"
    assert process.world.events()[-1] == ("restored", "")
    process.terminate()
    assert process.wait() == 0
