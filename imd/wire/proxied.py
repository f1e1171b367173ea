"""Connections to a `haproxy:` endpoint: from trusted proxies, and each begins with a PROXY header."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.logger import Logger
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory

from imd.entry.forwarded import Client, Trusted, client_by_header, client_of
from imd.entry.proxy_header import Header, parse
from imd.observe.seldom import Seldom


class Proxied(ProtocolWrapper):
    """Passes on what follows the header. Writes and reads go to the transport below, unchanged."""

    factory: ProxiedFactory
    transport: Any
    wrappedProtocol: Any
    header: Header | None = None
    """None until it has come"""
    _early = b""

    def dataReceived(self, data: bytes) -> None:
        if self.header is not None:
            self.wrappedProtocol.dataReceived(data)
            return
        self._early += data
        try:
            self.header = parse(self._early)
        except ValueError as error:
            self.factory.refused(str(error), self.transport.getPeer())
            self.transport.abortConnection()
            return
        if self.header is not None:
            rest, self._early = self._early[self.header.size :], b""
            if rest:
                self.wrappedProtocol.dataReceived(rest)

    def getPeer(self) -> Any:
        if self.header is None or self.header.source is None:
            return self.transport.getPeer()
        kind = IPv6Address if ":" in self.header.source else IPv4Address
        return kind("TCP", self.header.source, self.header.port)


class ProxiedFactory(WrappingFactory):
    """Closes connections that do not come from a trusted proxy."""

    protocol = Proxied
    noisy = False
    _log = Logger()

    def __init__(self, wrapped: Any, trusted: Trusted, seconds: Any) -> None:
        """`seconds` is a monotonic clock."""
        super().__init__(wrapped)
        self._trusted = trusted
        self._seldom = Seldom(self._log, seconds)

    def buildProtocol(self, addr: Any) -> Any:
        if not self._trusted.has(address_of(addr)):
            self.refused("it is not one of [websocket] trusted_proxies", addr)
            return None
        return super().buildProtocol(addr)

    def refused(self, why: str, peer: Any) -> None:
        self._seldom.warn(
            "a connection from {peer} to a haproxy: endpoint was closed: {why}",
            cause="refused",
            peer=address_of(peer) or "a Unix socket",
            why=why,
        )


def client_behind(transport: Any, headers: Mapping[str, str], trusted: Trusted) -> Client:
    """Where an HTTP request comes from, by what trusted proxies say. Names in `headers` are in lower case."""
    peer = address_of(transport.getPeer())
    if isinstance(transport, Proxied):
        return client_by_header(peer, headers, trusted)
    return client_of(peer, headers, trusted)


def address_of(peer: Any) -> str | None:
    """The IP address of a peer; None for a Unix socket's."""
    return getattr(peer, "host", None) or None
