"""Certificates for `localhost` and their keys, as a node with TLS of its own needs them."""

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


def write_chain(folder: Path) -> None:
    """A new chain: `root.pem`, which clients trust; `fullchain.pem`, its parts `leaf.pem` and `middle.pem`;
    the leaf's `key.pem`."""
    folder.mkdir(parents=True, exist_ok=True)
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(3)]
    names = [
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) for name in ("root", "middle", "localhost")
    ]
    now = datetime.now(UTC).replace(tzinfo=None)
    pems = []
    for place, (name, key) in enumerate(zip(names, keys, strict=True)):
        above = max(place - 1, 0)
        number = x509.random_serial_number()
        made = x509.CertificateBuilder(names[above], name, key.public_key(), number, now - timedelta(days=1))
        made = made.not_valid_after(now + timedelta(days=90))
        made = made.add_extension(x509.BasicConstraints(ca=place < 2, path_length=None), critical=True)
        if place == 2:
            made = made.add_extension(
                x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False
            )
        pems.append(made.sign(keys[above], hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    root, middle, leaf = pems
    for file, content in {"root": root, "middle": middle, "fullchain": leaf + middle, "leaf": leaf}.items():
        (folder / f"{file}.pem").write_bytes(content)
    plain = serialization.NoEncryption()
    (folder / "key.pem").write_bytes(
        keys[2].private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    )


def chain_endpoint(folder: Path, port: int, file: str = "fullchain.pem", more: str = "") -> str:
    """An `ssl:` endpoint on loopback, with what `write_chain` has put into the folder."""
    key, certificates = (quoteStringArgument(str(folder / name)) for name in ("key.pem", file))
    return f"ssl:{port}:interface=127.0.0.1:privateKey={key}:certKey={certificates}{more}"
