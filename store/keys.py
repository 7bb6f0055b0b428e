"""The Ed25519 key that signs releases and wishes. The training box keeps the private half; a box needs the public one."""

import base64
import json
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from core.errors import IntegrityError, StateError
from store.durable import create_file

PRIVATE = "release.key"
PUBLIC = "release.pub"


def ensure_keys(folder: Path) -> None:
    """Make the key pair unless it exists. Safe when two processes start at once: the first link wins, both use it."""
    folder.mkdir(parents=True, exist_ok=True)
    private = folder / PRIVATE
    if not private.exists():
        made = Ed25519PrivateKey.generate().private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        create_file(private, made, mode=0o600)
    if not (folder / PUBLIC).exists():
        public = _private(folder).public_key()
        create_file(folder / PUBLIC, public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo))


def _private(folder: Path) -> Ed25519PrivateKey:
    try:
        key = serialization.load_pem_private_key((folder / PRIVATE).read_bytes(), password=None)
    except (OSError, ValueError) as error:
        raise StateError(f"signing key {folder / PRIVATE}: {error}", hint="run `lorad init`", code="KEY_MISSING") from None
    assert isinstance(key, Ed25519PrivateKey)
    return key


def sign(folder: Path, content: bytes) -> str:
    """Base64 Ed25519 signature. Raises StateError without a key."""
    return base64.b64encode(_private(folder).sign(content)).decode()


def verify(folder: Path, content: bytes, signature: str) -> None:
    """Raises IntegrityError for a foreign or damaged signature, StateError without a public key."""
    try:
        key = serialization.load_pem_public_key((folder / PUBLIC).read_bytes())
    except (OSError, ValueError) as error:
        raise StateError(f"public key {folder / PUBLIC}: {error}", hint="copy release.pub from the training box's keys/", code="KEY_MISSING") from None
    assert isinstance(key, Ed25519PublicKey)
    try:
        key.verify(base64.b64decode(signature, validate=True), content)
    except (InvalidSignature, ValueError):
        raise IntegrityError(
            "the signature is not of the trusted training box",
            hint="the bytes were changed, or signed by another box: compare release.pub on both",
            code="SIGNATURE_FOREIGN",
        ) from None


def canonical(values: object) -> bytes:
    """The bytes of JSON values that are signed: sorted keys, no blanks."""
    return json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
