"""The first door: may this HTTP request become a WebSocket?

In open mode the connection must come from this machine. Its address must be local. So must the name in its
Host header: a foreign page may have a name that points here. No proxy may be between, as it would let anybody
in.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

from imd.entry.forwarded import tells_of_a_proxy

PATH = "/ws"

_MAX_HEADER_CHARS = 512
_HOST = r"(\[[0-9a-f:.]+\]|[a-z0-9_-]+(?:\.[a-z0-9_-]+)*)"
_HOST_HEADER = re.compile(_HOST + r"(?::([0-9]{1,5}))?", re.IGNORECASE | re.ASCII)
_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://" + _HOST + r"(?::([0-9]{1,5}))?", re.IGNORECASE | re.ASCII)
_DEFAULT_PORTS = {"http": 80, "https": 443}


class Denied(Exception):
    """The request is answered with this HTTP status, and no WebSocket is opened."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"{status} {reason}")
        self.status = status
        self.reason = reason


def check_request(
    path: str,
    headers: Mapping[str, str],
    peer_host: str | None,
    open_mode: bool,
    origins: Sequence[str],
    secure: bool | None = None,
) -> None:
    """Raise Denied unless this request may become a WebSocket.

    `path` is without the query. Names in `headers` are in lower case. `peer_host` is the peer's IP address,
    or None for a Unix socket. `origins` are patterns as `matches` takes them.
    `secure`: whether the client speaks TLS, by the word of a trusted proxy; None: nobody says.
    """
    if path != PATH:
        raise Denied(404, f"there is a WebSocket at {PATH}")
    host = _host_of(headers.get("host", ""))
    if open_mode:
        if peer_host is not None and not _is_loopback_address(peer_host):
            raise Denied(403, "open mode: only from this machine")
        if host is None or not _is_loopback_name(host):
            raise Denied(403, "open mode: the Host header must name this machine")
        if tells_of_a_proxy(headers):
            raise Denied(403, "open mode: not through a proxy")
    origin = headers.get("origin")
    if origin is not None and not _is_welcome(origin, host, origins, secure):
        raise Denied(403, "this origin may not connect")


def _is_welcome(text: str, host: str | None, origins: Sequence[str], secure: bool | None) -> bool:
    if text == "null":
        return any(matches(text, pattern) for pattern in origins)
    origin = _parse_origin(text)
    if origin is None:
        return False
    scheme, name, port = origin
    if not origins:
        # A page without TLS is another site than a WebSocket with it.
        return scheme in (("https",) if secure else _DEFAULT_PORTS) and name == host
    # Built anew from its parts, so that patterns never see a user, path or fragment.
    default = _DEFAULT_PORTS.get(scheme)
    spellings = [f"{scheme}://{name}" if port is None else f"{scheme}://{name}:{port}"]
    if default is not None and port in (None, default):
        spellings = [f"{scheme}://{name}", f"{scheme}://{name}:{default}"]
    return any(matches(spelling, pattern) for spelling in spellings for pattern in origins)


def matches(origin: str, pattern: str) -> bool:
    """True if the pattern matches the whole origin. `*` stands for any characters, and `?` for one.

    No other character is special: brackets are those of an IPv6 address.
    """
    return _compiled(pattern).fullmatch(origin) is not None


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    parts = {"*": ".*", "?": "."}
    return re.compile("".join(parts.get(char) or re.escape(char) for char in pattern.lower()))


def _parse_origin(text: str) -> tuple[str, str, int | None] | None:
    """Scheme, host and port of an origin; None if it is not one, or has more parts."""
    match = _ORIGIN.fullmatch(text) if len(text) <= _MAX_HEADER_CHARS else None
    if match is None:
        return None
    host, port = _normal_host(match[2]), _port(match[3])
    return None if host is None or port == 0 else (match[1].lower(), host, port)


def _host_of(text: str) -> str | None:
    """The host in a Host header, without the port; None if the header is malformed."""
    match = _HOST_HEADER.fullmatch(text) if len(text) <= _MAX_HEADER_CHARS else None
    if match is None or _port(match[2]) == 0:
        return None
    return _normal_host(match[1])


def _port(text: str | None) -> int | None:
    """The port; None if none is given, 0 if it is too large."""
    if text is None:
        return None
    return int(text) if int(text) <= 65535 else 0


def _normal_host(text: str) -> str | None:
    """The one spelling of a host: in lower case, an IPv6 address compressed. None for a bad address."""
    if not text.startswith("["):
        return text.lower()
    try:
        return f"[{ipaddress.IPv6Address(text[1:-1]).compressed}]"
    except ValueError:
        return None


def _is_loopback_address(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _is_loopback_name(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    return _is_loopback_address(host.strip("[]"))
