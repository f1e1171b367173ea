"""Histories in which a drill found violations: each is kept in a file, to be judged again.

scripts/drill judge FILE...
"""

from __future__ import annotations

import argparse
import os
import pickle
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.tools.drill.checker import check
from tests.tools.drill.history import History


def keep(history: History) -> Path:
    """The file that the history is in from now on."""
    descriptor, name = tempfile.mkstemp(prefix="imd-drill-", suffix=".history")
    with os.fdopen(descriptor, "wb") as file:
        pickle.dump(history, file)
    return Path(name)


def main(argv: Sequence[str]) -> int:
    """0 when no history has a violation; 1 when one has."""
    parser = argparse.ArgumentParser(
        prog="scripts/drill judge",
        description="Judge histories once more. A file can run code when it is read: judge your own only.",
    )
    parser.add_argument("files", metavar="FILE", nargs="+", type=Path)
    found = 0
    for path in parser.parse_args(argv).files:
        history = pickle.loads(path.read_bytes())
        violations = check(history)
        found += len(violations)
        print(f"{path}: {len(history.messages)} messages, {len(violations)} violations")
        for violation in violations:
            print(f"  {violation.kind}: {violation.what}")
    return 1 if found else 0
