"""The row that a node has in the table of nodes, by its configuration."""

from __future__ import annotations

import imd
from imd.config.reachable import Listening, listening
from imd.config.settings import Settings, node_name
from imd.gateway.nodes import Row


def own_row(settings: Settings, bus: str, started: int) -> Row:
    """A node that does not serve yet. `bus` is its address there; `started` is in ms since the epoch."""
    websocket = _listening(settings.websocket.listen, settings.cluster.advertise)
    http = _listening(settings.http.listen, settings.cluster.advertise_http)
    return Row(
        name=node_name(settings),
        bus=bus,
        websocket=str(websocket.address) if websocket is not None else "",
        tls=websocket is not None and websocket.tls,
        proxy=websocket is not None and websocket.proxy,
        # HAProxy asks for health in clear.
        http=str(http.address) if http is not None and not (http.tls or http.proxy) else "",
        version=imd.__version__,
        started=started,
        connections=0,
        draining=True,
    )


def _listening(listen: str, advertise: str) -> Listening | None:
    try:
        return listening(listen, advertise)
    except ValueError:
        return None
