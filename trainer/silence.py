"""How torch and transformers behave in our processes: no progress bars, no look-ups by network, no busy waiting."""

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

# Threads that spin at a barrier burn the time slice that the thread they wait for would need. Measured on 2 cores with
# one busy neighbour: 29 tokens/s spinning, 300 to 500 sleeping; alone, sleeping costs about a tenth.
PATIENT = {"OMP_WAIT_POLICY": "passive"}


def hush() -> None:
    """Call before the first import of torch or transformers. Sets environment variables of this process."""
    os.environ.update(OFFLINE)
    for key, value in PATIENT.items():
        os.environ.setdefault(key, value)
    warnings.filterwarnings("ignore", module=r"(transformers|peft|torch|huggingface_hub)\b.*")
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
