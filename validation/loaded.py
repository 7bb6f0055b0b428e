"""What the gate loads of a base model, kept by a long-lived process until a file of the model changes."""

import os
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rendering.counting import ConversationCounter
    from rendering.tokens import Renderer

MODELS = 2  # kept at once


def renderer(folder: Path) -> "Renderer":
    """Tokenizer and template of a model folder. Raises LoradError for a damaged one, OSError."""
    return _renderer(str(folder), _marks(folder))


@lru_cache(MODELS)
def counter(renderer: "Renderer") -> "ConversationCounter":
    """The token counter of a renderer."""
    from rendering.counting import ConversationCounter

    return ConversationCounter(renderer)


@lru_cache(MODELS)
def _renderer(folder: str, marks: tuple[tuple[str, int, int], ...]) -> "Renderer":
    from rendering.folders import renderer_of

    return renderer_of(Path(folder))


def _marks(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Name, size and time of every small file that says how the model reads; empty where there is no folder."""
    if not folder.is_dir():
        return ()
    with os.scandir(folder) as entries:
        found = [(entry.name, entry.stat()) for entry in entries if entry.name.endswith((".json", ".jinja"))]
    return tuple(sorted((name, seen.st_size, seen.st_mtime_ns) for name, seen in found))
