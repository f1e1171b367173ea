"""Real nodes for tests and scripts: `twistd imd` as a process with a configuration of its own."""

from __future__ import annotations

import http.client
import json
import os
import socket
import sys
import sysconfig
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from twisted.internet.endpoints import quoteStringArgument

from tests.support.servers import HOST, Server, free_port, shared
from tests.support.servers.forked import template
from tests.support.servers.process import Process

TWISTD = Path(sysconfig.get_path("scripts"), "twistd")
Ini = Mapping[str, Mapping[str, object]]


def ask_control(path: Path | str, method: str, where: str = "/trace", **form: object) -> tuple[int, Any]:
    """Status and content of an answer of the operator's socket."""
    with socket.socket(socket.AF_UNIX) as wire:
        wire.settimeout(60)
        wire.connect(str(path))
        connection = http.client.HTTPConnection("imd", timeout=60)
        connection.sock = wire
        headers = {"content-type": "application/x-www-form-urlencoded"} if form else {}
        connection.request(method, where, urlencode(form, doseq=True) if form else None, headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read() or b"null")


class NodeServer(Server):
    """One node. `ini` maps sections to keys and values; ports are chosen here."""

    own_program = ""
    """a module that a node may be run by in place of twistd; it has `run`, and a template may import it"""

    def __init__(
        self,
        folder: Path,
        ini: Ini,
        port: int | None = None,
        http_port: int | None = None,
        name: str = "node",
    ) -> None:
        super().__init__(folder, port)
        self.name = name
        self.http_port = http_port or free_port()
        self.ini: dict[str, dict[str, object]] = {section: dict(keys) for section, keys in ini.items()}

    @property
    def url(self) -> str:
        return f"ws://{HOST}:{self.port}/ws"

    @property
    def http_url(self) -> str:
        return f"http://{HOST}:{self.http_port}/"

    def http(self, path: str) -> tuple[int, str]:
        """Status and body of the operator's port."""
        try:
            with urllib.request.urlopen(self.http_url + path, timeout=60) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def control(self, method: str, **form: object) -> Any:
        """Ask the control socket about its trace; the answer must be good."""
        status, content = ask_control(self.folder / "control", method, **form)
        assert status == 200, content
        return content

    def metric(self, name: str) -> float:
        """The sum of a metric's samples, over all labels."""
        total = 0.0
        for line in self.http("metrics")[1].splitlines():
            if line.startswith((name + " ", name + "{")):
                total += float(line.rsplit(" ", 1)[1])
        return total

    def answers(self) -> bool:
        """True when `/readyz` says 200."""
        try:
            return self.http("readyz")[0] == 200
        except OSError:
            return False

    def _control(self) -> str:
        """No socket where its path would be longer than the system takes."""
        path = str(self.folder / "control")
        return f"unix:{quoteStringArgument(path)}:mode=600" if len(path.encode()) < 108 else ""

    def _prepare(self) -> None:
        sections = {
            "node": {
                "name": self.name,
                "data": self.folder / "data",
                "control": self._control(),
            },
            "websocket": {"listen": f"tcp:{self.port}:interface={HOST}"},
            "http": {"listen": f"tcp:{self.http_port}:interface={HOST}"},
        }
        for section, keys in self.ini.items():
            sections.setdefault(section, {}).update(keys)
        lines = []
        for section, keys in sections.items():
            lines.append(f"[{section}]")
            lines += [f"{key} = {value}" for key, value in keys.items()]
        (self.folder / "node.ini").write_text("\n".join(lines) + "\n")

    def _spawn(self) -> Process:
        """Forked from a process that has imported imd, unless the node is started in some other way."""
        command, env = self._command(), self._environment() or dict(os.environ)
        module = "twisted.scripts.twistd"
        if command[:3] == [sys.executable, "-m", self.own_program]:
            module, command = self.own_program, command[2:]
        elif command[0] != TWISTD:
            return super()._spawn()
        if "LD_PRELOAD" in env:
            return super()._spawn()
        made = template(env.get("PYTHONPATH", ""), shared().folder / "template.log")
        return made.fork(module, command, self.log, env, self.folder)

    def _command(self) -> list[str | Path]:
        return [TWISTD, "-n", "--pidfile=", "imd", "--config", self.folder / "node.ini"]
