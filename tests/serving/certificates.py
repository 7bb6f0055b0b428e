"""A certificate authority in a folder, for tests of doors that ask for a certificate of both sides."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class Authority:
    """Issues certificates; its own lies at `certificate`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, folder.name)])
        self.certificate = folder / "ca.pem"
        self.certificate.write_bytes(self._signed(self._name, self._key.public_key(), is_authority=True))

    def issue(self, name: str, file: str = "") -> Path:
        """A certificate for `name`, its key beside it as <file>.key."""
        key = ec.generate_private_key(ec.SECP256R1())
        path = self.folder / f"{file or name}.pem"
        path.write_bytes(self._signed(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), key.public_key()))
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        path.with_suffix(".key").write_bytes(key.private_bytes(*form))
        return path

    def client(self, name: str | None, trusts: "Authority | None" = None) -> grpc.ChannelCredentials:
        """A client's side of TLS with a certificate of its own; None: it has none."""
        root = (trusts or self).certificate.read_bytes()
        if name is None:
            return grpc.ssl_channel_credentials(root)
        own = self.issue(name, "client")
        return grpc.ssl_channel_credentials(root, own.with_suffix(".key").read_bytes(), own.read_bytes())

    def _signed(self, name: x509.Name, key: ec.EllipticCurvePublicKey, *, is_authority: bool = False) -> bytes:
        now = datetime.now(UTC)
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(self._name).public_key(key).serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        builder = builder.add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        names = x509.SubjectAlternativeName([x509.DNSName("localhost")])
        return builder.add_extension(names, critical=False).sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
