"""The key that tokens are checked with, a shared secret or a public key, and its one algorithm."""

from __future__ import annotations

from pathlib import Path

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt.algorithms import HMACAlgorithm

from imd.config import ini

MIN_SECRET_BYTES = 32
MIN_RSA_BITS = 2048

EXPECTED_SECRET = f"at least {MIN_SECRET_BYTES} bytes of a random secret"
EXPECTED_PUBLIC_KEY = "a PEM file with an RSA, Ed25519 or Ed448 public key"

Key = bytes | RSAPublicKey | Ed25519PublicKey | Ed448PublicKey


class UnusableKeyError(Exception):
    """Tokens cannot be checked with the key. The text says why, and shows nothing of the key."""


def verification_key(secret: str, public_key: str) -> tuple[str, Key]:
    """Return the algorithm (HS256, RS256 or EdDSA) and the key that tokens are checked with.

    `public_key` is the path of a PEM file, or PEM text; it is used if there is no secret.
    Raises UnusableKeyError.
    """
    return ("HS256", _secret_key(secret)) if secret else _public_key(public_key)


def _secret_key(secret: str) -> bytes:
    key = secret.encode("utf-8", "surrogateescape")
    if len(key) < MIN_SECRET_BYTES:
        raise UnusableKeyError(f"it has {len(key)} bytes")
    try:
        # With a public key as the secret, everybody could sign tokens.
        HMACAlgorithm(HMACAlgorithm.SHA256).prepare_key(key)
    except jwt.InvalidKeyError:
        raise UnusableKeyError("it is a key of another kind; a public one belongs into public_key") from None
    return key


def _public_key(public_key: str) -> tuple[str, Key]:
    pem = public_key
    if not pem.startswith("-----BEGIN"):
        try:
            pem = ini.read_text(Path(public_key))
        except (OSError, ValueError) as error:
            raise UnusableKeyError(f"it cannot be read: {ini.reason(error)}") from None
    try:
        key = load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise UnusableKeyError("it holds no public key that can be read") from None
    if isinstance(key, RSAPublicKey):
        if key.key_size < MIN_RSA_BITS:
            raise UnusableKeyError(f"an RSA key of {key.key_size} bits, where {MIN_RSA_BITS} are the least")
        return "RS256", key
    if isinstance(key, Ed25519PublicKey | Ed448PublicKey):
        return "EdDSA", key
    raise UnusableKeyError("its kind of key is not supported")
