"""The operator's socket: HTTP over a Unix socket, whose file's permissions say who may use it."""

from __future__ import annotations

import math
import os
import socket
from contextlib import suppress
from typing import Any

import msgspec
from twisted.logger import Logger
from twisted.web.http import BAD_REQUEST, NOT_FOUND, OK
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from imd.config.endpoints import place_of
from imd.observe.trace import Trace
from imd.ops.http_site import BoundedSite
from imd.protocol.message import is_usable_id

REQUEST_SECONDS = 30
DEFAULT_SECONDS = 600
MAX_SECONDS = 3600
MAX_USERS = 100


class Switch:
    """Switches a trace on for a limited time. `clock` has callLater and seconds."""

    log = Logger()

    def __init__(self, clock: Any, trace: Trace) -> None:
        self._clock = clock
        self._trace = trace
        self._end: Any = None

    def on(self, users: frozenset[str], sample: float, seconds: int) -> None:
        """Start a trace; it replaces the present one."""
        self.off()
        self._trace.start(users, sample)
        self._end = self._clock.callLater(seconds, self.off)
        self.log.info(
            "tracing {count} users and {sample:.2%} of all messages for {seconds} s",
            count=len(users), sample=sample, seconds=seconds,
        )  # fmt: skip

    def off(self) -> None:
        if self._end is None:
            return
        if self._end.active():
            self._end.cancel()
        self._end = None
        self._trace.stop()
        self.log.info("the trace has ended after {lines} lines", lines=self._trace.lines)

    def state(self) -> dict[str, object]:
        trace = self._trace
        return {
            "on": trace.on,
            "users": sorted(trace.users),
            "sample": trace.sample,
            "seconds": 0 if self._end is None else math.ceil(self._end.getTime() - self._clock.seconds()),
            "lines": trace.lines,
            "leftOut": trace.left_out,
        }


class _Trace(Resource):
    isLeaf = True

    def __init__(self, switch: Switch) -> None:
        super().__init__()
        self._switch = switch

    def render_GET(self, request: Request) -> bytes:
        return _answer(request, OK, self._switch.state())

    def render_POST(self, request: Request) -> bytes:
        try:
            self._switch.on(*_read(request.args or {}))
        except ValueError as error:
            return _answer(request, BAD_REQUEST, {"error": str(error)})
        return self.render_GET(request)

    def render_DELETE(self, request: Request) -> bytes:
        self._switch.off()
        return self.render_GET(request)


class _Root(Resource):
    def __init__(self, switch: Switch) -> None:
        super().__init__()
        self._switch = switch

    def getChild(self, path: bytes, request: Request) -> Resource:
        return _Trace(self._switch) if request.path == b"/trace" else _Missing()


class _Missing(Resource):
    isLeaf = True

    def render(self, request: Request) -> bytes:
        return _answer(request, NOT_FOUND, {"error": "there is only /trace"})


def _read(given: dict[bytes, list[bytes]]) -> tuple[frozenset[str], float, int]:
    """Users, share of all messages and seconds of a form. Raises ValueError."""
    try:
        form = {name.decode(): [value.decode() for value in values] for name, values in given.items()}
    except UnicodeDecodeError:
        raise ValueError("UTF-8 is expected") from None
    unknown = form.keys() - {"user", "sample", "seconds"}
    if unknown:
        raise ValueError(f"{min(unknown)}: user, sample and seconds are expected")
    users = frozenset(form.get("user", ()))
    if len(users) > MAX_USERS or not all(map(is_usable_id, users)):
        raise ValueError(f"user: up to {MAX_USERS} user ids are expected")
    sample = _number("sample", form.get("sample", ["0"])[-1], 0, 1)
    seconds = _number("seconds", form.get("seconds", [str(DEFAULT_SECONDS)])[-1], 1, MAX_SECONDS)
    if not users and not sample:
        raise ValueError("user=NAME or sample=SHARE is expected")
    return users, sample, math.ceil(seconds)


def _number(name: str, text: str, least: float, most: float) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not least <= number <= most:
        raise ValueError(f"{name}: a number from {least:g} to {most:g} is expected")
    return number


def _answer(request: Request, status: int, content: object) -> bytes:
    request.setResponseCode(status)
    request.setHeader(b"content-type", b"application/json")
    return msgspec.json.encode(content) + b"\n"


def clear_stale(endpoint: str) -> str:
    """Remove the socket that a killed process has left there; one that somebody listens on stays.

    Gives the endpoint without Twisted's lock file: that names a process id, which may be another's by now
    (in a container it is always the same).
    """
    path = place_of(endpoint).path
    with socket.socket(socket.AF_UNIX) as probe, suppress(OSError):
        probe.settimeout(1)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
    return endpoint if ":lockfile=" in endpoint else f"{endpoint}:lockfile=0"


def make_control(switch: Switch) -> Site:
    """The site that the control socket serves."""
    return BoundedSite(_Root(switch), timeout=REQUEST_SECONDS)
