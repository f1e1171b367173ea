from __future__ import annotations

import gc
import os
import resource
import subprocess
import sys
from pathlib import Path

from twisted.trial import unittest

import imd
from imd.ops.process import (
    GC_ALLOCATIONS,
    RESERVED_FILES,
    connection_bound,
    settle_garbage_collector,
)

_RAISE = """
import resource
from imd.ops.process import raise_file_limit
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
print(raise_file_limit(), *resource.getrlimit(resource.RLIMIT_NOFILE))
"""


class FileLimitTests(unittest.TestCase):
    def raised(self, soft: str, hard: str) -> list[int]:
        """The returned limit, and the limits afterwards, in a process of its own."""
        code = _RAISE.format(soft=soft, hard=hard)
        environment = {**os.environ, "PYTHONPATH": str(Path(imd.__file__).parent.parent)}
        command = [sys.executable, "-c", code]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=180, check=True
        )
        return [int(number) for number in done.stdout.split()]

    def test_soft_becomes_hard(self) -> None:
        """The soft limit is raised as far as it goes."""
        self.assertEqual(self.raised("200", "300"), [300, 300, 300])

    def test_nothing_to_raise(self) -> None:
        """A limit that is as high as it can be is told as it is."""
        self.assertEqual(self.raised("300", "300"), [300, 300, 300])

    def test_the_machines_own(self) -> None:
        """With the hard limit that this machine gives, whatever it is."""
        limit, soft, _ = self.raised("200", "hard")
        self.assertEqual(limit, soft)
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        self.assertEqual(limit, 1 << 20 if hard == resource.RLIM_INFINITY else hard)


class ConnectionRoomTests(unittest.TestCase):
    def test_room(self) -> None:
        """The limit less the node's own files; at most the wanted number, never below zero."""
        self.assertEqual(connection_bound(1024, 100_000), 1024 - RESERVED_FILES)
        self.assertEqual(connection_bound(1_000_000, 100_000), 100_000)
        self.assertEqual(connection_bound(10, 100_000), 0)


class GarbageCollectorTests(unittest.SynchronousTestCase):
    def test_settled(self) -> None:
        """Existing objects are frozen, and the first generation is larger."""
        self.addCleanup(gc.set_threshold, *gc.get_threshold())
        self.addCleanup(gc.unfreeze)
        settle_garbage_collector()
        self.assertGreater(gc.get_freeze_count(), 1000)
        self.assertEqual(gc.get_threshold()[0], GC_ALLOCATIONS)
