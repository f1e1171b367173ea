"""Keeps one HAProxy in step with the table of nodes: by what HAProxy holds, not by what it was told.

Each round compares anew, since a reload forgets what was added. Files come first, so that a reload at any
moment loads the present state. Servers are added before the maps name them, and taken out after.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from imd.config.reachable import parse_address
from imd.gateway.haproxy import BACKEND, Folder, Server, Wanted, wanted
from imd.gateway.nodes import Row
from imd.gateway.runtime import Held, Runtime, RuntimeProblem
from imd.protocol.errors import ConfigurationError


@dataclass
class Outcome:
    """One round: what was changed, and what could not be done."""

    changes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


Resolve = Callable[[str], str]
"""from a host to its IP address; raises OSError"""


def resolve(host: str) -> str:
    """The first IP address of a host's name. Raises OSError."""
    return str(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0])


def servers_of(
    rows: Iterable[Row], outcome: Outcome, find: Resolve = resolve, known: Iterable[Server] = ()
) -> list[Server]:
    """Routable rows as servers. A host that is not found is a problem; `known` has its last address."""
    before = {server.name: server for server in known}
    servers = []
    for row in filter(Row.is_routable, rows):
        websocket, http = parse_address(row.websocket), parse_address(row.http)
        try:
            host, check_host = find(websocket.host), find(http.host)
        except OSError as error:
            outcome.problems.append(f"{row.name}: {websocket.host} cannot be looked up: {error}")
            if row.name not in before:
                continue
            host, check_host = before[row.name].host, before[row.name].check_host
        servers.append(
            Server(row.name, host, websocket.port, check_host, http.port, row.tls, row.proxy, row.draining)
        )
    return servers


class Sync:
    """One HAProxy, by its folder."""

    def __init__(self, folder: Folder, seconds: float = 5.0, find: Resolve = resolve) -> None:
        self._folder = folder
        self._runtime = Runtime(folder.socket, seconds)
        self._find = find
        self._known: list[Server] = []

    def round(self, rows: Iterable[Row], members: Iterable[str]) -> Outcome:
        """Bring files and HAProxy to these rows, of which `members` have slots. Raises nothing."""
        outcome = Outcome()
        self._known = servers_of(rows, outcome, self._find, self._known)
        there = {server.name for server in self._known}
        want = wanted(self._known, [name for name in members if name in there])
        try:
            changed = self._folder.update(want)
            outcome.changes += [f"{name} written" for name in changed]
        except (ConfigurationError, OSError) as error:
            outcome.problems.append(str(error))
        try:
            held = self._runtime.servers(BACKEND)
        except RuntimeProblem as problem:
            outcome.problems.append(str(problem))
            return outcome
        _Round(self._runtime, self._folder, want, held, outcome).run()
        return outcome


class _Round:
    """The steps of one round on a running HAProxy. One that fails does not hold up the others."""

    def __init__(
        self, runtime: Runtime, folder: Folder, want: Wanted, held: dict[str, Held], outcome: Outcome
    ) -> None:
        self._runtime = runtime
        self._folder = folder
        self._want = want
        self._held = held
        self._outcome = outcome

    def run(self) -> None:
        for name, server in self._want.servers.items():
            held = self._held.get(name)
            if held is None:
                self._do(f"{name} added", partial(self._add, server))
            elif held.number != server.number:
                self._do(f"{name} made anew", partial(self._make_anew, server))
            else:
                self._keep(server, held)
        self._replace_map(self._folder.first, self._want.first)
        self._replace_map(self._folder.second, self._want.second)
        for name, server in self._want.servers.items():
            held = self._held.get(name)
            if server.draining and held is not None and not held.draining:
                self._do(f"{name} drains", partial(self._runtime.drain, BACKEND, name))
        for name, held in self._held.items():
            if name not in self._want.servers and not held.up:
                self._do(f"{name} deleted", partial(self._delete, name))

    def _do(self, change: str, step: Callable[[], None]) -> None:
        try:
            step()
        except RuntimeProblem as problem:
            self._outcome.problems.append(str(problem))
        else:
            self._outcome.changes.append(change)

    def _keep(self, server: Server, held: Held) -> None:
        name = server.name
        where = (held.host, held.port, held.check_host, held.check_port)
        if where != (server.host, server.port, server.check_host, server.check_port):
            self._do(
                f"{name} is at {server.host} port {server.port} now",
                partial(self._runtime.set_address, BACKEND, server),
            )
        if not held.checked or held.maintenance or (held.draining and not server.draining):
            self._do(f"{name} enabled", partial(self._runtime.enable, BACKEND, name))
            if server.draining:
                self._do(f"{name} drains", partial(self._runtime.drain, BACKEND, name))

    def _add(self, server: Server) -> None:
        self._runtime.add_server(BACKEND, server)
        self._runtime.enable(BACKEND, server.name)
        if server.draining:
            self._runtime.drain(BACKEND, server.name)

    def _make_anew(self, server: Server) -> None:
        """TLS and PROXY cannot be changed later, and with the wrong ones a server serves nobody."""
        self._delete(server.name)
        self._add(server)

    def _delete(self, name: str) -> None:
        self._runtime.stop_using(BACKEND, name)
        self._runtime.delete_server(BACKEND, name)

    def _replace_map(self, path: Path, choices: Sequence[str]) -> None:
        try:
            holds = self._runtime.map(path)
        except RuntimeProblem as problem:
            self._outcome.problems.append(str(problem))
            return
        if holds != {str(slot): name for slot, name in enumerate(choices)}:
            self._do(f"{path.name} replaced", partial(self._runtime.replace_map, path, choices))
