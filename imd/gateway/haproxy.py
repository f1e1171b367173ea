"""HAProxy's files: its configuration, and the two maps from slots to servers.

The part of haproxy.cfg between two marks is renewed whenever nodes come or go; all else in it is written
once and may be edited.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from imd.gateway.slots import HINT, SLOTS, Slots
from imd.protocol.errors import ConfigurationError

BACKEND = "imd"
CONFIGURATION, FIRST, SECOND, SOCKET = "haproxy.cfg", "first.map", "second.map", "haproxy.sock"
BEGIN = "    # ---- servers: from here to the end mark, imd gateway sync writes"
END = "    # ---- end of servers"

# HAProxy binds the socket under a longer name first, and a socket's name has 107 bytes.
MAX_SOCKET_PATH = 97
_PLAIN_PATH = re.compile(r"[A-Za-z0-9._/+-]+")
_BIND = re.compile(r"(?:\*|[A-Za-z0-9.-]*|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5})")
_ID_BITS = 28


@dataclass(frozen=True, slots=True)
class Server:
    """A node as HAProxy knows it. `host` and `check_host` are IP addresses."""

    name: str
    host: str
    port: int
    check_host: str
    check_port: int
    tls: bool = False
    proxy: bool = False
    draining: bool = False

    @property
    def number(self) -> int:
        """HAProxy's id: of the name, so that two HAProxies hash alike, and of what cannot be changed."""
        return ((zlib.crc32(self.name.encode()) % (1 << _ID_BITS)) << 2) + 2 * self.tls + self.proxy + 1

    def options(self) -> str:
        """The words behind the name in a `server` line, and in the command `add server`."""
        words = [
            f"{_bracketed(self.host)}:{self.port} id {self.number}",
            f"check addr {_bracketed(self.check_host)} port {self.check_port} inter 500ms fall 2 rise 2",
            # Refused connections tell sooner than checks do. Until a server counts as down, its users are
            # spread by hash instead of going to their second choice.
            "observe layer4 error-limit 3 on-error mark-down",
        ]
        if self.tls:
            words.append("ssl verify none")
        if self.proxy:
            words.append("send-proxy")
        return " ".join(words)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


@dataclass(frozen=True, slots=True)
class Wanted:
    """The state that HAProxy is to hold: servers by name, and slot → server for each of the two choices."""

    servers: Mapping[str, Server]
    first: Sequence[str]
    second: Sequence[str]


def wanted(servers: Iterable[Server], members: Iterable[str]) -> Wanted:
    """`members` are the names of those that have slots."""
    by_name = {server.name: server for server in sorted(servers, key=lambda server: server.name)}
    slots = Slots(members)
    return Wanted(by_name, slots.first, slots.second)


class Folder:
    """The folder of one HAProxy. Raises ConfigurationError for a path that HAProxy cannot be given."""

    def __init__(self, path: str) -> None:
        self.path = Path(path).absolute()
        if not _PLAIN_PATH.fullmatch(str(self.path)):
            raise ConfigurationError(f"--out {path}: a path of letters, digits and . _ / + - is expected")
        self.configuration = self.path / CONFIGURATION
        self.first = self.path / FIRST
        self.second = self.path / SECOND
        self.socket = self.path / SOCKET
        if len(str(self.socket)) > MAX_SOCKET_PATH:
            most = MAX_SOCKET_PATH - len(SOCKET) - 1
            raise ConfigurationError(
                f"--out {path}: at most {most} characters are expected, for HAProxy's socket"
            )

    def create(self, bind: str, certificate: str | None, wanted: Wanted) -> list[str]:
        """Write all files anew. Names of those that have changed. Raises ConfigurationError, OSError."""
        text = render(self, bind, certificate, wanted)
        self.path.mkdir(parents=True, exist_ok=True)
        return self._write_maps(wanted) + self._write(self.configuration, text)

    def update(self, wanted: Wanted) -> list[str]:
        """Bring maps and servers up to date. Names of files that have changed.

        Raises ConfigurationError if haproxy.cfg has lost its marks, OSError.
        """
        text = replace_servers(self.configuration.read_text(), wanted.servers.values())
        if text is None:
            raise ConfigurationError(
                f"{self.configuration}: its marks are gone, servers cannot be written; "
                f"make it anew with imd gateway config"
            )
        return self._write_maps(wanted) + self._write(self.configuration, text)

    def _write_maps(self, wanted: Wanted) -> list[str]:
        return self._write(self.first, map_text(wanted.first)) + self._write(
            self.second, map_text(wanted.second)
        )

    def _write(self, path: Path, text: str) -> list[str]:
        """Replace a file by renaming, so that a reader finds the old or the new one whole."""
        try:
            if path.read_text() == text:
                return []
        except (OSError, ValueError):
            pass
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        with draft.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
        return [path.name]


