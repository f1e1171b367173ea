"""An older version of the project beside the present one: a worktree of a Git ref in a temporary folder."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.support.paths import ROOT
from tests.tools.bench.clients import Wrong


@contextlib.contextmanager
def worktree(ref: str, folder: Path, repository: Path = ROOT) -> Iterator[Path]:
    """The sources of `ref`, while the block lasts. Raises Wrong without such a ref, or a repository."""
    tree = folder / "tree"
    _git(repository, "worktree", "add", "--detach", "--force", str(tree), commit(ref, repository))
    try:
        yield tree
    finally:
        _git(repository, "worktree", "remove", "--force", str(tree))


def commit(ref: str, repository: Path = ROOT) -> str:
    """The full name of the commit that `ref` stands for. Raises Wrong."""
    return _git(
        repository, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}"
    ).strip()


def environment(tree: Path) -> dict[str, str]:
    """In which `twistd imd` runs the code of this tree, whatever is installed."""
    return {**os.environ, "PYTHONPATH": str(tree), "PYTHONHASHSEED": "0"}


def check_code(tree: Path) -> None:
    """Raises Wrong unless this tree's code is what a node of it would run."""
    command = [sys.executable, "-c", "import imd; print(imd.__file__)"]
    # Not where this process is: its folder would come first.
    done = subprocess.run(command, cwd="/", env=environment(tree), capture_output=True, text=True)
    if not Path(done.stdout.strip() or "/").is_relative_to(tree):
        raise Wrong(f"a node would not run the code in {tree}: {done.stdout}{done.stderr}")


def _git(repository: Path, *words: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(repository), *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
    except FileNotFoundError:
        raise Wrong("git is not installed") from None
    if done.returncode:
        raise Wrong(f"git {' '.join(words)}: {done.stderr.strip() or 'there is no such commit'}")
    return done.stdout
