"""Free ports on loopback, never given to two processes of the tests at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from tests.support.servers.errors import ServerError

HOST = "127.0.0.1"
FIRST, LAST, BLOCK = 11000, 32000, 50


def free_port() -> int:
    """A loopback port that nobody listens on, never given twice by this process.

    It lies below the ephemeral ports: a client that knocks on the port of a dead server would otherwise
    now and then be given that very port as its own, connect to itself and keep the server from returning.
    """
    while True:
        with _taking:
            port = next(_mine, None)
        if port is None:
            raise ServerError(f"no free port between {FIRST} and {LAST}")
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind((HOST, port))
                return port


def _reserved_ports() -> Iterator[int]:
    """The ports of this process, block by block: a lock for each port would keep a file open for each."""
    starts = list(range(FIRST, LAST, BLOCK))
    random.shuffle(starts)
    for start in starts:
        if _reserve(start):
            yield from range(start, start + BLOCK)


def _reserve(start: int) -> bool:
    """No other process of these tests has the block; from now on it is this one's until it ends."""
    folder = Path(tempfile.gettempdir(), f"imd-ports-{os.getuid()}")
    folder.mkdir(exist_ok=True)
    lock = os.open(folder / str(start), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        return False
    return True


_mine = _reserved_ports()
_taking = threading.Lock()
