"""A private RabbitMQ."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.support.servers.errors import ServerError
from tests.support.servers.ports import HOST, free_port
from tests.support.servers.process import end_group, program, spawn, wait_until
from tests.support.servers.server import Server

RABBITMQ_BIN = Path("/usr/lib/rabbitmq/bin")


class RabbitServer(Server):
    """RabbitMQ with a node name, cookie, distribution port and port mapper (epmd) of its own."""

    name = "rabbitmq"

    def __init__(self, folder: str | Path, port: int | None = None) -> None:
        super().__init__(folder, port)
        # Names need not differ: each has a port mapper of its own. So the data outlives a change of port.
        self.node = "imd@localhost"
        self._dist_port = free_port()
        self._epmd_port = free_port()
        self._epmd: subprocess.Popen[bytes] | None = None
        self._vhost_numbers = itertools.count(1)

    @property
    def url(self) -> str:
        return self.url_of("/")

    def url_of(self, vhost: str) -> str:
        return f"amqp://guest:guest@{HOST}:{self.port}/{'%2F' if vhost == '/' else vhost}"

    def rabbitctl(self, *args: str, seconds: float = 180) -> str:
        """The output of `rabbitmqctl -q <args>`, after a second or two. Raises ServerError if it fails."""
        command = [str(RABBITMQ_BIN / "rabbitmqctl"), "-q", "-n", self.node, *args]
        try:
            done = subprocess.run(
                command,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=seconds,
                cwd=self.folder,
            )
        except subprocess.TimeoutExpired:
            raise ServerError(f"rabbitmqctl {args[0]}: not within {seconds:g} s") from None
        if done.returncode:
            raise ServerError(f"rabbitmqctl {args[0]} failed:\n{done.stdout}{done.stderr}")
        return done.stdout

    def evaluate(self, expression: str, seconds: int = 60) -> str:
        """The value of an Erlang expression in the server. Raises ServerError if it fails."""
        cookie = (self.folder / ".erlang.cookie").read_text()
        erl_call = program("erl_call", "Debian package erlang-base")
        address = ["-address", f"{HOST}:{self._dist_port}", "-timeout", str(seconds)]
        try:
            done = subprocess.run(
                [erl_call, *address, "-c", cookie, "-r", "-e"],
                input=f"{expression}.\n",
                capture_output=True,
                text=True,
                timeout=2 * seconds,
                cwd=self.folder,
            )
        except subprocess.TimeoutExpired:
            raise ServerError(f"erl_call: not within {2 * seconds} s") from None
        if done.returncode or not done.stdout.startswith("{ok, "):
            raise ServerError(f"{expression} failed:\n{done.stdout}{done.stderr}")
        return done.stdout.removeprefix("{ok, ").removesuffix("}")

    def new_vhost(self) -> str:
        """The name of a virtual host that nobody has used, open to guest."""
        name = f"v{next(self._vhost_numbers)}"
        self.evaluate(
            f'V = <<"{name}">>, rabbit_vhost:add(V, <<>>, [], <<"tests">>), rabbit_auth_backend_internal:'
            'set_permissions(<<"guest">>, V, <<".*">>, <<".*">>, <<".*">>, <<"tests">>)'
        )
        return name

    def delete_vhosts(self, names: Sequence[str]) -> None:
        """With their queues and connections."""
        vhosts = ", ".join(f'<<"{name}">>' for name in names)
        self.evaluate(f'[rabbit_vhost:delete(V, <<"tests">>) || V <- [{vhosts}]]')

    def _prepare(self) -> None:
        if not (RABBITMQ_BIN / "rabbitmq-server").exists():
            raise ServerError("rabbitmq-server is not installed (Debian package rabbitmq-server)")
        (self.folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = {HOST}:{self.port}\n"
            "vm_memory_high_watermark.absolute = 1GB\n"
            "disk_free_limit.absolute = 50MB\n"
            "raft.wal_max_size_bytes = 33554432\n"
            "log.console = true\nlog.console.level = warning\nlog.file = false\n"
        )
        (self.folder / "enabled_plugins").write_text("[].\n")
        (self.folder / "env.conf").touch()
        # In the foreground and ours: the one that Erlang would start stays behind for ever.
        if self._epmd is None or self._epmd.poll() is not None:
            epmd = [program("epmd", "Debian package erlang-base"), "-address", HOST]
            self._epmd = spawn([*epmd, "-port", str(self._epmd_port)], self.folder / "epmd.log")
            wait_until(self._epmd_answers, 180, "epmd did not answer")

    def _epmd_answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection((HOST, self._epmd_port), timeout=1):
            return True
        return False

    def _command(self) -> list[str | Path]:
        return [RABBITMQ_BIN / "rabbitmq-server"]

    def _environment(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("RABBITMQ_", "ERL_"))}
        return kept | {
            "HOME": str(self.folder),
            "LC_ALL": "C.UTF-8",
            # Makes the script become the server instead of waiting beside it for signals.
            "RUNNING_UNDER_SYSTEMD": "true",
            "ERL_EPMD_ADDRESS": HOST,
            "ERL_EPMD_PORT": str(self._epmd_port),
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_NODE_IP_ADDRESS": HOST,
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": str(self.folder / "env.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "enabled_plugins"),
            "RABBITMQ_PID_FILE": str(self.folder / "rabbitmq.pid"),
            # No spinning schedulers: the processors are shared with what is being tested.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+sbwt none +sbwtdcpu none +sbwtdio none"
            " -kernel inet_dist_use_interface {127,0,0,1}",
        }

    def _question(self) -> bytes:
        return b"AMQP\x00\x00\x09\x01"

    def _is_answer(self, data: bytes) -> bool:
        return data.startswith(b"\x01\x00\x00")

    def _end(self, signum: int) -> None:
        super()._end(signum)
        epmd, self._epmd = self._epmd, None
        if epmd is not None:
            end_group(epmd, signal.SIGKILL, 10)
