"""The probe: eight fixed prompts that ship with lorad."""

import json
from pathlib import Path

PROMPTS = Path(__file__).parent / "probe_prompts.json"
PROBE = "probe.jsonl"
NUM_TOKENS = 8


def read_prompts() -> list[str]:
    """The prompts, as one user turn each."""
    prompts: list[str] = json.loads(PROMPTS.read_bytes())
    return prompts
