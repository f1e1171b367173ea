"""A process that has imported imd, and forks itself into each node that it is asked for.

Run by its path, with the number of a socket (`forked.py` has the other end). Imports take most of a start's
processor time; so they are done once. It imports nothing of the tests unless it is asked to, so it serves
any version of imd.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import pkgutil
import signal
import socket
import sys
from types import ModuleType
from typing import Any

PR_SET_PDEATHSIG = 1
REACTOR = "twisted.internet.reactor"
LONGEST = 1 << 20


def import_all() -> None:
    """Everything that a node may import, but the reactor and modules that need it: it has open files."""
    for name in ("twisted.scripts.twistd", "twisted.internet.epollreactor", "imd.tap"):
        importlib.import_module(name)
    # To import the reactor is an ImportError now.
    sys.modules[REACTOR] = None  # type: ignore[assignment]
    for module in pkgutil.walk_packages(sys.modules["imd"].__path__, "imd."):
        with contextlib.suppress(ImportError):
            importlib.import_module(module.name)
    del sys.modules[REACTOR]


def become(node: dict[str, Any]) -> None:
    """In the child: as if it had been started with these words, log, folder and environment."""
    os.setsid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    log = os.open(node["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.chdir(node["cwd"])
    os.environ.clear()
    os.environ.update(node["env"])
    sys.argv[:] = node["words"]


def serve(wire: socket.socket) -> ModuleType | None:
    """Answer until the other end is closed. Returns in each child: the module whose `run` is the node."""
    while request := wire.recv(LONGEST):
        asked = json.loads(request)
        answer: int | None
        if "poll" in asked:
            pid, status = os.waitpid(asked["poll"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        else:
            # Imported here, it is there for the next child, too.
            module = importlib.import_module(asked["module"])
            # Collecting would write to, and so copy, the memory that nodes share.
            gc.freeze()
            answer = os.fork()
            if not answer:
                wire.close()
                become(asked)
                return module
        wire.send(json.dumps(answer).encode())
    return None


def main() -> None:
    # The folder of this file is none to import from.
    sys.path.pop(0)
    wire = socket.socket(fileno=int(sys.argv[1]))
    import_all()
    gc.collect()
    if module := serve(wire):
        module.run()


if __name__ == "__main__":
    main()
