"""Makes a base of one's own from a sealed one: the same weights, with more tokens. `lorad models init`.

New tokens have to lie in the base: an adapter that brought its own embeddings would be refused by the serving engines.
So the tokens are put into tokenizer and embeddings once, each new embedding drawn close to the mean of the old ones, and
every plain LoRA on the new base can be served everywhere. torch is imported where it is needed, and nowhere else.
"""

import hashlib
import json
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from core.config import Config
from core.errors import LoradError, UsageError
from core.names import is_part
from store.bases import BASE, TEMPLATE, TOKENIZER, Base, models_dir, read_base, weights_folder
from store.codec import write
from store.durable import made_aside
from store.engines import let_threads_sleep
from store.seals import hash_file, is_sealed, seal
from trainer.convert import EMBEDDED, Say, locked
from trainer.silence import hush
from trainer.space import MB, full_disk, require_free

SEED = 0  # the same parent and tokens give the same bytes
SPARE_BYTES = 64 * MB


def tokens_of(text: str) -> tuple[str, ...]:
    """The tokens of a list joined by commas. Raises UsageError for an empty one and for one named twice."""
    tokens = tuple(part.strip() for part in text.split(","))
    if not all(tokens):
        raise UsageError(f"the list of tokens {text!r} has an empty token", hint='name them joined by commas: "<context>,<response>"', code="TOKEN_EMPTY")
    if twice := next((token for token in tokens if tokens.count(token) > 1), None):
        raise UsageError(f"token {twice!r} is named twice", hint="name each once", code="TOKEN_TWICE")
    return tokens


def init_base(config: Config, name: str, parent: str, tokens: Sequence[str], say: Say) -> Path:
    """The folder of a new sealed base `name` in models_dir: that of `parent` with `tokens` added, its template kept.

    Writes below models_dir only, whole or not at all. Raises UsageError (BASE_NAME, BASE_EXISTS, TOKEN_KNOWN),
    BaseMissingError for a parent that is not there, LoradError BASE_UNFIT for one whose embeddings cannot grow, DISK_FULL,
    and LockHeldError while another process makes the same base.
    """
    if not is_part(name) or name in EMBEDDED:
        raise UsageError(f"{name!r} is no name for a base of your own", hint="use a-z, 0-9, '.', '_', '-', and no name that lorad pulls", code="BASE_NAME")
    folder, source = models_dir(config) / name, models_dir(config) / parent
    before = read_base(source)
    with locked(folder):
        if folder.exists():
            what = "there is a base" if is_sealed(folder) else f"{str(folder)!r} is there but was never sealed"
            raise UsageError(f"{what}: {name!r}", hint="choose another name; a sealed base never changes", code="BASE_EXISTS")
        making = models_dir(config) / ".making"
        making.mkdir(parents=True, exist_ok=True)
        size = sum(path.stat().st_size for path in weights_folder(source).glob("*.safetensors"))
        with full_disk(making), made_aside(folder, making) as aside:
            require_free(making, size + SPARE_BYTES, f"the base model {name!r}")
            _grow(source, aside, tokens, say)
            write(aside / BASE, _describe(aside, name, before, tokens))
            for path in aside.iterdir():
                path.chmod(0o644)  # safetensors writes for its owner alone; models_dir is shared
            seal(aside)
        with suppress(OSError):  # another base may be in the making
            making.rmdir()
    say(f"base model {name!r} is ready in {folder}: {', '.join(tokens)} added to {before.name}")
    return folder


def _grow(source: Path, out: Path, tokens: Sequence[str], say: Say) -> None:
    """Write model and tokenizer with the tokens to `out`."""
    hush()
    let_threads_sleep()
    import torch
    from tokenizers import AddedToken
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    weights = weights_folder(source)
    _require_fit(AutoConfig.from_pretrained(weights, local_files_only=True), weights)
    tokenizer = AutoTokenizer.from_pretrained(str(weights), local_files_only=True)
    known = tokenizer.get_vocab()
    if there := [token for token in tokens if token in known]:
        raise UsageError(f"the base knows {there[0]!r} already (token {known[there[0]]})", hint="leave it out: it can be used as it is", code="TOKEN_KNOWN")
    say(f"reading {weights} and writing it with {len(tokens)} more tokens")
    model = AutoModelForCausalLM.from_pretrained(weights, local_files_only=True, use_safetensors=True, dtype="auto")
    rows = model.get_input_embeddings().weight.shape[0]
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in tokens])
    torch.manual_seed(SEED)
    used = max(known.values()) + 1
    if rows > used:  # rows that stand for no token, kept by some families as padding: they take no part in the mean
        model.resize_token_embeddings(used, mean_resizing=False)
    model.resize_token_embeddings(max(rows, max(tokenizer.get_vocab().values()) + 1), mean_resizing=True)
    model.config._name_or_path = ""
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    shutil.copyfile(source / TEMPLATE, out / TEMPLATE)


def _require_fit(shape: Any, weights: Path) -> None:
    """Raises LoradError for a base whose embeddings this cannot make larger."""
    why = ""
    if getattr(shape, "quantization_config", None) is not None:
        why = "its weights are quantised"
    elif getattr(shape, "text_config", None) is not None:
        why = "it reads more than text, and only its text tower is known here"
    if why:
        raise LoradError(f"no tokens can be added to the base in {str(weights)!r}: {why}", hint="start from a plain text model in bf16", code="BASE_UNFIT")


def _describe(folder: Path, name: str, parent: Base, tokens: Sequence[str]) -> Base:
    files = sorted(path for path in folder.iterdir() if path.suffix == ".safetensors" or path.name in ("config.json", TOKENIZER))
    digest = hashlib.sha256("".join(f"{hash_file(path)}  {path.name}\n" for path in files).encode()).hexdigest()
    return Base(
        name=name,
        source=f"{parent.name} (source_sha256 {parent.source_sha256}) with the tokens {json.dumps(list(tokens), ensure_ascii=False)}",
        source_sha256=digest,
        tokenizer_sha256=hash_file(folder / TOKENIZER),
        template_sha256=hash_file(folder / TEMPLATE),
        weights=".",
        eos_token=parent.eos_token,
        bos_token=parent.bos_token,
        licence=parent.licence,
    )
