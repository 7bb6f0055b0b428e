"""How torch and transformers behave in our processes: no progress bars, no look-ups by network."""

import os
import warnings

OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TQDM_DISABLE": "1",
}


def hush() -> None:
    """Call before the first import of torch or transformers. Sets environment variables of this process."""
    os.environ.update(OFFLINE)
    warnings.filterwarnings("ignore", module=r"(transformers|peft|torch|huggingface_hub)\b.*")
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
