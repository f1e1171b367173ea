"""Whether the bytes written to a socket have reached the other side, as far as the kernel knows."""

from __future__ import annotations

import fcntl
import socket
import struct
import termios
from typing import Any

from imd.wire.twisted_internals import socket_of


def all_arrived(transport: Any) -> bool:
    """True if the peer's kernel has taken every byte, and the peer has not ended its side.

    Also true if there is no socket to ask, as under a transport in memory.
    """
    connection = socket_of(transport)
    if connection is None:
        return True
    try:
        if connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b"":
            return False
    except BlockingIOError:
        pass
    except OSError:
        return False
    (waiting,) = struct.unpack("i", fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4)))
    return bool(waiting == 0)
