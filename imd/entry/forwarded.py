"""The client behind proxies: its address and its scheme, by headers of proxies that are trusted."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

UNIX = "unix"
"""in `trusted_proxies`: the peers of a Unix socket that the node listens on"""
MAX_HOPS = 32

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_BRACKETED = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::[0-9]{1,5})?")
_WITH_PORT = re.compile(r"([0-9.]+):[0-9]{1,5}")
_FORWARDING = ("forwarded", "x-real-ip", "via")


@dataclass(frozen=True, slots=True)
class Trusted:
    """The proxies that are believed."""

    networks: tuple[Network, ...] = ()
    unix: bool = False

    def has(self, address: str | None) -> bool:
        """`address`: an IP address in its normal form, None for the peer of a Unix socket."""
        if address is None:
            return self.unix
        try:
            ip = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(ip.version == network.version and ip in network for network in self.networks)


class Client(NamedTuple):
    """Where a connection comes from. `address` is None for a Unix socket without a believed header."""

    address: str | None
    secure: bool | None
    """whether the client speaks TLS with the first proxy; None: no trusted proxy says"""
    disbelieved: bool
    """a peer that is not trusted sent forwarding headers: `address` may be a proxy's"""


def parse_trusted(words: Sequence[str]) -> Trusted:
    """IP addresses, networks, and `unix`. Raises ValueError for anything else, and for host bits set."""
    networks = tuple(ipaddress.ip_network(word) for word in words if word != UNIX)
    return Trusted(networks, UNIX in words)


def client_of(peer: str | None, headers: Mapping[str, str], trusted: Trusted) -> Client:
    """`peer` is the peer's IP address, None for a Unix socket; names in `headers` are in lower case, and the
    lines of one header are joined by commas.

    From a trusted peer the client is the last address in X-Forwarded-For that is not trusted. An entry that
    is no address ends the search: the proxy that sent it counts. From others nothing is believed.
    """
    address = _normal(peer) if peer is not None else None
    if peer is not None and address is None:
        return Client(peer, None, tells_of_a_proxy(headers))
    if not trusted.has(address):
        return Client(address, None, tells_of_a_proxy(headers))
    hops = headers.get("x-forwarded-for", "").split(",")
    for hop in reversed(hops[-MAX_HOPS:]):
        earlier = _normal(hop)
        if earlier is None:
            break
        address = earlier
        if not trusted.has(address):
            break
    return Client(address, _scheme(headers), False)


def client_by_header(source: str | None, headers: Mapping[str, str], trusted: Trusted) -> Client:
    """The same behind a trusted proxy that speaks the PROXY protocol. `source` is the client that its header
    names, or the proxy itself.

    It may be another proxy that is trusted: then the client that this one names counts.
    """
    if trusted.has(source) or source is None:
        return client_of(source, headers, trusted)
    return Client(_normal(source) or source, _scheme(headers), False)


def tells_of_a_proxy(headers: Mapping[str, str]) -> bool:
    return any(name in _FORWARDING or name.startswith("x-forwarded") for name in headers)


def _scheme(headers: Mapping[str, str]) -> bool | None:
    proto = headers.get("x-forwarded-proto", "").rpartition(",")[2].strip().lower()
    return {"https": True, "wss": True, "http": False, "ws": False}.get(proto)


def _normal(text: str) -> str | None:
    """One spelling for each address, without port, brackets or zone; IPv4 within IPv6 is IPv4."""
    text = text.strip()[:64]
    match = _BRACKETED.fullmatch(text) or _WITH_PORT.fullmatch(text)
    try:
        ip = ipaddress.ip_address(match[1] if match else text.partition("%")[0])
    except ValueError:
        return None
    return str(getattr(ip, "ipv4_mapped", None) or ip)
