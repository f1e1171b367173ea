"""The code of 0.1.0, from the repository's history, for tests that run it beside this version."""

from __future__ import annotations

import atexit
import io
import os
import shutil
import subprocess
import tarfile
import tempfile
from functools import cache
from pathlib import Path

from tests.support.nodes import NodeServer
from tests.support.paths import ROOT

COMMIT = "88fe1df23a9c2e652df03511ef378404821ee41a"
"""0.1.0; a checkout may lack the tag"""
MISSING = "the history of this checkout does not reach back to 0.1.0, whose code this test runs"


class NoHistory(Exception):
    """The code of 0.1.0 is not there: the checkout is shallow, or no checkout."""


@cache
def old_tree() -> Path:
    """A folder with the code of 0.1.0, for as long as this process lives. Raises NoHistory."""
    command = ["git", "-C", str(ROOT), "archive", "--format=tar", COMMIT]
    try:
        archived = subprocess.run(command, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        raise NoHistory(MISSING) from None
    folder = Path(tempfile.mkdtemp(prefix="imd-0.1.0-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with tarfile.open(fileobj=io.BytesIO(archived)) as tar:
        tar.extractall(folder, filter="data")
    return folder


def old_environment() -> dict[str, str]:
    """The environment in which Python imports 0.1.0. Raises NoHistory."""
    return {**os.environ, "PYTHONPATH": str(old_tree())}


class OldNode(NodeServer):
    """A node of 0.1.0, on the libraries of this version: 0.1.0 asks for the same ones."""

    def _environment(self) -> dict[str, str] | None:
        return old_environment()
