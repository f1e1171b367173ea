"""The endpoints that a node listens on: Twisted's endpoint strings, with a backlog and certificates.

An `ssl:` endpoint serves the whole chain in its `certKey` file, and can read its files anew.
"""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from OpenSSL import SSL
from OpenSSL import crypto as openssl
from twisted.internet import ssl
from twisted.internet.defer import Deferred, execute
from twisted.internet.endpoints import AdoptedStreamServerEndpoint, SSL4ServerEndpoint, serverFromString
from twisted.python.filepath import FilePath

# Clients wait in it while the gate is shut. The kernel may have a lower limit (net.core.somaxconn).
LISTEN_BACKLOG = 4096

_PIECE = re.compile(r"(?:\A|:)((?:[^\\:]|\\.)*)", re.DOTALL)
_NAMED = re.compile(r"((?:[^\\=]|\\.)*)=(.*)", re.DOTALL)
_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_WITH_BACKLOG = ("tcp", "tcp6", "ssl", "unix")
_WITH_PORT = ("tcp", "tcp6", "ssl")


# The arguments of Twisted's endpoints, in the order in which they may be given without a name.
_NAMES = {
    "tcp": ("port", "interface", "backlog"),
    "tcp6": ("port", "backlog", "interface"),
    "ssl": (
        *("port", "privateKey", "certKey", "sslmethod"),
        *("interface", "backlog", "extraCertChain", "dhParameters"),
    ),
    "unix": ("address", "mode", "backlog", "lockfile"),
    "systemd": ("domain", "index", "name"),
}


class Place(NamedTuple):
    """An endpoint string in parts. For `haproxy:` these are the parts of the endpoint behind it."""

    kind: str
    options: dict[str, str]
    behind_proxy: bool

    @property
    def port(self) -> int | None:
        """The TCP port; None for other kinds of sockets, and for a socket that systemd opened."""
        text = self.options.get("port", "")
        return int(text) if text.isdecimal() and self.kind in _WITH_PORT else None

    @property
    def interface(self) -> str:
        """The address to listen on; empty: all of them."""
        return self.options.get("interface", "::" if self.kind == "tcp6" else "")

    @property
    def is_tls(self) -> bool:
        return self.kind == "ssl"

    @property
    def is_unix(self) -> bool:
        """True for a Unix socket, which only this machine can reach."""
        return self.kind == "unix" or (self.kind == "systemd" and self.options.get("domain") == "UNIX")

    @property
    def path(self) -> str:
        """The path of a `unix:` socket; empty for other kinds."""
        return self.options.get("address", "") if self.kind == "unix" else ""

    @property
    def key_file(self) -> Path:
        """The private key of an `ssl:` endpoint."""
        return Path(self.options.get("privateKey", "server.pem"))

    @property
    def certificate_files(self) -> list[Path]:
        """The files of an `ssl:` endpoint: the leaf's, and the chain's if it has one of its own."""
        files = [Path(self.options.get("certKey", self.key_file))]
        if "extraCertChain" in self.options:
            files.append(Path(self.options["extraCertChain"]))
        return files


def place_of(description: str) -> Place:
    """The parts of an endpoint string. Never raises: `check` finds what is wrong with it."""
    arguments: list[str] = []
    options: dict[str, str] = {}
    for piece in _PIECE.findall(description):
        named = _NAMED.fullmatch(piece)
        if named is None:
            arguments.append(_unquote(piece))
        else:
            options[_unquote(named[1])] = _unquote(named[2])
    behind_proxy = arguments[:1] == ["haproxy"]
    if behind_proxy:
        del arguments[0]
    kind = arguments.pop(0) if arguments else ""
    return Place(kind, dict(zip(_NAMES.get(kind, ()), arguments, strict=False)) | options, behind_proxy)


def _unquote(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)


def check(description: str) -> None:
    """Raise ValueError if no node could listen on it. Nothing is bound; the files of `ssl:` are read."""
    place = place_of(description)
    if place.behind_proxy and place.is_tls:
        raise ValueError("HAProxy sends its header before TLS begins: haproxy:tcp: or ssl: is expected")
    if place.kind == "tls":
        raise ValueError("for TLS: ssl:9000:privateKey=KEY.pem:certKey=FULLCHAIN.pem")
    if place.kind == "systemd":
        # The socket is not there yet when the configuration is checked before a start.
        _check_systemd(place)
        return
    if place.is_tls:
        Certificates(place)
    try:
        serverFromString(None, description)
    except Exception as error:  # endpoint parsers, plugged-in ones too, raise whatever they like
        raise ValueError(str(error)) from None
    # Twisted takes any integer for a port.
    if place.kind in _WITH_PORT and (place.port is None or place.port > 65535):
        raise ValueError("the port is a number up to 65535")


