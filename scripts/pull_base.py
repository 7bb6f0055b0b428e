"""Fetches the models that a default config works with into the default models_dir, as `lorad models pull` does.

The sentence model is no must: the gate says what it could not compare without it.
"""

import sys

from core.config import Config
from core.errors import LoradError
from store.bases import models_dir
from trainer.convert import pull
from trainer.sentences import pull_sentence_model


def say(text: str) -> None:
    """A line of progress."""
    print("   " + text, flush=True)


try:
    say(str(pull(Config(), say)))
except LoradError as error:
    sys.exit(f"error {error.code}: {error.what}\n  what to do: {error.hint}")
try:
    say(str(pull_sentence_model(models_dir(Config()), say)))
except LoradError as error:
    say(f"left out: {error.what}\n   what to do: {error.hint}")
