"""Findings that several looks share: versions, clocks, certificates."""

from __future__ import annotations

import re
import socket
import ssl
import time
from datetime import datetime

from imd.command.findings import Finding, ok, problem, say, warning

EXPIRY_DAYS = 21
CLOCK_SECONDS = 1.0


def version_of(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", text)[:3]) or (0,)


def clock(part: str, theirs: float, asked: float, answered: float) -> Finding:
    """A server's clock compared with this machine's. All times are seconds since the epoch."""
    apart = theirs - (asked + answered) / 2
    unsure = (answered - asked) / 2
    if abs(apart) - unsure < CLOCK_SECONDS:
        return ok(part, f"its clock agrees with this machine's (within {max(abs(apart), 0.001):.3f} s)")
    which = "ahead of" if apart > 0 else "behind"
    advice = "Nodes follow Redis' clock, and tokens expire by this machine's. Let NTP keep all of them."
    return warning(part, f"its clock is {abs(apart):.1f} s {which} this machine's", advice)


def expiry(part: str, what: str, not_after: float) -> Finding:
    """The days that a certificate has left. `not_after`: seconds since the epoch."""
    days = (not_after - time.time()) / 86400
    day = datetime.fromtimestamp(not_after).strftime("%F")
    if days < 0:
        return problem(part, f"{what} expired on {day}")
    if days < EXPIRY_DAYS:
        return warning(part, f"{what} expires on {day}, in {days:.0f} days")
    return ok(part, f"{what} is good until {day}")


def certificate(part: str, host: str, port: int, seconds: float) -> Finding:
    """The certificate that a server shows, by the rules that this machine judges with."""
    try:
        with (
            socket.create_connection((host, port), timeout=seconds) as plain,
            ssl.create_default_context().wrap_socket(plain, server_hostname=host) as secure,
        ):
            shown = secure.getpeercert() or {}
    except ssl.SSLCertVerificationError as error:
        return problem(part, f"the certificate of {host} is not trusted here: {error.verify_message}")
    except OSError as error:
        return problem(part, f"no TLS with {host}:{port}: {say(error)}")
    return expiry(part, f"the certificate of {host}", ssl.cert_time_to_seconds(str(shown["notAfter"])))
