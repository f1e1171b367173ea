"""Turns what trial printed into one line, `N passed, N failed`, and an exit code.

    summary.py <trial's exit code> <file with trial's output> [checks that failed beside it]
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

_VERDICT = re.compile(r"^(?:PASSED|FAILED)(?: \((.*)\))?\s*$", re.MULTILINE)


def summarize(exit_code: int, output: str, failed_checks: list[str]) -> tuple[list[str], int]:
    """The lines to print, of which the last is the count, and the exit code.

    Errors and unexpected successes are failures, expected failures are skipped. A run that tested
    nothing, or ended without a verdict, has failed.
    """
    lines = [f"{check} failed" for check in failed_checks]
    verdicts = _VERDICT.findall(output)
    counts: dict[str, int] = {}
    if verdicts:
        for part in filter(None, verdicts[-1].split(", ")):
            kind, _, number = part.partition("=")
            counts[kind] = int(number)
    passed = counts.get("successes", 0)
    failed = sum(counts.get(kind, 0) for kind in ("failures", "errors", "unexpectedSuccesses"))
    skipped = counts.get("skips", 0) + counts.get("expectedFailures", 0)
    if not verdicts:
        lines.append(f"trial ended with {exit_code} and without a verdict")
        failed += 1
    elif not counts:
        lines.append("no test was run")
        failed += 1
    elif exit_code and not failed:
        lines.append(f"trial ended with {exit_code}")
        failed += 1
    failed += len(failed_checks)
    lines.append(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    return lines, 1 if failed else 0


def main() -> int:
    exit_code, log, *failed_checks = sys.argv[1:]
    output = Path(log).read_text(errors="replace")
    lines, code = summarize(int(exit_code), output, failed_checks)
    print("\n".join(lines), flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
