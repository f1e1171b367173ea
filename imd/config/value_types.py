"""The values that a configuration may have: one `Kind` for each sort of key."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from configparser import RawConfigParser
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from imd.config import endpoints
from imd.config.reachable import EXPECTED_ADDRESS, parse_address


class Kind(NamedTuple):
    """How a value is read. `parse` raises ValueError; `expected` describes good values."""

    parse: Callable[[str], Any]
    expected: str
    choices: tuple[str, ...] = ()


def text(expected: str, pattern: str = r"[^\n]*", choices: tuple[str, ...] = ()) -> Kind:
    """Text that `pattern` matches as a whole."""

    def parse(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError
        return value

    return Kind(parse, expected, choices)


def choice(*choices: str) -> Kind:
    return text(" or ".join(choices), "|".join(map(re.escape, choices)), choices)


def integer(least: int, most: int) -> Kind:
    def parse(value: str) -> int:
        if not re.fullmatch(r"-?[0-9]{1,18}", value) or not least <= int(value) <= most:
            raise ValueError
        return int(value)

    return Kind(parse, f"a whole number, {least} to {most}")


def number(unit: str, least: float, most: float) -> Kind:
    """A decimal number; it is above 0 even if `least` is 0."""

    def parse(value: str) -> float:
        if not re.fullmatch(r"[0-9]{1,18}(?:\.[0-9]{1,18})?", value):
            raise ValueError
        result = float(value)
        if result <= 0 or not least <= result <= most:
            raise ValueError
        return result

    begins = f"{least:.15g} to" if least else "above 0 and up to"
    return Kind(parse, f"a number of {unit}, {begins} {most:.15g}")


def pause(most: float = 86400) -> Kind:
    """Seconds that may be none at all."""
    above = seconds(0, most)

    def parse(value: str) -> float:
        return 0.0 if re.fullmatch(r"0(?:\.0{1,18})?", value) else above.parse(value)

    return Kind(parse, f"a number of seconds, 0 to {most:.15g}")


def seconds(least: float = 0, most: float = 86400) -> Kind:
    return number("seconds", least, most)


def days() -> Kind:
    return number("days", 0, 36500)


def switch() -> Kind:
    def parse(value: str) -> bool:
        state = RawConfigParser.BOOLEAN_STATES.get(value.lower())
        if state is None:
            raise ValueError
        return state

    return Kind(parse, "yes or no")


def origins() -> Kind:
    """A tuple of patterns, in lower case, as imd.entry.handshake matches them."""

    def parse(value: str) -> tuple[str, ...]:
        patterns = tuple(filter(None, re.split(r"[\s,]+", value.lower())))
        # Without a scheme, or with a path, a pattern would never match anything.
        if not all(re.fullmatch(r"null|\*[^/]*|[^/]+://[^/]+", pattern) for pattern in patterns):
            raise ValueError
        return patterns

    return Kind(
        parse, "origins such as https://*.example.com or http://localhost:*, split by commas or white space"
    )


def proxies() -> Kind:
    """A tuple of addresses, networks and `unix`, as imd.entry.forwarded takes them."""

    def parse(value: str) -> tuple[str, ...]:
        words = tuple(filter(None, re.split(r"[\s,]+", value.lower())))
        for word in words:
            if word != "unix":
                ipaddress.ip_network(word)
        return words

    return Kind(
        parse,
        "IP addresses and networks such as 10.0.0.1 or 10.0.0.0/8, and unix for the peers of a Unix socket, "
        "split by commas or white space",
    )


def reachable() -> Kind:
    """HOST:PORT that others reach, or nothing."""
    return Kind(lambda value: str(parse_address(value)) if value else "", f"{EXPECTED_ADDRESS}, or nothing")


# ---- where to listen


def endpoint() -> Kind:
    """A string for twisted.internet.endpoints.serverFromString; nothing is bound."""

    def parse(value: str) -> str:
        if "\n" in value:
            raise ValueError("one line is expected")
        endpoints.check(value)
        return value

    return Kind(
        parse, r"a Twisted endpoint such as tcp:9000:interface=127.0.0.1 or tcp6:9000:interface=\:\:1"
    )


def control() -> Kind:
    """A unix: endpoint that only its owner and its group can reach; or nothing.

    Without a mode it is for its owner alone.
    """

    def parse(value: str) -> str:
        if not value:
            return value
        if not value.startswith("unix:"):
            raise ValueError("only the permissions of a Unix socket protect it")
        if ":mode=" not in value:
            value += ":mode=600"
        endpoint().parse(value)
        if int(endpoints.place_of(value).options.get("mode", "666"), 8) & 0o007:
            raise ValueError("its mode lets everybody in")
        return value

    return Kind(parse, "unix:PATH:mode=600, or nothing")


def is_loopback(listen: str) -> bool:
    """True if only this machine can reach the endpoint, which must be well-formed."""
    place = endpoints.place_of(listen)
    if place.is_unix and not place.behind_proxy:
        return True
    # A proxy lets in anybody, and a plugged-in endpoint may listen anywhere.
    if place.behind_proxy or place.kind not in ("tcp", "tcp6", "ssl"):
        return False
    if place.interface == "localhost":
        return True
    try:
        return ipaddress.ip_address(place.interface).is_loopback
    except ValueError:
        return False


# ---- URLs of backends


def websocket_url() -> Kind:
    """A WebSocket's URL, or a path on the page's own origin; it may be empty."""
    shape = "wss://HOST[:PORT]/PATH, or a path such as /ws"
    absolute = _url(shape, ("ws", "wss"), r"(?:/[^?]*)?").parse

    def parse(value: str) -> str:
        # Two slashes would be another host's.
        return value if re.fullmatch(r"|/(?!/)[^\s?#\\]*", value) else absolute(value)

    return Kind(parse, shape)


def redis_url() -> Kind:
    shape = "redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE NUMBER]"
    return _url(shape, ("redis", "rediss"), r"/?|/[0-9]{1,5}", options=False)


def amqp_url() -> Kind:
    return _url("amqp://[USER:PASSWORD@]HOST[:PORT][/VIRTUAL HOST]", ("amqp", "amqps"), r"|/[^/]*")


def mongodb_url() -> Kind:
    shape = "mongodb://[USER:PASSWORD@]HOST[:PORT],...[/DATABASE][?OPTIONS]"
    return _url(shape, ("mongodb", "mongodb+srv"), r'|/[^/\\. "$]{0,63}', many_hosts=True)


def _url(
    shape: str, schemes: tuple[str, ...], path: str, *, many_hosts: bool = False, options: bool = True
) -> Kind:
    def parse(value: str) -> str:
        # urlsplit drops line feeds and tabs silently.
        if re.search(r"\s", value):
            raise ValueError
        parts = urlsplit(value)
        _, _, hosts = parts.netloc.rpartition("@")
        each = hosts.split(",") if many_hosts else [hosts]
        if parts.scheme not in schemes or parts.fragment or not re.fullmatch(path, parts.path):
            raise ValueError
        if parts.query and not options:
            raise ValueError
        if not all(_is_host_and_port(host) for host in each):
            raise ValueError
        return value

    begins = " or ".join(f"{scheme}://" for scheme in schemes)
    return Kind(parse, f"{shape}, beginning with {begins}")


def _is_host_and_port(value: str) -> bool:
    match = re.fullmatch(r"(?:[\w.-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?", value)
    return match is not None and 0 < int(match[1] or 1) <= 65535
