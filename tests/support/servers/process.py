"""Processes that die with the one that started them, however that ends."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from tests.support.servers.errors import ServerError

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def pauses() -> Iterator[float]:
    """Seconds from look to look: few at first, more later. To look is what costs while nothing happens."""
    seconds = 0.02
    while True:
        yield seconds
        seconds = min(seconds * 1.2, 0.25)


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Block until `condition` is true. Raises ServerError when it still is not after `seconds`."""
    end, pause = time.monotonic() + seconds, pauses()
    while not condition():
        if time.monotonic() > end:
            raise ServerError(f"{what}: not within {seconds:g} s")
        time.sleep(next(pause))


def program(name: str, how: str) -> str:
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin")
    if path is None:
        raise ServerError(f"{name} is not installed ({how})")
    return path


def _die_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


_spawner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spawner")


def spawn(
    command: Sequence[str | Path],
    log: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    keep: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Start a process in a group of its own that is killed when this process ends.

    Its output is appended to `log`. `keep`: open files that it inherits.
    """
    with log.open("ab") as output:
        # To the kernel the parent is a thread; this one lives as long as the process does.
        return _spawner.submit(
            subprocess.Popen,
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=None if env is None else dict(env),
            cwd=cwd,
            start_new_session=True,
            preexec_fn=_die_with_parent,
            pass_fds=keep,
        ).result()


class Process(Protocol):
    """The part of `subprocess.Popen` that tests use."""

    @property
    def pid(self) -> int: ...
    @property
    def returncode(self) -> int | None: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, signum: int, /) -> None: ...


def end_group(process: Process, signum: int, seconds: float) -> None:
    """Send `signum` to the process, then SIGKILL to its whole group when it is gone or `seconds` are over."""
    if process.poll() is None:
        process.send_signal(signum)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(60)


def tail(log: Path, lines: int = 20) -> str:
    """The last lines of a log, for error messages."""
    try:
        text = log.read_text(errors="replace")
    except FileNotFoundError:
        return "(no log)"
    return "\n".join(text.splitlines()[-lines:])


def is_stopped(group: int) -> bool:
    """Whether no thread of a group of processes runs any more, after SIGSTOP."""
    for stat in Path("/proc").glob("[0-9]*/task/*/stat"):
        try:
            state, _, its_group = stat.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(its_group) == group and state not in "TtZX":
            return False
    return True
