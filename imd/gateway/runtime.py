"""HAProxy's runtime socket: what a running HAProxy holds, and changing it."""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from imd.gateway.haproxy import Server

# Lines that are put into a map go in pieces: a command has to fit into one of HAProxy's buffers (16 KiB).
PAYLOAD_BYTES = 8_000
_MAX_ANSWER_BYTES = 16 << 20
_MAINTENANCE = 0b110_0111
_DRAIN = 0b001_1000
_CHECK_ENABLED = 0b100


class RuntimeProblem(Exception):
    """HAProxy is not there, or does not do what it was asked; the text says which."""


@dataclass(frozen=True, slots=True)
class Held:
    """A server as a running HAProxy holds it."""

    host: str
    port: int
    check_host: str
    check_port: int
    number: int
    up: bool
    """clients are sent there: its checks and its administrative state allow it"""
    maintenance: bool
    draining: bool
    checked: bool


class Runtime:
    """Speaks to one HAProxy; each command has a connection and `seconds` to itself."""

    def __init__(self, path: Path, seconds: float) -> None:
        self._path = path
        self._seconds = seconds

    def info(self) -> dict[str, str]:
        """`show info`, by name."""
        return dict(line.split(": ", 1) for line in self._ask("show info").splitlines() if ": " in line)

    def servers(self, backend: str) -> dict[str, Held]:
        """All servers of a backend by name."""
        answer = self._ask(f"show servers state {backend}")
        names: list[str] = []
        found = {}
        for line in answer.splitlines():
            if line.startswith("# "):
                names = line[2:].split()
            elif names and line.strip():
                fields = dict(zip(names, line.split(), strict=False))
                found[fields["srv_name"]] = _held(fields)
        if not names:
            raise RuntimeProblem(f"show servers state {backend}: {_first_line(answer)}")
        return found

    def map(self, path: Path) -> dict[str, str]:
        """The entries of a map that was loaded from this file. Raises RuntimeProblem if none was."""
        answer = self._ask(f"show map {path}")
        entries = {}
        for line in answer.splitlines():
            if line.startswith("0x"):
                _, key, value = line.split(" ", 2)
                entries[key] = value
            elif line.strip():
                raise RuntimeProblem(f"show map {path}: {_first_line(answer)}")
        return entries

    def replace_map(self, path: Path, choices: Sequence[str]) -> None:
        """Replace all entries (slot → server) of a map at once."""
        answer = self._ask(f"prepare map {path}")
        version = re.search(r"version created: (\d+)", answer)
        if version is None:
            raise RuntimeProblem(f"prepare map {path}: {_first_line(answer)}")
        number = version[1]
        piece: list[str] = []
        size = 0
        for slot, name in enumerate(choices):
            line = f"{slot} {name}\n"
            if size + len(line) > PAYLOAD_BYTES:
                self._tell(f"add map @{number} {path} <<\n{''.join(piece)}")
                piece, size = [], 0
            piece.append(line)
            size += len(line)
        if piece:
            self._tell(f"add map @{number} {path} <<\n{''.join(piece)}")
        self._tell(f"commit map @{number} {path}")

    def add_server(self, backend: str, server: Server) -> None:
        """Add a server; clients are sent to it after `enable`."""
        self._tell(f"add server {backend}/{server.name} {server.options()}", ("New server registered.",))

    def enable(self, backend: str, name: str) -> None:
        """End maintenance and draining, and begin to check."""
        self._tell(f"enable health {backend}/{name}")
        self._tell(f"set server {backend}/{name} state ready")

    def drain(self, backend: str, name: str) -> None:
        self._tell(f"set server {backend}/{name} state drain")

    def stop_using(self, backend: str, name: str) -> None:
        """Put a server into maintenance: no client is sent there."""
        self._tell(f"set server {backend}/{name} state maint")

    def delete_server(self, backend: str, name: str) -> None:
        """Delete a server, which must be in maintenance and without connections."""
        self._tell(f"del server {backend}/{name}", ("Server deleted.",))

    def set_address(self, backend: str, server: Server) -> None:
        """Move a server and its checks."""
        where = f"set server {backend}/{server.name}"
        self._tell(
            f"{where} addr {server.host} port {server.port}", ("", "no need to change", "changed from")
        )
        check = f"check-addr {server.check_host} port {server.check_port}"
        self._tell(f"{where} {check}", ("", "no need to change", "changed from", "updated"))

    def _tell(self, command: str, good: tuple[str, ...] = ("",)) -> None:
        answer = self._ask(command).strip()
        if not any(answer == text or (text and text in answer) for text in good):
            raise RuntimeProblem(f"{_first_line(command)}: {_first_line(answer)}")

    def _ask(self, command: str) -> str:
        """The answer to one command. Raises RuntimeProblem when there is none."""
        pieces: list[bytes] = []
        size = 0
        try:
            with socket.socket(socket.AF_UNIX) as wire:
                wire.settimeout(self._seconds)
                wire.connect(str(self._path))
                wire.sendall(f"{command}\n".encode())
                while data := wire.recv(1 << 16):
                    pieces.append(data)
                    size += len(data)
                    if size > _MAX_ANSWER_BYTES:
                        raise RuntimeProblem(f"{_first_line(command)}: an answer without end")
        except OSError as error:
            raise RuntimeProblem(f"HAProxy does not answer at {self._path}: {error}") from None
        return b"".join(pieces).decode(errors="replace")


def _held(fields: dict[str, str]) -> Held:
    admin = int(fields["srv_admin_state"])
    host, port = fields["srv_addr"], int(fields["srv_port"])
    check_host, check_port = fields["srv_check_addr"], int(fields["srv_check_port"])
    return Held(
        host=host,
        port=port,
        check_host=host if check_host == "-" else check_host,
        check_port=check_port or port,
        number=int(fields["srv_id"]),
        up=int(fields["srv_op_state"]) != 0,
        maintenance=bool(admin & _MAINTENANCE),
        draining=bool(admin & _DRAIN),
        checked=bool(int(fields["srv_check_state"]) & _CHECK_ENABLED),
    )


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0][:200] or "no answer"
