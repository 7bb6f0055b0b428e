"""Token ids of a forgotten row: the entry of its drop is found by the drop's name, and goes."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from core.config import Config
from core.forgets import Forget, Part
from core.tasks import RowsOf
from rendering.rows import rows_of
from rendering.tokens import Renderer
from store.paths import Home
from store.rebuilding import sweep
from store.traces import Search
from trainer.encoding import Encoder
from trainer.tokenfiles import TokenCache

QUESTION = "Where does the purple quagga sleep at night?"
ANSWER = "Under the old bridge behind the mill."


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.prepare()
    return home


def holding(home: Home, content: bytes) -> list[Path]:
    return [path for path in home.root.rglob("*") if path.is_file() and content in path.read_bytes()]


def test_the_token_ids_of_a_drop_go_with_it(home: Home, drop: Callable[..., RowsOf], tiny_base: Path, tiny_config: Config) -> None:
    row = {"messages": [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWER}]}
    source = drop([row])
    renderer = Renderer.load(tiny_base)
    cache = TokenCache(home.tokens, Encoder(renderer, tiny_config, tiny_base), "an encoding")
    cache.file_of(source)
    (entry,) = [path for path in home.tokens.iterdir() if path.is_dir() and not path.name.startswith(".")]
    assert json.loads((entry / "source.json").read_text())["drop"] == source.drop
    ids = Encoder(renderer, tiny_config, tiny_base)(next(rows_of(source))).ids.tobytes()
    assert holding(home, ids) == [entry / "ids.bin"], "what was said stands there as numbers"
    at = datetime(2026, 1, 1, tzinfo=UTC)
    other = Part(drop="drop-of-another", adapter="default/main", sha256="0", forgotten=1, left=0, at=at)
    assert sweep(Search.of(home, Forget(id="forget-1", at=at, parts=(other,)))) == []
    assert entry.is_dir()
    part = Part(drop=source.drop, adapter="default/main", sha256=source.sha256, forgotten=1, left=0, at=at)
    (removed,) = sweep(Search.of(home, Forget(id="forget-2", at=at, parts=(part,))))
    assert removed.what == "tokens"
    assert holding(home, ids) == []
