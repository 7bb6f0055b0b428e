"""Fetches a base by its hub id: `python -m trainer.hub ORG/NAME FOLDER`, a child that alone may reach the network.

Only data is fetched: weights as safetensors, configs, tokenizer, template; no code and no pickle. A repeat fetches what is
missing. The download itself is huggingface_hub's, with its own proxies, mirrors and tokens.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from core.errors import LoradError

WANTED = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja", "tokenizer.model", "*.txt")
OFFLINE = "HF_HUB_OFFLINE"
LAST_LINES = 3


def fetch(name: str, folder: Path, say: Callable[[str], None]) -> Path:
    """The folder with the files of hub id `name`, fetched now where they are not there yet.

    Raises LoradError HUB_UNREACHABLE with huggingface_hub's own words: no network, no such model, no right to it.
    """
    say(f"fetching {name} from its hub into {folder} (safetensors, tokenizer and configs alone)")
    folder.mkdir(parents=True, exist_ok=True)
    environment = {key: value for key, value in os.environ.items() if key != OFFLINE or value not in ("", "0")}
    done = subprocess.run([sys.executable, "-m", "trainer.hub", name, str(folder)], env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        words = " ".join(done.stderr.strip().splitlines()[-LAST_LINES:])
        raise LoradError(
            f"the base {name!r} could not be fetched: {words}",
            hint="fetch it where a network is, and name its folder with model_path; a gated model wants a token (HF_TOKEN)",
            code="HUB_UNREACHABLE",
        )
    return folder


def main(arguments: list[str]) -> int:
    """Download; 0 where all is there, 1 with a sentence on stderr."""
    from huggingface_hub import snapshot_download

    name, folder = arguments
    try:
        snapshot_download(name, local_dir=folder, allow_patterns=list(WANTED))
    except Exception as error:  # the border of a child: whatever it was, its words are all that helps
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
