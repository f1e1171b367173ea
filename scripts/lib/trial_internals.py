"""The private part of trial that scripts/lib/trial.py depends on: `DistTrialRunner._driveWorker`.

Trial has no public way to choose the process that a test runs in. Its runner calls `_driveWorker` once for
each process, always with the same iterator over all tests; each call takes the next test until none is left.
Beside it, `run` of the worker that it is given runs one test there.
"""

from __future__ import annotations

import inspect
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

from twisted.python.failure import Failure
from twisted.scripts import trial
from twisted.trial import reporter
from twisted.trial._dist.worker import LocalWorkerAMP

_PARAMETERS = ["self", "result", "testCases", "worker"]
_RUN_PARAMETERS = ["self", "testCase", "result"]


def missing(module: Any = trial) -> list[str]:
    """The parts that this version of trial does not have any more, in words; empty if all are there."""
    runner = getattr(module, "DistTrialRunner", None)
    if runner is None:
        return ["twisted.scripts.trial.DistTrialRunner"]
    drive = getattr(runner, "_driveWorker", None)
    if drive is None:
        return ["DistTrialRunner._driveWorker"]
    gone = []
    parameters = list(inspect.signature(drive).parameters)
    if parameters != _PARAMETERS:
        gone.append(f"the parameters {_PARAMETERS} of DistTrialRunner._driveWorker: it has {parameters}")
    if not inspect.iscoroutinefunction(drive):
        gone.append("DistTrialRunner._driveWorker as a coroutine")
    parameters = list(inspect.signature(LocalWorkerAMP.run).parameters)
    if parameters != _RUN_PARAMETERS:
        gone.append(f"the parameters {_RUN_PARAMETERS} of LocalWorkerAMP.run: it has {parameters}")
    return gone


def hand_out(
    grouped: Callable[[Iterable[Any]], list[list[Any]]],
    took: Callable[[list[Any], float], None],
    ending: Any,
) -> None:
    """Have trial give its processes whole groups of tests.

    `grouped` splits all tests; `took` is told of each group that has ended, with its seconds. `ending` is a
    test that is run after each group, and counts only if it fails. Raises RuntimeError, which names the
    missing parts, if this version of trial cannot do it.
    """
    gone = missing()
    if gone:
        raise RuntimeError(f"this version of trial lacks: {'; '.join(gone)}")
    base: Any = trial.DistTrialRunner

    class GroupRunner(base):
        """Takes groups where trial takes single tests."""

        _groups: list[list[Any]] = []

        def run(self, test: Any, *rest: Any) -> Any:
            # Trial itself would wait for ever: it stops a reactor that is not running yet.
            if not test.countTestCases():
                sys.exit("no test has such a name")
            return super().run(test, *rest)

        async def _driveWorker(self, result: Any, testCases: Iterable[Any], worker: Any) -> None:
            # The first process empties the iterator, and makes the groups for all of them.
            self._groups = self._groups or grouped(testCases)
            while self._groups:
                group = self._groups.pop(0)
                began = time.monotonic()
                await super()._driveWorker(result, group, worker)
                await self._end(result, worker)
                took(group, time.monotonic() - began)

        async def _end(self, result: Any, worker: Any) -> None:
            ended = reporter.TestResult()
            try:
                await worker.run(ending, ended)
            except Exception:
                ended.addError(ending, Failure())
            for case, failure in (*ended.errors, *ended.failures):
                result.original.addError(case, failure)

    trial.DistTrialRunner = GroupRunner