def map_text(choices: Sequence[str]) -> str:
    """A map file: one `SLOT NAME` a line."""
    return "".join(f"{slot} {name}\n" for slot, name in enumerate(choices))


def server_lines(servers: Iterable[Server]) -> str:
    lines = [BEGIN]
    all_servers = list(servers)
    # With the PROXY protocol the client's address travels in front of the request instead.
    if not all_servers or not all(server.proxy for server in all_servers):
        lines.append("    option forwardfor")
    lines += [f"    server {server.name} {server.options()}" for server in all_servers]
    return "\n".join([*lines, END])


def replace_servers(text: str, servers: Iterable[Server]) -> str | None:
    """The configuration with other servers between its marks; None if it has no such marks."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    return f"{before}{server_lines(servers)}{after}" if begin and end else None


def _tls_options(certificate: str) -> str:
    """For `bind`. Raises ConfigurationError for a path that HAProxy cannot be given, or without a file."""
    path = Path(certificate).absolute()
    if not _PLAIN_PATH.fullmatch(str(path)):
        raise ConfigurationError(f"--cert {certificate}: a path of letters, digits and . _ / + - is expected")
    if not path.exists():
        raise ConfigurationError(f"--cert {certificate}: there is no such file")
    return f" ssl crt {path} alpn http/1.1"


def render(folder: Folder, bind: str, certificate: str | None, wanted: Wanted) -> str:
    """haproxy.cfg. `bind` is HOST:PORT, `certificate` a PEM file with chain and key.

    maxconn is left to HAProxy, which derives it from the open files that it may have itself.
    """
    match = _BIND.fullmatch(bind)
    if match is None or not 0 < int(match[1]) <= 65535:
        raise ConfigurationError(f"--bind {bind}: HOST:PORT, *:PORT or [IPV6]:PORT is expected")
    secure = _tls_options(certificate) if certificate is not None else ""
    return f"""\
# Written by imd gateway config. Reload HAProxy after changing it: clients stay connected.
global
    stats socket {folder.socket} mode 600 level admin expose-fd listeners
    stats timeout 1m
    # Servers that go up and down. Requests are not logged: their URLs name users.
    log stdout format raw local0 notice
    # Most open files, where the system knows no limit; maxconn follows from what HAProxy may open.
    fd-hard-limit 1048576
    # A process that was replaced by a reload keeps its clients for so long.
    hard-stop-after 24h
    ssl-default-bind-options ssl-min-ver TLSv1.2

defaults
    mode http
    timeout http-request 10s
    timeout connect 1s
    # Until a WebSocket is open; from then on the next one counts, and nodes ping far more often.
    timeout client 15s
    timeout server 15s
    timeout tunnel 1h
    timeout client-fin 10s
    timeout server-fin 10s
    timeout queue 5s
    timeout check 1s
    retries 3
    option redispatch 1

frontend {BACKEND}
    bind {bind}{secure}
    http-request set-header X-Forwarded-Proto %[ssl_fc,iif(https,http)]
    # A user's slot has a first and a second server. A client that names no user goes to any server.
    http-request set-var(txn.slot) urlp({HINT}),url_dec,crc32,mod({SLOTS})
    http-request set-var(txn.first) var(txn.slot),map_int({folder.first})
    http-request set-var(txn.second) var(txn.slot),map_int({folder.second})
    default_backend {BACKEND}

backend {BACKEND}
    log global
    balance url_param {HINT}
    hash-type consistent
    option httpchk GET /serving
    http-check expect status 200
    use-server %[var(txn.first)] if {{ var(txn.first) -m found }}
    use-server %[var(txn.second)] if {{ var(txn.second) -m found }}
{server_lines(wanted.servers.values())}
"""
