"""The ports that a node listens on, and the certificates that they show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.error import CannotListenError
from twisted.logger import Logger

from imd.config.endpoints import Certificates, place_of
from imd.config.endpoints import make as make_endpoint
from imd.entry.forwarded import parse_trusted
from imd.protocol.errors import ConfigurationError
from imd.wire.proxied import ProxiedFactory


class Ports:
    """A port is None before it is opened. Nothing is closed here: the order of closing is the stop's."""

    log = Logger()

    def __init__(self, reactor: Any, trusted_proxies: Sequence[str] = ()) -> None:
        """`trusted_proxies`: those that `haproxy:` endpoints take connections from."""
        self.websocket: Any = None
        """for clients; None again as soon as it is closed, for a stop or a drain"""
        self.http: Any = None
        self.control: Any = None
        self._reactor = reactor
        self._trusted = parse_trusted(trusted_proxies)
        self._certificates: dict[str, Certificates] = {}

    async def open(self, description: str, factory: Any, key: str = "listen") -> Any:
        """Listen at an endpoint. Raises ConfigurationError, which names `key`, if that cannot be."""
        try:
            endpoint, certificates = make_endpoint(self._reactor, description)
            if place_of(description).behind_proxy:
                factory = ProxiedFactory(factory, self._trusted, self._reactor.seconds)
            port = await endpoint.listen(factory)
        except (CannotListenError, OSError, ValueError, LookupError) as error:
            raise ConfigurationError(f"{key} = {description}: {_why(error)}") from None
        if certificates is not None:
            self._certificates[description] = certificates
        return port

    def reload(self) -> None:
        """Read the certificates of `ssl:` endpoints anew, for connections to come."""
        for description, certificates in self._certificates.items():
            try:
                certificates.reload()
            except ValueError as error:
                self.log.error("certificates not reloaded, the old ones stay: {reason}", reason=str(error))
            else:
                self.log.info("certificates reloaded: {where}", where=description)


def _why(error: Exception) -> str:
    """The reason in words. The error of systemd's endpoint holds nothing but the index or the name."""
    return f"systemd has not handed over a socket {error}" if isinstance(error, LookupError) else str(error)
