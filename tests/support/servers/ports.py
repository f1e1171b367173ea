"""Free ports on loopback, never given to two processes of the tests at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path

from tests.support.servers.errors import ServerError

HOST = "127.0.0.1"
_given_ports: set[int] = set()


def free_port() -> int:
    """A loopback port that nobody listens on, never given twice by this process.

    It lies below the ephemeral ports: a client that knocks on the port of a dead server would otherwise
    now and then be given that very port as its own, connect to itself and keep the server from returning.
    """
    for _ in range(1000):
        port = random.randrange(11000, 32000)
        if port in _given_ports or not _reserved(port):
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind((HOST, port))
                _given_ports.add(port)
                return port
    raise ServerError("no free port between 11000 and 32000")


def _reserved(port: int) -> bool:
    """No other process of these tests was given the port; from now on it is this one's until it ends."""
    folder = Path(tempfile.gettempdir(), f"imd-ports-{os.getuid()}")
    folder.mkdir(exist_ok=True)
    lock = os.open(folder / str(port), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        return False
    return True
