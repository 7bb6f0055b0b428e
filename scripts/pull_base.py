"""Fetches the embedded base model into the default models_dir, as `lorad models pull` does with a default config."""

import sys

from core.config import Config
from core.errors import LoradError
from trainer.convert import pull

try:
    print(f"   {pull(Config(), lambda text: print('   ' + text, flush=True))}")
except LoradError as error:
    sys.exit(f"error {error.code}: {error.what}\n  what to do: {error.hint}")
