"""Makes the immutable, signed release folder of a checkpoint.

The folder holds adapter (twice where the base has a GGUF file: for llama.cpp too), tokenizer, template, probe, verdict, manifest
and signature. SEALED is written last; it is also the arrival mark on the inference box, where it is sent after everything else.
"""

import json
import shutil
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from core.errors import IntegrityError, RefusedError
from core.tasks import PackTask
from core.wire import Manifest
from deploy.checkpoint import CONFIG, WEIGHTS, check_checkpoint, read_profile
from deploy.ggufform import add_gguf
from store.bases import STUB_BASE, TEMPLATE, TOKENIZER, Base, read_base
from store.durable import made_aside, replace_file
from store.encryption import encrypt_weights, key_id, read_key
from store.seals import SEAL, hash_file, hash_files, seal
from store.wire import FORMAT, MANIFEST, SIGNATURE, check_release, write_manifest

RELEASE = "release"
PROBE = "probe.jsonl"
VERDICT = "verdict.json"


def pack(task: PackTask, run: Path, now: datetime) -> str:
    """Make `<run>/release/`: whole or not at all. Returns the release id.

    Raises RefusedError for an adapter that serving would ignore or refuse, IntegrityError for bytes that are not those that
    were ranked, BaseMissingError, StateError without a signing key, UsageError for a key of encryption that cannot be read.
    Writes only below `run`.
    """
    checkpoint = Path(task.checkpoint)
    config = check_checkpoint(checkpoint, task.checkpoint_sha256)
    base = _base_of(task)
    key = read_key(task.encryption_key) if task.encryption_key else None
    with made_aside(run / RELEASE, run) as folder:
        _write_config(folder, config, base)
        _copy(checkpoint / WEIGHTS, folder / WEIGHTS)
        _compare_with_seal(checkpoint, folder)
        if base is not None:
            add_gguf(folder, Path(task.base), run)
        if key is not None:
            encrypt_weights(folder, key)
        if base is not None:
            _copy(Path(task.base) / TOKENIZER, folder / TOKENIZER, base.tokenizer_sha256)
            _copy(Path(task.base) / TEMPLATE, folder / TEMPLATE, base.template_sha256)
        _copy_probe(task.probe, folder)
        if not task.origin:  # nobody judged what was trained elsewhere
            _copy(Path(task.verdict), folder / VERDICT)
        keys = Path(task.keys)
        manifest = replace(_manifest(task, folder, base, now), encryption=key_id(key) if key is not None else "")
        release = write_manifest(folder, manifest, keys)
        check_release(folder, keys)
        seal(folder)
    return release


def _base_of(task: PackTask) -> Base | None:
    """The base; None for the stub's, which has no files. Raises IntegrityError where it is not the base that was trained on."""
    if task.base_sha256 == STUB_BASE and not task.base:
        return None
    base = read_base(Path(task.base))
    if base.source_sha256 != task.base_sha256:
        raise IntegrityError(
            f"the base in {task.base} is {base.source_sha256}, the job trained on {task.base_sha256}",
            hint="put the old base back, or train again on the new one",
            code="BASE_OTHER",
        )
    return base


def _write_config(folder: Path, config: dict[str, Any], base: Base | None) -> None:
    # Servers compare this name with the one they serve, as a string: never a path of this box.
    values = config | {"base_model_name_or_path": base.name if base else STUB_BASE, "inference_mode": True}
    replace_file(folder / CONFIG, json.dumps(values, indent=2) + "\n")


def _copy(source: Path, destination: Path, sha256: str | None = None) -> None:
    try:
        shutil.copyfile(source, destination)
    except FileNotFoundError:
        raise IntegrityError(f"{source} is gone", hint="`lorad jobs retry ID` makes it again", code="PACK_INPUT_MISSING") from None
    if sha256 is not None and (found := hash_file(destination)) != sha256:
        raise IntegrityError(f"{source} has SHA-256 {found}, expected {sha256}", hint="run `lorad models pull` again", code="BASE_DAMAGED")


def _copy_probe(source: str | None, folder: Path) -> None:
    """A box serves no release that it cannot compare with what the training box measured."""
    if source is None:
        raise RefusedError("the checkpoint has no probe", hint="`lorad jobs retry ID` scores it again", code="PROBE_MISSING")
    _copy(Path(source), folder / PROBE)
    try:
        lines = [json.loads(line) for line in (folder / PROBE).read_bytes().splitlines()]
    except ValueError as error:
        raise RefusedError(f"{source} is not JSON by line: {error}", hint="`lorad jobs retry ID` scores it again", code="PROBE_DAMAGED") from None
    if not lines:
        raise RefusedError(f"{source} is empty", hint="`lorad jobs retry ID` scores it again", code="PROBE_DAMAGED")


def _compare_with_seal(checkpoint: Path, folder: Path) -> None:
    wanted = f"{hash_file(folder / WEIGHTS)}  {WEIGHTS}"
    if wanted not in (checkpoint / SEAL).read_text().splitlines():
        raise IntegrityError(f"the copy of {checkpoint / WEIGHTS} has other bytes than were sealed", hint="check the disk", code="COPY_DAMAGED")


def _manifest(task: PackTask, folder: Path, base: Base | None, now: datetime) -> Manifest:
    files = hash_files(folder, leave_out=(SEAL, MANIFEST, SIGNATURE))
    return Manifest(
        format=FORMAT,
        adapter=task.adapter,
        version=task.version,
        job=task.job,
        backend=task.backend,
        base_sha256=task.base_sha256,
        tokenizer_sha256=base.tokenizer_sha256 if base else STUB_BASE,
        template_sha256=base.template_sha256 if base else STUB_BASE,
        parent=task.parent,
        checkpoint_sha256=task.checkpoint_sha256,
        verdict_sha256=files.get(VERDICT, ""),
        drops=task.drops,
        created_at=now,
        files=files,
        profile=read_profile(Path(task.checkpoint)),
        origin=task.origin,
    )
