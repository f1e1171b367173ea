"""Tests of the command `imd`, mostly as a process of its own."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from imd.command import main
from tests.support.group_end import at_group_end, group_cache
from tests.support.nodes import NodeServer

PROGRAM = [sys.executable, "-c", "import sys; from imd.command import main; sys.exit(main())"]
SECONDS = 180


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


def here(*arguments: object) -> tuple[int, str]:
    """Exit code and output of a subcommand that needs no reactor, without a process of its own."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        return main([str(argument) for argument in arguments]), said.getvalue()


@group_cache
def shared_node() -> NodeServer:
    """A node for tests that do it no harm; it ends with this process."""
    folder = Path(tempfile.mkdtemp(prefix="imd-command-"))
    node = NodeServer(folder, {})
    at_group_end(shutil.rmtree, folder, ignore_errors=True)
    at_group_end(node.kill)
    node.start()
    return node


def write_ini(path: Path, **sections: dict[str, object]) -> Path:
    lines = []
    for section, keys in sections.items():
        lines += [f"[{section}]", *(f"{key} = {value}" for key, value in keys.items())]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path
