"""Reading and writing what passes between the boxes: signed wishes, signed manifests, the box's ledger."""

import hashlib
from dataclasses import replace
from pathlib import Path

from core.errors import IntegrityError
from core.wire import Activation, Active, Capacity, Desired, Manifest
from store.codec import dump, parse, read_if_whole, to_plain
from store.durable import append_line, lines_of, replace_file
from store.keys import canonical, sign, verify
from store.seals import SEAL, hash_file, hash_files

MANIFEST = "manifest.json"
SIGNATURE = "manifest.sig"
FORMAT = 1


def _signed_part(desired: Desired) -> bytes:
    values = to_plain(desired)
    del values["signature"]
    for later in ("purge", "pins", "sets", "trials", "watch"):
        if not values[later]:
            del values[later]  # as wishes were signed before there were any
    return canonical(values)


def sign_desired(desired: Desired, keys: Path) -> Desired:
    """The wish with its signature."""
    return replace(desired, signature=sign(keys, _signed_part(desired)))


def read_desired(path: Path, keys: Path | None) -> Desired | None:
    """The wish in `path`; None where there is none yet. With `keys`, raises IntegrityError for a foreign signature."""
    try:
        desired = parse(Desired, path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError:
        raise IntegrityError(f"{path} is not a whole wish", hint="it is sent again by itself", code="WISH_DAMAGED") from None
    if keys is not None:
        verify(keys, _signed_part(desired), desired.signature)
    return desired


def write_manifest(folder: Path, manifest: Manifest, keys: Path) -> str:
    """Write manifest and signature into a packed folder. Returns the release id."""
    raw = (dump(manifest, indent=1) + "\n").encode()
    replace_file(folder / MANIFEST, raw)
    replace_file(folder / SIGNATURE, sign(keys, raw) + "\n")
    return hashlib.sha256(raw).hexdigest()


def release_id(folder: Path) -> str:
    """SHA-256 of the manifest's bytes."""
    return hash_file(folder / MANIFEST)


def read_manifest(folder: Path) -> Manifest:
    """The manifest, unverified. Raises IntegrityError where it is missing or damaged."""
    manifest = read_if_whole(Manifest, folder / MANIFEST)
    if manifest is None:
        raise IntegrityError(f"{folder} has no whole {MANIFEST}", hint="it is sent again by itself", code="MANIFEST_MISSING")
    return manifest


def check_release(folder: Path, keys: Path) -> tuple[str, Manifest]:
    """Verify signature and every file's hash. Returns (release id, manifest).

    Raises IntegrityError naming the file and both hashes on the first difference.
    """
    manifest = read_manifest(folder)
    if manifest.format > FORMAT:
        raise IntegrityError(f"release format {manifest.format} is newer than {FORMAT}", hint="upgrade lorad on this box", code="MANIFEST_NEWER")
    try:
        signature = (folder / SIGNATURE).read_text().removesuffix("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise IntegrityError(f"{folder / SIGNATURE}: {error}", hint="it is sent again by itself", code="SIGNATURE_MISSING") from None
    verify(keys, (folder / MANIFEST).read_bytes(), signature)
    found = hash_files(folder, leave_out=(SEAL, MANIFEST, SIGNATURE))
    for name in sorted(found.keys() | manifest.files.keys()):
        if found.get(name) != manifest.files.get(name):
            raise IntegrityError(
                f"{folder / name}: SHA-256 {found.get(name, 'missing')}, the manifest says {manifest.files.get(name, 'no such file')}",
                hint="the old release stays live; `lorad jobs retry` makes and sends it anew; if it comes back, check the disks",
                code="RELEASE_BYTES",
            )
    return release_id(folder), manifest


def append_activation(path: Path, activation: Activation) -> None:
    """Add one durable line to the box's ledger."""
    append_line(path, dump(activation), durable=True)


def read_activations(path: Path) -> list[Activation]:
    """The box's ledger in order; a torn last line is left out."""
    found = []
    for line in lines_of(path):
        try:
            found.append(parse(Activation, line))
        except ValueError:
            continue
    return found


def read_active(path: Path) -> Active | None:
    """What a box serves; None where it has not said yet."""
    return read_if_whole(Active, path)


def read_capacity(path: Path) -> Capacity | None:
    """The box's last sign of life; None where it has not said yet."""
    return read_if_whole(Capacity, path)
