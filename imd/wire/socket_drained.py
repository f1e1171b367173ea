"""Whether what was written to a socket has reached the other side, as far as the kernel knows."""

from __future__ import annotations

import fcntl
import socket
import struct
import termios
from typing import Any


def all_arrived(transport: Any) -> bool:
    """The peer's kernel has taken every byte, and the peer has not ended its side of the connection.

    True as well where there is no socket to ask: below a transport that is not of this machine.
    """
    while not hasattr(transport, "socket") and hasattr(transport, "transport"):
        transport = transport.transport
    wire = getattr(transport, "socket", None)
    if wire is None:
        return True
    try:
        if wire.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b"":
            return False
    except BlockingIOError:
        pass
    except OSError:
        return False
    (waiting,) = struct.unpack("i", fcntl.ioctl(wire.fileno(), termios.TIOCOUTQ, bytes(4)))
    return bool(waiting == 0)
