"""`imd.search` for an operator: closed to nodes of 0.1, if none is there, or open to them again. Blocks."""

from __future__ import annotations

from typing import Any

from pika.exceptions import ChannelClosedByBroker

from imd.command.rabbit_client import connect
from imd.store.rabbit.exchanges import ALL_EXCHANGE, CLOSED_TYPE, OLD_EXCHANGE, OLD_TYPE

_NOT_FOUND = 404
_PRECONDITION_FAILED = 406
# A node may join or declare the exchange anew between two steps.
_TRIES = 5
_JOINED = ((ALL_EXCHANGE, OLD_EXCHANGE), (OLD_EXCHANGE, ALL_EXCHANGE))


class InUse(Exception):
    """A node of 0.1 listens: its queue is bound to the exchange."""


class OldExchangeControl:
    """`url` is as in [rabbitmq] url. Raises AMQPError or OSError without an answer in `seconds`."""

    def __init__(self, url: str, seconds: float) -> None:
        self._connection = connect(url, seconds)

    def disconnect(self) -> None:
        if self._connection.is_open:
            self._connection.close()

    def is_closed(self) -> bool:
        """True if nodes of 0.1 are refused."""
        return self._exists() and self._declares(CLOSED_TYPE)

    def close(self) -> None:
        """Refuse nodes of 0.1 from now on. Raises InUse, and leaves all as it was, while one is there.

        The broker deletes the exchange only if no queue is bound to it: a node of 0.1 either is found, or
        comes too late.
        """
        for _ in range(_TRIES):
            if self._declares(CLOSED_TYPE):
                return
            # The way to the nodes of this version does not count.
            self._do("exchange_unbind", ALL_EXCHANGE, OLD_EXCHANGE)
            self._do("exchange_delete", OLD_EXCHANGE, if_unused=True)
        self._join()
        raise InUse

    def open(self) -> None:
        """Let nodes of 0.1 come again."""
        for _ in range(_TRIES):
            if self._declares(OLD_TYPE):
                break
            self._do("exchange_delete", OLD_EXCHANGE)
        self._join()

    # from within

    def _join(self) -> None:
        for destination, source in _JOINED:
            self._do("exchange_bind", destination, source)

    def _exists(self) -> bool:
        return self._do("exchange_declare", OLD_EXCHANGE, passive=True)

    def _declares(self, kind: str) -> bool:
        return self._do("exchange_declare", OLD_EXCHANGE, kind, durable=True)

    def _do(self, method: str, *args: Any, **options: Any) -> bool:
        """False if the broker refuses for the state that the exchanges are in."""
        channel = self._connection.channel()
        try:
            getattr(channel, method)(*args, **options)
        except ChannelClosedByBroker as refused:
            if refused.reply_code not in (_NOT_FOUND, _PRECONDITION_FAILED):
                raise
            return False
        channel.close()
        return True
