"""The looks of the doctor, all at the same time and with a deadline."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

from imd.command.findings import Finding, problem, say

Look = Callable[[], Iterator[Finding]]


def all_within(seconds: float, looks: dict[str, Look]) -> list[Finding]:
    """The findings of all looks, which run at the same time, in the order of `looks`.

    A look that takes longer, or breaks, is a problem of its own: looking up names, and other people's
    libraries, have no deadline of ours. Their threads end with the process.
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
