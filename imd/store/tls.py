"""TLS towards servers: checks their certificates, and says why a handshake failed."""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL
from service_identity import VerificationError
from service_identity.cryptography import verify_certificate_hostname, verify_certificate_ip_address
from service_identity.exceptions import CertificateError
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import CertificateOptions, platformTrust
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

# By OpenSSL's number for the fault of a certificate (x509_vfy.h).
_FAULTS = {
    2: "its issuer is not known here",
    9: "it is not valid yet",
    10: "it has expired",
    18: "it is self-signed, and not trusted here",
    19: "its chain ends in a certificate that is not trusted here",
    20: "its issuer is not known here",
    21: "its issuer is not known here",
    23: "it has been revoked",
    24: "its issuer may issue none",
    26: "it is not meant for servers",
    27: "it is not trusted here",
}


@implementer(IOpenSSLClientConnectionCreator)
class ServerTls:
    """For `wrapClientTLS`: connections to `host`, by the certificates that this machine trusts.

    Twisted's own does the same, but does not tell what is wrong with a certificate.
    """

    log = Logger()

    def __init__(self, host: str) -> None:
        self._host = host
        self._is_address = isIPAddress(host) or isIPv6Address(host)
        self._fault = ""
        self._context: Any = CertificateOptions(trustRoot=platformTrust()).getContext()

    def clientConnectionForTLS(self, tlsProtocol: object) -> SSL.Connection:
        connection = SSL.Connection(self._context, None)
        if not self._is_address:
            connection.set_tlsext_host_name(self._host.encode("idna"))
        connection.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, self._verified)
        return connection

    def _verified(self, connection: object, certificate: Any, fault: int, depth: int, fine: int) -> bool:
        """From OpenSSL, for each certificate of the chain. Never raises: OpenSSL would swallow it."""
        if not fine:
            self._fault = _FAULTS.get(fault, f"OpenSSL's error {fault}")
            return False
        # Depth 0 is the server's own certificate, the one that has to name the host.
        return depth != 0 or self._is_for_host(certificate)

    def _is_for_host(self, certificate: Any) -> bool:
        check = verify_certificate_ip_address if self._is_address else verify_certificate_hostname
        try:
            check(certificate.to_cryptography(), self._host)
        except (VerificationError, CertificateError):
            self._fault = "it is for another name"
        except Exception:
            self._fault = "it cannot be read"
            self.log.failure("TLS: a certificate cannot be read")
        else:
            return True
        return False

    def reason(self, error: object) -> str | None:
        """Why TLS failed, in a line. None if `error`, an exception or a Failure, is no TLS error."""
        if isinstance(error, Failure):
            error = error.value
        if not isinstance(error, SSL.Error):
            return None
        said = [str(one[-1]) for one in error.args[0]] if error.args and error.args[0] else []
        if "certificate verify failed" in said and self._fault:
            return f"tls, the certificate of {self._host} is not accepted: {self._fault}"
        return f"tls, {', '.join(said) or 'the connection was closed in the handshake'}"[:200]
