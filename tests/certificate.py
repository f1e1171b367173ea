"""A certificate for `localhost` and its key, as a node with TLS of its own needs them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from twisted.internet.endpoints import quoteStringArgument


def tls_endpoint(folder: Path, port: int, begins_in: timedelta = timedelta(days=-1)) -> str:
    """An `ssl:` endpoint on loopback; `cert.pem` and `key.pem` are put into the folder, good for two days."""
    folder.mkdir(parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    begin = datetime.now(UTC).replace(tzinfo=None) + begins_in
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), begin)
    certificate = made.not_valid_after(begin + timedelta(days=2)).sign(key, hashes.SHA256())
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    )
    files = [quoteStringArgument(str(folder / file)) for file in ("key.pem", "cert.pem")]
    return f"ssl:{port}:interface=127.0.0.1:privateKey={files[0]}:certKey={files[1]}"