def _check_systemd(place: Place) -> None:
    domain, index, name = map(place.options.get, _NAMES["systemd"])
    if domain not in ("INET", "INET6", "UNIX") or (index is None) == (name is None):
        raise ValueError("systemd:domain=INET:index=0, or name=NAME in place of index")
    if index is not None and not index.isdecimal():
        raise ValueError("index is a number from 0 on")


class Certificates:
    """The key and the chain of an `ssl:` endpoint: a context for each new connection.

    Raises ValueError if the files cannot be read or do not fit together.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._chain, self._context = self._load()

    def getContext(self) -> SSL.Context:
        """Twisted calls this once for each connection."""
        return self._context

    def reload(self) -> None:
        """Read the files anew, for later connections. If it raises ValueError, the old ones stay in use.

        So it is for certificates that clients would refuse by the clock, while they take the old ones.
        """
        chain, context = self._load()
        why = _not_valid_now(chain)
        if why and not _not_valid_now(self._chain):
            raise ValueError(f"{self._place.certificate_files[0]}: {why}")
        self._chain, self._context = chain, context

    def _load(self) -> tuple[list[openssl.X509], SSL.Context]:
        place = self._place
        try:
            chain = [openssl.load_certificate(openssl.FILETYPE_PEM, pem) for pem in read_chain(place)]
            more: dict[str, Any] = {}
            if "dhParameters" in place.options:
                file = FilePath(place.options["dhParameters"])
                more["dhParameters"] = ssl.DiffieHellmanParameters.fromFile(file)
            if "sslmethod" in place.options:
                more["method"] = getattr(SSL, place.options["sslmethod"])
            options: Any = ssl.CertificateOptions(
                # With None OpenSSL would ask for a passphrase on the terminal, and the node would wait.
                privateKey=openssl.load_privatekey(openssl.FILETYPE_PEM, place.key_file.read_bytes(), b""),
                certificate=chain[0],
                extraCertChain=chain[1:],
                **more,
            )
            context: SSL.Context = options.getContext()
        except (OSError, AttributeError, SSL.Error, openssl.Error) as error:
            raise ValueError(f"{place.key_file}, {place.certificate_files[0]}: {error}") from None
        return chain, context


class _Inherited:
    """A socket that systemd opened. It stays open, so that a drained node can listen on it again.

    Twisted's endpoint closes it, and would then adopt whatever file has its number.
    """

    def __init__(self, reactor: Any, endpoint: AdoptedStreamServerEndpoint) -> None:
        self._reactor = reactor
        self._file: int = endpoint.fileno
        self._family: int = endpoint.addressFamily

    def listen(self, factory: Any) -> Deferred[Any]:
        return execute(self._listen, factory)

    def _listen(self, factory: Any) -> Any:
        os.set_blocking(self._file, False)
        return self._reactor.adoptStreamPort(self._file, self._family, factory)


def _not_valid_now(chain: list[openssl.X509]) -> str:
    """Why clients would refuse a chain by the clock; empty if they would not."""
    now = datetime.now(UTC)
    for certificate in (one.to_cryptography() for one in chain):
        if now >= certificate.not_valid_after_utc:
            return f"a certificate has expired on {certificate.not_valid_after_utc:%Y-%m-%d}"
        if now < certificate.not_valid_before_utc:
            return f"a certificate is not valid before {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
    return ""


def read_chain(place: Place) -> list[bytes]:
    """The certificates of an `ssl:` endpoint in PEM, the leaf first. Raises OSError or ValueError."""
    found: list[bytes] = []
    for file in place.certificate_files:
        pems = _CERTIFICATE.findall(file.read_bytes())
        if not pems:
            raise ValueError(f"{file}: no certificate in PEM is in it")
        found += (pem for pem in pems if pem not in found)
    return found


def make(reactor: Any, description: str) -> tuple[Any, Certificates | None]:
    """Return the endpoint to listen on, and its certificates if it has any.

    Of a `haproxy:` endpoint it is the one behind that word: its connections begin with a PROXY header.

    Raises ValueError, OSError or LookupError for what `check` finds, and for what has changed since.
    """
    place = place_of(description)
    if place.is_tls:
        certificates = Certificates(place)
        backlog = int(place.options.get("backlog", LISTEN_BACKLOG))
        secure: Any = SSL4ServerEndpoint(reactor, place.port, certificates, backlog, place.interface)
        return secure, certificates
    if place.behind_proxy:
        description = description.partition(":")[2]
    if place.kind == "systemd":
        return _Inherited(reactor, serverFromString(reactor, description)), None
    if place.kind in _WITH_BACKLOG and "backlog" not in place.options:
        description += f":backlog={LISTEN_BACKLOG}"
    return serverFromString(reactor, description), None
