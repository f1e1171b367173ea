"""The header of the PROXY protocol, versions 1 and 2: where a proxy's client comes from."""

from __future__ import annotations

import ipaddress
import struct
from typing import NamedTuple

MAX_BYTES = 4096
"""of one header, with what version 2 appends to the addresses"""

_V1 = b"PROXY "
_V1_BYTES = 107
_V2 = b"\r\n\r\n\0\r\nQUIT\n"
_V2_HEAD = struct.Struct("!12sBBH")
_LOCAL, _PROXY = 0x20, 0x21
# Address bytes and the format of both ports, by family and transport: TCP over IPv4 and IPv6.
_V2_ADDRESS_BYTES = {0x11: 4, 0x21: 16}


class Header(NamedTuple):
    """`source` is the client's IP address; None if the proxy speaks for itself, or does not know."""

    source: str | None
    port: int
    size: int
    """of the header, in bytes"""


def parse(data: bytes) -> Header | None:
    """The header that the first bytes of a connection begin with; None while it is not complete.

    Raises ValueError for anything else.
    """
    if data[: len(_V1)] == _V1[: len(data)]:
        return _parse_text(data)
    if data[: len(_V2)] == _V2[: len(data)]:
        return _parse_binary(data)
    raise ValueError("no PROXY header")


def _parse_text(data: bytes) -> Header | None:
    line, end, _ = data[:_V1_BYTES].partition(b"\r\n")
    if not end:
        if len(data) >= _V1_BYTES:
            raise ValueError("a PROXY header that is too long")
        return None
    size = len(line) + len(end)
    words = line.decode("ascii").split(" ")
    if words[1] == "UNKNOWN":
        return Header(None, 0, size)
    _, kind, source, destination, port, its_port = words
    version = {"TCP4": 4, "TCP6": 6}[kind] if kind in ("TCP4", "TCP6") else 0
    addresses = [ipaddress.ip_address(text) for text in (source, destination)]
    ports = [int(text) for text in (port, its_port) if text.isascii() and text.isdecimal() and len(text) <= 5]
    if any(address.version != version for address in addresses) or len(ports) < 2 or max(ports) > 65535:
        raise ValueError("a PROXY header with addresses that are none")
    return Header(str(addresses[0]), ports[0], size)


def _parse_binary(data: bytes) -> Header | None:
    if len(data) < _V2_HEAD.size:
        return None
    _, command, kind, length = _V2_HEAD.unpack_from(data)
    size = _V2_HEAD.size + length
    if command not in (_LOCAL, _PROXY) or size > MAX_BYTES:
        raise ValueError("a PROXY header of an unknown version or command, or too long")
    if len(data) < size:
        return None
    address_bytes = _V2_ADDRESS_BYTES.get(kind)
    if command == _LOCAL or address_bytes is None:
        return Header(None, 0, size)
    if length < 2 * address_bytes + 4:
        raise ValueError("a PROXY header without addresses")
    start = _V2_HEAD.size
    source = ipaddress.ip_address(data[start : start + address_bytes])
    (port,) = struct.unpack_from("!H", data, start + 2 * address_bytes)
    return Header(str(source), port, size)
