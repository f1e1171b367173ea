"""A queue of a node's own on the bus. It goes with the node's connection."""

from __future__ import annotations

from collections.abc import Mapping

from pika.exceptions import ChannelClosedByBroker

from imd.store.rabbit.link import Link

_RESOURCE_LOCKED = 405


class OwnQueue:
    """`name` without the suffix that it gets while a dead connection's queue is still locked."""

    def __init__(self, name: str, arguments: Mapping[str, object]) -> None:
        self._name = name
        self._arguments = {**arguments, "x-overflow": "drop-head"}
        self._number = 0

    async def declare(self, link: Link) -> str:
        """Declare the queue; gives its name."""
        while True:
            name = self._name + (f".{self._number}" if self._number else "")
            # On a channel of its own, since a refused declaration closes the channel.
            channel = await link.channel(vital=False)
            declared = channel.queue_declare(
                name, exclusive=True, auto_delete=True, arguments=dict(self._arguments)
            )
            try:
                await link.call(declared, "queue.declare")
            except ChannelClosedByBroker as refused:
                if refused.reply_code != _RESOURCE_LOCKED:
                    raise
                self._number += 1
            else:
                channel.close()
                return name
