"""A cluster on one machine, to try things out: the servers and N nodes, in the foreground."""

from __future__ import annotations

import argparse
import contextlib
import socket
import sys
from pathlib import Path

from services import ROOT, Services, end_on_signals, held, ignore_signals, watch

from tests.support.nodes import NodeServer
from tests.support.servers import HOST, ServerError, free_port


def port_near(wanted: int) -> int:
    """The wanted port, or a free one when somebody else listens on it."""
    with contextlib.suppress(OSError), socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((HOST, wanted))
        return wanted
    return free_port()


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/cluster", description="A cluster on this machine.")
    parser.add_argument("nodes", nargs="?", type=int, default=3, metavar="N", help="how many nodes (3)")
    parser.add_argument("--folder", type=Path, default=ROOT / "var" / "cluster", help="data and logs")
    options = parser.parse_args()
    if not 1 <= options.nodes <= 50:
        parser.error("N is 1 to 50")
    folder = options.folder.resolve()
    services = Services(folder)
    nodes: list[NodeServer] = []
    end_on_signals()
    try:
        with held(folder):
            print(f"starting servers, logs in {folder} (some ten seconds)", flush=True)
            services.start()
            print(services.ini(), flush=True)
            for number in range(1, options.nodes + 1):
                name = f"node{number}"
                ws_port, http_port = port_near(9000 + number), port_near(8080 + number)
                ini = {"node": {"backend": "cluster"}, **services.sections()}
                node = NodeServer(folder / name, ini, ws_port, http_port, name)
                nodes.append(node)
                node.start()
                print(f"{name}  {node.url}  {node.http_url}  pid {node.pid}", flush=True)
            print("ready; Ctrl-C ends everything", flush=True)
            watch([*services.all, *nodes])
    except ServerError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0
    finally:
        ignore_signals()
        for node in nodes:
            node.stop()
        services.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
