"""A running node, as the doctor sees it: does it say that it is ready?"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator

from imd.command.findings import Finding, note, ok, problem, say
from imd.config.endpoints import place_of
from imd.config.settings import Settings

PART = "node"


def reason_of(error: OSError) -> BaseException:
    """The error inside urllib's."""
    reason = getattr(error, "reason", None)
    return reason if isinstance(reason, BaseException) else error


def address(listen: str) -> str | None:
    """HOST:PORT to reach a listening endpoint from this machine; None if it is not a TCP port."""
    place = place_of(listen)
    if not place.port:
        return None
    host = place.interface
    if host in ("", "0.0.0.0"):
        host = "127.0.0.1"
    elif host == "::":
        host = "::1"
    return f"[{host}]:{place.port}" if ":" in host else f"{host}:{place.port}"


def is_plain(listen: str) -> bool:
    """True if the endpoint expects neither TLS nor a proxy's header."""
    place = place_of(listen)
    return not place.is_tls and not place.behind_proxy


def look(settings: Settings, seconds: float) -> Iterator[Finding]:
    """/readyz of the node of this configuration, if one runs."""
    where = address(settings.http.listen)
    if where is None or not is_plain(settings.http.listen):
        yield note(PART, f"{settings.http.listen} is not asked: it is no plain TCP port")
        return
    try:
        with urllib.request.urlopen(f"http://{where}/readyz", timeout=seconds):
            yield ok(PART, f"the node at {where} is ready")
    except urllib.error.HTTPError as refused:
        try:
            reasons = json.load(refused)["reasons"]
        except (ValueError, KeyError):
            yield problem(PART, f"something else answers at {where}: {refused.code}")
            return
        for part, reason in reasons.items():
            yield problem(PART, f"the node at {where} is not ready: {part}: {reason}")
    except OSError as error:
        yield note(PART, f"no node of this configuration runs here ({where}: {say(reason_of(error))})")
