"""Reads what trial printed: how many tests passed, failed and were skipped, and what else went wrong."""

from __future__ import annotations

import re
from typing import NamedTuple

_VERDICT = re.compile(r"^(?:PASSED|FAILED)(?: \((.*)\))?\s*$", re.MULTILINE)


class Summary(NamedTuple):
    """Of one run or several. `reasons` are failures that are no test's."""

    passed: int
    failed: int
    skipped: int
    reasons: list[str]

    def __str__(self) -> str:
        skipped = f", {self.skipped} skipped" if self.skipped else ""
        return f"{self.passed} passed, {self.failed} failed{skipped}"


def summarize(exit_code: int, output: str) -> Summary:
    """Read the output of a run of trial that ended with `exit_code`.

    Errors and unexpected successes are failures, expected failures are skipped. A run that tested
    nothing, or ended without a verdict, has failed.
    """
    verdicts = _VERDICT.findall(output)
    counts: dict[str, int] = {}
    if verdicts:
        for part in filter(None, verdicts[-1].split(", ")):
            kind, _, number = part.partition("=")
            counts[kind] = int(number)
    failed = sum(counts.get(kind, 0) for kind in ("failures", "errors", "unexpectedSuccesses"))
    skipped = counts.get("skips", 0) + counts.get("expectedFailures", 0)
    reasons = []
    if not verdicts:
        reasons.append(f"trial ended with {exit_code} and without a verdict")
    elif not counts:
        reasons.append("no test was run")
    elif exit_code and not failed:
        reasons.append(f"trial ended with {exit_code}")
    return Summary(counts.get("successes", 0), failed + len(reasons), skipped, reasons)
