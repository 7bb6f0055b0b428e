import os
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from rendering.chat import ChatTemplate
from rendering.tokens import Renderer
from store import codec
from store.bases import BASE, TEMPLATE, TOKENIZER, Base
from store.paths import default_models_dir
from store.seals import hash_file, seal

TINY = Path(__file__).parents[1] / "data" / "tiny_base"


@pytest.fixture
def tiny_base(tmp_path: Path) -> Path:
    """A sealed base with the tiny tokenizer and no weights."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    for name in (TOKENIZER, TEMPLATE):
        (folder / name).write_bytes((TINY / name).read_bytes())
    base = Base(
        name="tiny",
        source="tests",
        source_sha256="0" * 64,
        tokenizer_sha256=hash_file(folder / TOKENIZER),
        template_sha256=hash_file(folder / TEMPLATE),
        weights=".",
        eos_token="<|im_end|>",
    )
    codec.write(folder / BASE, base)
    seal(folder)
    return folder


@pytest.fixture
def tiny(tiny_base: Path) -> Renderer:
    return Renderer.load(tiny_base)


@pytest.fixture
def tiny_with() -> Callable[[str], Renderer]:
    """The tiny tokenizer under another template."""

    def build(template: str, eos: str = "<|im_end|>") -> Renderer:
        return Renderer(Tokenizer.from_file(str(TINY / TOKENIZER)), ChatTemplate(template), eos)

    return build


@pytest.fixture
def real() -> Renderer:
    models = Path(os.environ.get("LORAD_TEST_MODELS") or default_models_dir())
    folder = models / "smollm2-135m-instruct"
    if not (folder / BASE).is_file():
        pytest.fail(f"no base model in {folder}: run `lorad models pull`, or set LORAD_TEST_MODELS to the folder that holds it")
    return Renderer.load(folder)
