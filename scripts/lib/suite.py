"""The checks of scripts/test, each with the time it took: ruff, mypy, and trial as often as was asked for.

    suite.py [--times N] [--busy] [--took STAGE=SECONDS]... [arguments of trial; default: tests]

The last line is `N passed, N failed`. It counts all runs; how often each test failed stands before it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from scripts.lib.summary import Summary, summarize  # noqa: E402

# A name of a file, for what tests have to tell beside their results: printed when all is done.
NOTES = "IMD_TEST_NOTES"
# It ends by itself, should this process be gone.
_BUSY = "import os; parent = os.getppid()\nwhile os.getppid() == parent: pass"
_FAILED_TEST = re.compile(r"(?m)^([A-Za-z_]\w*(?:\.\w+){2,})$")
_BLOCK, _END = "=" * 79, "-" * 79
# As many lines of a failure, and of each as many characters, are told again at the end: a log that is cut
# in its middle still has them. So many failures have theirs there.
_REASON, _WIDTH, _TOLD = 12, 200, 8


def failed_tests(output: str) -> dict[str, list[str]]:
    """The tests that trial names below a failure or an error, each with the last lines of the reason."""
    blocks = [one.partition(_END)[0].strip() for one in output.split(_BLOCK)[1:]]
    found = {}
    for block in blocks:
        if block.startswith(("[FAIL]", "[ERROR]")):
            reason, _, names = block.rpartition("\n\n")
            last = [line[:_WIDTH] for line in reason.splitlines()[-_REASON:]]
            found.update(dict.fromkeys(_FAILED_TEST.findall(names), last))
    return found


def is_busy(run: int, times: int, busy: bool) -> bool:
    """Every other run, the last one among them. Runs are counted from 1."""
    return busy and (times - run) % 2 == 0


@contextlib.contextmanager
def busy_loops(wanted: bool) -> Iterator[None]:
    """A loop on each core that does nothing else, while the block lasts."""
    count = len(os.sched_getaffinity(0)) if wanted else 0
    loops = [subprocess.Popen([sys.executable, "-c", _BUSY], stdin=subprocess.DEVNULL) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


class Suite:
    """Runs the checks, and remembers what failed and how long each took."""

    def __init__(self, took: dict[str, float]) -> None:
        self.took = took
        self.failed_checks: list[str] = []
        self.summaries: list[Summary] = []
        self.failures: Counter[str] = Counter()
        self.reasons: dict[str, list[str]] = {}

    def check(self, name: str, *words: str) -> None:
        """A program of the virtual environment that fails by its exit code."""
        with self._timed(name):
            if subprocess.run([_program(name), *words], cwd=ROOT).returncode:
                self.failed_checks.append(name)

    def trial(self, name: str, arguments: Sequence[str]) -> None:
        """One run of the tests."""
        # Tests wait for half of their time.
        jobs = len(os.sched_getaffinity(0)) + 2
        command = [sys.executable, str(ROOT / "scripts/lib/trial.py"), "-j", str(jobs), *arguments]
        lines: list[str] = []
        with self._timed(name):
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=_environment(),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,
            )
            assert process.stdout is not None
            try:
                for line in process.stdout:
                    print(line, end="", flush=True)
                    lines.append(line)
                code = process.wait()
            finally:
                # Ended in the middle: trial's processes would go on, and what they have started with them.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        output = "".join(lines)
        self.summaries.append(summarize(code, output))
        failed = failed_tests(output)
        self.failures.update(failed.keys())
        self.reasons |= failed

    @contextlib.contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        print(f"== {name}", file=sys.stderr, flush=True)
        began = time.monotonic()
        yield
        self.took[name] = time.monotonic() - began

    def report(self) -> tuple[list[str], int]:
        """The lines to print, of which the last is the count, and the exit code."""
        runs = len(self.summaries)
        lines = [f"{check} failed" for check in self.failed_checks]
        for number, one in enumerate(self.summaries, 1):
            lines += [f"run {number}: {reason}" if runs > 1 else reason for reason in one.reasons]
        if runs > 1:
            good = sum(not one.failed for one in self.summaries)
            lines.append(f"{good} of {runs} runs without a failure")
        for place, (name, count) in enumerate(self.failures.most_common()):
            lines.append(f"failed in {count} of {runs}: {name}")
            lines += [f"    {line}" for line in self.reasons.get(name, []) if place < _TOLD]
        lines.append("times: " + ", ".join(f"{name} {seconds:.0f} s" for name, seconds in self.took.items()))
        lines.append(f"in all {sum(self.took.values()):.0f} s")
        whole = Summary(
            sum(one.passed for one in self.summaries),
            sum(one.failed for one in self.summaries) + len(self.failed_checks),
            sum(one.skipped for one in self.summaries),
            [],
        )
        return [*lines, str(whole)], 1 if whole.failed else 0


def _environment() -> dict[str, str]:
    """This process's, but for the wish to keep no compiled modules: each of many nodes would compile all."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def _program(name: str) -> str:
    return str(Path(sysconfig.get_path("scripts"), name))


def _stage(text: str) -> tuple[str, float]:
    name, _, seconds = text.partition("=")
    return name, float(seconds)


def options(words: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Ours, and what is trial's."""
    parser = argparse.ArgumentParser(
        prog="scripts/test",
        description="Runs all checks: ruff, mypy, and the tests (further arguments are trial's).",
    )
    parser.add_argument("--times", type=int, default=1, metavar="N", help="run the tests N times in a row")
    parser.add_argument(
        "--busy",
        action="store_true",
        help="every other run, and the last one, beside a busy loop on each core",
    )
    parser.add_argument("--took", type=_stage, action="append", default=[], help=argparse.SUPPRESS)
    ours, rest = parser.parse_known_args(words)
    if ours.times < 1:
        parser.error("--times: at least 1")
    return ours, rest or ["tests"]


def main() -> int:
    ours, arguments = options(sys.argv[1:])
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    suite = Suite(dict(ours.took))
    suite.check("ruff", "check", ".")
    suite.check("mypy")
    with tempfile.TemporaryDirectory(prefix="imd-test-") as folder:
        notes = Path(folder, "notes")
        os.environ[NOTES] = str(notes)
        for run in range(1, ours.times + 1):
            busy = is_busy(run, ours.times, ours.busy)
            name = "trial" if ours.times == 1 else f"trial {run}"
            with busy_loops(busy):
                suite.trial(name + " (busy)" * busy, arguments)
        if notes.exists():
            print(notes.read_text(), end="")
    lines, code = suite.report()
    print("\n".join(lines), flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
