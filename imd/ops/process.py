"""The process: its open files, garbage collector, SIGHUP and log file."""

from __future__ import annotations

import gc
import resource
import signal
from collections.abc import Callable
from typing import Any

from twisted.logger import Logger

from imd.ops.twisted_internals import log_files

SPARE_SOCKETS = 128
"""for clients past the bound: they are accepted, told that the node is full, and closed"""

RESERVED_FILES = 64 + 256 + SPARE_SOCKETS
"""open files that are not for clients: backends, listeners, logs, SQLite; the http port's; the spare ones"""

GC_ALLOCATIONS = 10_000

# Where the hard limit is "infinity", the kernel still has one; this much it always grants to root.
_PLENTY = 1 << 20


def raise_file_limit() -> int:
    """Raise the limit of open files to the hard one; returns the limit that is then in force.

    Where that is not allowed, the limit stays as it is.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _PLENTY if hard == resource.RLIM_INFINITY else hard
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError):
            return soft
        return wanted
    return _PLENTY if soft == resource.RLIM_INFINITY else soft


def settle_garbage_collector() -> None:
    """Leave the objects of a started node out of garbage collection, and collect less often.

    Messages and connections leave hardly any reference cycles behind.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_ALLOCATIONS, 20, 20)


def connection_bound(limit: int, wanted: int) -> int:
    """How many client connections a limit of open files allows, and at most `wanted`."""
    return max(0, min(wanted, limit - RESERVED_FILES))


def on_hangup(reactor: Any) -> Callable[[Callable[[], None]], None]:
    """Gives a function that has SIGHUP call another one, in the reactor's thread, and end nothing."""

    def install(call: Callable[[], None]) -> None:
        signal.signal(signal.SIGHUP, lambda *_: reactor.callFromThread(call))

    return install


def reopen_log() -> None:
    """Go on in a file of the same name, if twistd writes the log to a file: it may have been moved away."""
    log = Logger()
    for file in log_files():
        try:
            # Tried first: a log that cannot be opened again must not be closed.
            with open(file.path, "ab"):
                pass
            file.reopen()
        except OSError as error:
            log.error("the log file cannot be opened anew: {reason}", reason=str(error))
        else:
            log.info("the log file is open anew: {path}", path=file.path)
