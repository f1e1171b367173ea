"""What all of the doctor's looks share: findings in few words, deadlines, certificates, versions."""

from __future__ import annotations

import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime

from imd.command.output import Finding, Level

EXPIRY_DAYS = 21
CLOCK_SECONDS = 1.0

Look = Callable[[], Iterator[Finding]]


def ok(part: str, what: str) -> Finding:
    return Finding(Level.OK, part, what)


def note(part: str, what: str, advice: str = "") -> Finding:
    return Finding(Level.NOTE, part, what, advice)


def warning(part: str, what: str, advice: str = "") -> Finding:
    return Finding(Level.WARNING, part, what, advice)


def problem(part: str, what: str, advice: str = "") -> Finding:
    return Finding(Level.PROBLEM, part, what, advice)


def say(error: BaseException) -> str:
    """An error in one short line."""
    text = str(error).partition("\n")[0]
    return (f"{type(error).__name__}: {text}" if text else type(error).__name__)[:200]


def all_within(seconds: float, looks: dict[str, Look]) -> list[Finding]:
    """What the looks find, taken at the same time, in their order.

    One that takes longer, or breaks, is a problem of its own: names are looked up, and other people's
    libraries wait, without a deadline of ours. Their threads end with the process.
    """
    found: dict[str, list[Finding]] = {part: [] for part in looks}
    ended: set[str] = set()

    def run(part: str, look: Look) -> None:
        try:
            for finding in look():
                found[part].append(finding)
        except Exception as error:
            found[part].append(problem(part, f"cannot be looked at: {say(error)}"))
        ended.add(part)

    threads = [threading.Thread(target=run, args=each, daemon=True) for each in looks.items()]
    for thread in threads:
        thread.start()
    end = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    findings = []
    for part in looks:
        findings += list(found[part])
        if part not in ended:
            findings.append(problem(part, f"does not answer within {seconds:g} s"))
    return findings


def version_of(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", text)[:3]) or (0,)


def clock(part: str, theirs: float, asked: float, answered: float) -> Finding:
    """How far a server's clock is from this machine's. Seconds since the epoch."""
    apart = theirs - (asked + answered) / 2
    unsure = (answered - asked) / 2
    if abs(apart) - unsure < CLOCK_SECONDS:
        return ok(part, f"its clock agrees with this machine's (within {max(abs(apart), 0.001):.3f} s)")
    which = "ahead of" if apart > 0 else "behind"
    advice = "Nodes follow Redis' clock, and tokens expire by this machine's. Let NTP keep all of them."
    return warning(part, f"its clock is {abs(apart):.1f} s {which} this machine's", advice)


def expiry(part: str, what: str, not_after: float) -> Finding:
    """How long a certificate is good for still."""
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
