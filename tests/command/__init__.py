"""Tests of the command `imd`, mostly as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = [sys.executable, "-c", "import sys; from imd.command import main; sys.exit(main())"]
SECONDS = 60


def imd(*arguments: object, input: str = "", **environment: str) -> tuple[int, str, str]:
    """Exit code, output and errors of `imd …`."""
    done = subprocess.run(
        [*PROGRAM, *map(str, arguments)],
        input=input,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        env={**os.environ, **environment},
    )
    return done.returncode, done.stdout, done.stderr


def write_ini(path: Path, **sections: dict[str, object]) -> Path:
    lines = []
    for section, keys in sections.items():
        lines += [f"[{section}]", *(f"{key} = {value}" for key, value in keys.items())]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path
