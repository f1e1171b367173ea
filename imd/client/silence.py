"""Watching the node: a silent one is sent a ping, and left if it does not answer. No I/O."""

from __future__ import annotations

from collections.abc import Callable

from imd.client.agenda import Agenda
from imd.client.link import Link


class Silence:
    """`pong_seconds`: the deadline of an answer. `silent` is called when it is over."""

    def __init__(self, agenda: Agenda, link: Link, pong_seconds: float, silent: Callable[[], None]) -> None:
        self._agenda = agenda
        self._link = link
        self._pong_seconds = pong_seconds
        self._silent = silent

    def heard(self, watched: bool) -> None:
        """A frame came: begin to measure the node's silence anew, if it is to be watched."""
        self._agenda.cancel("pong")
        if watched:
            self._agenda.later("silence", self._link.ping_seconds, self._ping)

    def _ping(self) -> None:
        self._agenda.transmit({"type": "ping"})
        self._agenda.later("pong", self._pong_seconds, self._silent)
