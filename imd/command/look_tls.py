"""The certificates that a node itself shows, as far as its files tell: chain, key, expiry."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from imd.command.findings import Finding, problem, warning
from imd.command.judge import expiry
from imd.config.endpoints import Certificates, Place, place_of, read_chain
from imd.config.settings import Settings


def certificates(settings: Settings) -> Iterator[Finding]:
    """Findings on the certificates of each endpoint with TLS."""
    for part, listen in (("websocket", settings.websocket.listen), ("http", settings.http.listen)):
        place = place_of(listen)
        if place.is_tls:
            yield from _look(part, place)


def _look(part: str, place: Place) -> Iterator[Finding]:
    file = place.certificate_files[0]
    try:
        Certificates(place)
        chain = [x509.load_pem_x509_certificate(pem) for pem in read_chain(place)]
    except (OSError, ValueError) as error:
        yield problem(part, f"no TLS: {error}")
        return
    # A chain is good for as long as the first of its certificates to expire.
    first = min(chain, key=lambda one: one.not_valid_after_utc)
    what = f"the certificate in {file}" if first is chain[0] else f"a certificate in the chain of {file}"
    yield expiry(part, what, first.not_valid_after_utc.timestamp())
    for one, issuer in itertools.pairwise(chain):
        try:
            one.verify_directly_issued_by(issuer)
        except (InvalidSignature, ValueError, TypeError):
            yield problem(
                part,
                f"the chain of {file} is broken: {_name(issuer)} has not issued {_name(one)}",
                "The leaf comes first, then each certificate's issuer: certbot's fullchain.pem.",
            )
            return
    if len(chain) == 1 and chain[0].issuer != chain[0].subject:
        yield warning(
            part,
            f"{file} holds one certificate only, and {chain[0].issuer.rfc4514_string()} has issued it",
            "Clients without that issuer do not trust the node: name fullchain.pem, or extraCertChain=FILE.",
        )


def _name(certificate: x509.Certificate) -> str:
    return certificate.subject.rfc4514_string() or "a certificate without a name"
