"""What a checkpoint must be to become a release: packing refuses what a server would ignore, refuse or execute."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from core.answering import ProfileRecord
from core.errors import IntegrityError, RefusedError
from deploy.weights import check_finite, read_header
from store.codec import parse
from store.seals import SEAL, check_seal

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
NOTE = "checkpoint.json"
PLAIN = {".json", ".md"}  # files that may lie beside the weights; they are not shipped
MOST_RANK = 512  # the largest rank that a server takes
HINT = "train it as a plain LoRA adapter: that is what the servers load"

# Settings of PEFT that serving engines ignore in silence or refuse; each must be absent, null, false or empty.
UNSERVED = (
    "alora_invocation_tokens",
    "arrow_config",
    "auto_mapping",
    "kasa_config",
    "layer_replication",
    "lora_bias",
    "megatron_config",
    "modules_to_save",
    "monteclora_config",
    "target_parameters",
    "trainable_token_indices",
    "use_bdlora",
    "use_dora",
    "use_qalora",
    "velora_config",
)


def _is_rank(value: object) -> bool:
    return type(value) is int and 1 <= value <= MOST_RANK


WANTED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "peft_type": (lambda value: value == "LORA", "'LORA'"),
    "task_type": (lambda value: value in ("CAUSAL_LM", None), "'CAUSAL_LM'"),
    "bias": (lambda value: value in ("none", None), "'none'"),
    # Other initial values (PiSSA, OLoRA, …) fit only a base that was changed with them.
    "init_lora_weights": (lambda value: value in (True, False, None, "gaussian"), "true"),
    "r": (_is_rank, f"a rank of 1 to {MOST_RANK}"),
    "rank_pattern": (lambda value: value is None or (isinstance(value, dict) and all(map(_is_rank, value.values()))), f"ranks of 1 to {MOST_RANK}"),
}


def check_checkpoint(folder: Path, sha256: str) -> dict[str, Any]:
    """The adapter's config, once the checkpoint is the sealed one that was ranked and a server would load all of it.

    Raises IntegrityError (other bytes, damaged weights) and RefusedError (an adapter that cannot be served). Reads every file.
    """
    found = check_seal(folder)
    if found != sha256:
        raise IntegrityError(f"{folder} is sealed as {found}, the job ranked {sha256}", hint="`lorad jobs retry ID` trains again", code="CHECKPOINT_OTHER")
    check_files(folder)
    config = read_config(folder / CONFIG)
    check_config(folder / CONFIG, config)
    check_finite(folder / WEIGHTS, read_header(folder / WEIGHTS))
    return config


def read_profile(folder: Path) -> ProfileRecord | None:
    """The profile that the training wrote beside its checkpoint; None where it wrote none. Raises RefusedError."""
    try:
        found = json.loads((folder / NOTE).read_bytes()).get("profile")
        return parse(ProfileRecord, json.dumps(found)) if found else None
    except FileNotFoundError:
        return None
    except (ValueError, AttributeError) as error:
        raise RefusedError(f"{folder / NOTE} holds no profile: {error}", hint="`lorad jobs retry ID` trains again", code="PROFILE_DAMAGED") from None


def check_files(folder: Path) -> None:
    """Raises RefusedError for weights in any other form than safetensors: a pickle runs code where it is loaded."""
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}
    for name in sorted(names - {CONFIG, WEIGHTS, SEAL}):
        if Path(name).suffix not in PLAIN:
            raise RefusedError(f"{folder / name} is neither {WEIGHTS} nor JSON or text", hint="keep the weights in safetensors", code="ADAPTER_FILE_FOREIGN")
    for name in (CONFIG, WEIGHTS):
        if name not in names:
            raise RefusedError(f"{folder} has no {name}", hint="the checkpoint is not a PEFT adapter in safetensors", code="ADAPTER_FILE_MISSING")


def read_config(path: Path) -> dict[str, Any]:
    """adapter_config.json as a mapping. Raises RefusedError."""
    try:
        config = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise RefusedError(f"{path} is not JSON: {error}", hint=HINT, code="ADAPTER_CONFIG") from None
    if not isinstance(config, dict):
        raise RefusedError(f"{path} is not an object", hint=HINT, code="ADAPTER_CONFIG")
    return config


def check_config(path: Path, config: dict[str, Any]) -> None:
    """Raises RefusedError naming the first setting that a server would ignore or refuse."""
    for key, (is_right, wanted) in WANTED.items():
        if not is_right(config.get(key)):
            raise RefusedError(f"{path}: {key} is {config.get(key)!r:.60}, expected {wanted}", hint=HINT, code="ADAPTER_UNSERVABLE")
    for key in UNSERVED:
        if config.get(key):
            raise RefusedError(f"{path}: {key} is {config[key]!r:.60}, which servers ignore or refuse", hint=HINT, code="ADAPTER_UNSERVABLE")
