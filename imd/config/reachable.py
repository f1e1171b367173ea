"""How others reach a node: the name that a gateway calls it by, and the addresses behind its listeners."""

from __future__ import annotations

import re
from typing import NamedTuple

from imd.config.endpoints import Place, place_of

MAX_NAME_CHARS = 100
EXPECTED_NAME = "1 to 100 letters, digits and _ . : -"
EXPECTED_ADDRESS = "HOST:PORT, a name or an address that others reach"
NAME = re.compile(rf"[A-Za-z0-9_.:-]{{1,{MAX_NAME_CHARS}}}")
_ADDRESS = re.compile(r"(?:([A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?)|\[([0-9A-Fa-f:.]+)\]):([0-9]{1,5})")
_UNSPECIFIED = re.compile(r"0\.0\.0\.0|[0:]+|")


class Address(NamedTuple):
    """Where a TCP port is reached: a name or an IP address without brackets, and the port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Listening(NamedTuple):
    """Where clients reach a node, and what its listener expects of them."""

    address: Address
    tls: bool
    proxy: bool
    """the listener takes the PROXY protocol"""


def check_name(name: str) -> str:
    """The name of a node behind a gateway. Raises ValueError: HAProxy takes no other characters."""
    if not NAME.fullmatch(name):
        raise ValueError(f"{EXPECTED_NAME} are expected")
    return name


def parse_address(text: str) -> Address:
    """HOST:PORT or [IPV6]:PORT. Raises ValueError, also for the address of all interfaces."""
    match = _ADDRESS.fullmatch(text)
    if match is None or not 0 < int(match[3]) <= 65535:
        raise ValueError(f"{EXPECTED_ADDRESS} is expected")
    host = match[1] or match[2]
    if _UNSPECIFIED.fullmatch(host):
        raise ValueError(f"{host} stands for any address: {EXPECTED_ADDRESS} is expected")
    return Address(host, int(match[3]))


def listening(listen: str, advertise: str = "") -> Listening:
    """How others reach a Twisted endpoint: `tcp:`, `tcp6:`, `ssl:`, or `tcp:` and `tcp6:` after `haproxy:`.

    `advertise`, HOST:PORT, takes the place of its address where it is given. Raises ValueError if others
    could not connect there: no TCP port, no interface, or one that stands for any.
    """
    place = place_of(listen)
    if place.behind_proxy and place.is_tls:
        # HAProxy sends the header in clear, before TLS; Twisted expects it within TLS.
        raise ValueError("haproxy:ssl: does not work with HAProxy: haproxy:tcp: or ssl: is expected")
    address = parse_address(advertise) if advertise else _own_address(place)
    return Listening(address, place.is_tls, place.behind_proxy)


def _own_address(place: Place) -> Address:
    if place.port is None:
        raise ValueError(f"a {place.kind}: endpoint is no TCP port: {EXPECTED_ADDRESS} is expected")
    if not place.interface:
        raise ValueError(f"it listens on every interface: {EXPECTED_ADDRESS} is expected")
    host = f"[{place.interface}]" if ":" in place.interface else place.interface
    return parse_address(f"{host}:{place.port}")
