"""What the conversations of a box stand on, as the config says."""

import logging
from collections.abc import Callable
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from core.config import Config
from serving.conversation.histories import Histories
from serving.conversation.talk import Standing
from store.bases import base_folder
from store.paths import Box

if TYPE_CHECKING:
    from tokenizers import Tokenizer

log = logging.getLogger(__name__)

BYTES_A_TOKEN = 3  # where no tokenizer is at hand: rather too many tokens than too few


def open_conversations(config: Config, box: Box, now: Callable[[], datetime]) -> Standing:
    """Everything but the engine. Reads nothing yet: the tokenizer is loaded when the first history is counted."""
    conversation = config.serving.conversation
    return Standing(
        box=box,
        config=conversation,
        histories=Histories(box, conversation.keep_days, now),
        count=Counter(base_folder(config) / "tokenizer.json"),
        longest=config.serving.max_new_tokens,
        now=now,
    )


class Counter:
    """Tokens of texts by the base's tokenizer; by their bytes where that is not on this box. Safe in threads."""

    def __init__(self, tokenizer_json: Path) -> None:
        self._path = tokenizer_json

    def __call__(self, text: str) -> int:
        """How many."""
        if self._tokenizer is None:
            return -(-len(text.encode()) // BYTES_A_TOKEN)
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)

    @cached_property
    def _tokenizer(self) -> "Tokenizer | None":
        from tokenizers import Tokenizer

        try:
            return Tokenizer.from_file(str(self._path))
        except Exception as error:  # the library's own kind, for a missing file and for a damaged one
            log.info("tokens of histories are counted by their bytes: %s", error)
            return None
