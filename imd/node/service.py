"""The node as a Twisted service, which twistd starts and stops."""

from __future__ import annotations

from collections.abc import Callable

from twisted.application.service import Service
from twisted.internet.defer import Deferred

from imd.node.node import Node
from imd.ops.process import reopen_log


class NodeService(Service):
    """Makes a node when twistd starts services: it has daemonised by then, the process is the node's.

    `hangup` is told which function SIGHUP is to call.
    """

    def __init__(
        self, make_node: Callable[[], Node], hangup: Callable[[Callable[[], None]], None] | None = None
    ) -> None:
        self._make_node = make_node
        if hangup is not None:
            hangup(self._reload)
        self._node: Node | None = None

    def startService(self) -> None:
        super().startService()
        self._node = self._make_node()
        self._node.start()

    def _reload(self) -> None:
        reopen_log()
        if self._node is not None:
            self._node.reload()

    def stopService(self) -> Deferred[None] | None:
        super().stopService()
        return self._node.stop() if self._node is not None else None
