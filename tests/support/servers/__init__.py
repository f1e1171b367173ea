"""Private Redis, RabbitMQ and MongoDB servers on loopback ports, for tests and for the scripts.

Plain blocking code on the standard library. A server lives in a folder of its own, is the leader of its
own process group, and dies with the process that started it, however that ends.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import fcntl
import itertools
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import TypeVar

HOST = "127.0.0.1"
RABBITMQ_BIN = Path("/usr/lib/rabbitmq/bin")
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)
_given_ports: set[int] = set()


class ServerError(Exception):
    """A server is not installed, did not answer in time, or ended by itself; the text has its log's tail."""


def free_port() -> int:
    """A loopback port that nobody listens on, never given twice by this process.

    It lies below the ephemeral ports: a client that knocks on the port of a dead server would otherwise
    now and then be given that very port as its own, connect to itself and keep the server from returning.
    """
    for _ in range(1000):
        port = random.randrange(11000, 32000)
        if port in _given_ports or not _reserved(port):
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind((HOST, port))
                _given_ports.add(port)
                return port
    raise ServerError("no free port between 11000 and 32000")


def _reserved(port: int) -> bool:
    """No other process of these tests was given the port; from now on it is this one's until it ends."""
    folder = Path(tempfile.gettempdir(), f"imd-ports-{os.getuid()}")
    folder.mkdir(exist_ok=True)
    lock = os.open(folder / str(port), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        return False
    return True


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Block until `condition` is true. Raises ServerError when it still is not after `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise ServerError(f"{what}: not within {seconds:g} s")
        time.sleep(0.02)


def _die_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


_spawner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spawner")


def spawn(
    command: Sequence[str | Path], log: Path, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> subprocess.Popen[bytes]:
    """Start a process in a group of its own that is killed when this process ends.

    Its output is appended to `log`.
    """
    with log.open("ab") as output:
        # To the kernel the parent is a thread; this one lives as long as the process does.
        return _spawner.submit(
            subprocess.Popen,
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=None if env is None else dict(env),
            cwd=cwd,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        ).result()


def end_group(process: subprocess.Popen[bytes], signum: int, seconds: float) -> None:
    """Send `signum` to the process, then SIGKILL to its whole group when it is gone or `seconds` are over."""
    if process.poll() is None:
        process.send_signal(signum)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(10)


def tail(log: Path, lines: int = 20) -> str:
    """The last lines of a log, for error messages."""
    try:
        text = log.read_text(errors="replace")
    except FileNotFoundError:
        return "(no log)"
    return "\n".join(text.splitlines()[-lines:])


class Server:
    """One server process: start, stop, kill, pause and restart on the same port and data."""

    name = "server"
    start_seconds = 30.0
    stop_seconds = 20.0

    def __init__(self, folder: str | Path, port: int | None = None) -> None:
        self.folder = Path(folder)
        self.port = port or free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        raise NotImplementedError

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.log"

    @property
    def pid(self) -> int:
        """The server's process id. Raises ServerError when it was not started."""
        if self.process is None:
            raise ServerError(f"{self.name} was not started")
        return self.process.pid

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        """Start and return when it really answers. Raises ServerError, with nothing left running."""
        if self.running:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        self._prepare()
        self.process = process = spawn(self._command(), self.log, self._environment(), self.folder)
        try:
            wait_until(
                lambda: process.poll() is not None or self.answers(),
                self.start_seconds,
                f"{self.name} on port {self.port} did not answer",
            )
            if process.poll() is not None:
                raise ServerError(f"{self.name} on port {self.port} ended with {process.returncode}")
        except ServerError as error:
            self.kill()
            raise ServerError(f"{error}\n{tail(self.log)}") from None
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """End it in its own way, or by SIGKILL when that takes longer than `stop_seconds`."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL to the whole process group, at once."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop, and start again on the same port and data."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """SIGSTOP: connections stay, nothing answers."""
        os.killpg(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT after `pause`."""
        os.killpg(self.pid, signal.SIGCONT)

    def answers(self) -> bool:
        """True if it answers a first question of its protocol within a second."""
        try:
            with socket.create_connection((HOST, self.port), timeout=1) as connection:
                connection.settimeout(1)
                connection.sendall(self._question())
                return self._is_answer(connection.recv(64))
        except OSError:
            return False

    def _end(self, signum: int) -> None:
        process, self.process = self.process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGCONT)
            end_group(process, signum, self.stop_seconds)

    def _prepare(self) -> None:
        """What the folder needs before the process starts."""

    def _command(self) -> list[str | Path]:
        raise NotImplementedError

    def _environment(self) -> dict[str, str] | None:
        return None

    def _question(self) -> bytes:
        raise NotImplementedError

    def _is_answer(self, data: bytes) -> bool:
        return bool(data)


def _program(name: str, how: str) -> str:
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin")
    if path is None:
        raise ServerError(f"{name} is not installed ({how})")
    return path


class RedisServer(Server):
    """Redis, with an append-only file unless told otherwise, and noeviction."""

    name = "redis"

    def __init__(
        self,
        folder: str | Path,
        port: int | None = None,
        *,
        appendonly: bool = True,
        appendfsync: str = "everysec",
        databases: int = 1024,
        options: Sequence[str] = (),
    ) -> None:
        """`options` are further words of redis-server's command line, such as `--maxmemory`, `10mb`."""
        super().__init__(folder, port)
        self.appendonly = appendonly
        self.appendfsync = appendfsync
        self.databases = databases
        self.options = list(options)

    @property
    def url(self) -> str:
        return self.url_of(0)

    def url_of(self, db: int) -> str:
        return f"redis://{HOST}:{self.port}/{db}"

    def _command(self) -> list[str | Path]:
        return [
            _program("redis-server", "Debian package redis-server"),
            *("--bind", HOST, "--port", str(self.port), "--dir", self.folder),
            *("--save", "", "--maxmemory-policy", "noeviction", "--databases", str(self.databases)),
            *("--appendonly", "yes" if self.appendonly else "no", "--appendfsync", self.appendfsync),
            *self.options,
        ]

    def _question(self) -> bytes:
        return b"PING\r\n"

    def _is_answer(self, data: bytes) -> bool:
        return data.startswith(b"+PONG")


class RabbitServer(Server):
    """RabbitMQ with a node name, cookie, distribution port and port mapper (epmd) of its own."""

    name = "rabbitmq"
    start_seconds = 90.0

    def __init__(self, folder: str | Path, port: int | None = None) -> None:
        super().__init__(folder, port)
        # Names need not differ: each has a port mapper of its own. So the data outlives a change of port.
        self.node = "imd@localhost"
        self._dist_port = free_port()
        self._epmd_port = free_port()
        self._epmd: subprocess.Popen[bytes] | None = None
        self._spare_vhosts: list[str] = []
        self._vhost_numbers = itertools.count(1)

    @property
    def url(self) -> str:
        return self.url_of("/")

    def url_of(self, vhost: str) -> str:
        return f"amqp://guest:guest@{HOST}:{self.port}/{'%2F' if vhost == '/' else vhost}"

    def rabbitctl(self, *args: str, seconds: float = 60) -> str:
        """What `rabbitmqctl -q <args>` prints (it takes a second or two). Raises ServerError if it fails."""
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

    def new_vhost(self) -> str:
        """The name of a virtual host that nobody has used, open to guest. They are made six at a time."""
        if not self._spare_vhosts:
            names = [f"v{next(self._vhost_numbers)}" for _ in range(6)]
            listed = ",".join(f'<<"{name}">>' for name in names)
            self.rabbitctl(
                "eval",
                f"[begin rabbit_vhost:add(V, <<>>, [], <<\"tests\">>), rabbit_auth_backend_internal:"
                f'set_permissions(<<"guest">>, V, <<".*">>, <<".*">>, <<".*">>, <<"tests">>) end '
                f"|| V <- [{listed}]].",
            )
            self._spare_vhosts = names
        return self._spare_vhosts.pop(0)

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
            epmd = [_program("epmd", "Debian package erlang-base"), "-address", HOST]
            self._epmd = spawn([*epmd, "-port", str(self._epmd_port)], self.folder / "epmd.log")
            wait_until(self._epmd_answers, 10, "epmd did not answer")

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


def mongod_program() -> str:
    """The path of mongod: the one on PATH, or the one that the `servers` extra installs."""
    packaged = Path(sysconfig.get_path("purelib"), "fiftyone", "db", "bin", "mongod")
    return str(packaged) if packaged.exists() else _program("mongod", "pip install 'imd[servers]'")


class MongoServer(Server):
    """MongoDB, standalone and small."""

    name = "mongodb"
    start_seconds = 60.0

    @property
    def url(self) -> str:
        return self.url_of("imd")

    def url_of(self, database: str) -> str:
        return f"mongodb://{HOST}:{self.port}/{database}"

    def _prepare(self) -> None:
        (self.folder / "data").mkdir(exist_ok=True)

    def _command(self) -> list[str | Path]:
        return [
            mongod_program(),
            *("--bind_ip", HOST, "--port", str(self.port), "--dbpath", self.folder / "data"),
            *("--wiredTigerCacheSizeGB", "0.25", "--nounixsocket", "--quiet"),
            *("--setParameter", "diagnosticDataCollectionEnabled=false"),
            # A journal of 100 MB files made in advance is nothing for a folder that lives a minute.
            *("--wiredTigerEngineConfigString", "log=(prealloc=false,file_max=32MB)"),
        ]

    def _question(self) -> bytes:
        # {hello: 1, $db: "admin"} as one OP_MSG.
        document = b"\x10hello\0\x01\0\0\0\x02$db\0\x06\0\0\0admin\0\0"
        body = struct.pack("<IB", 0, 0) + struct.pack("<I", len(document) + 4) + document
        return struct.pack("<IIII", 16 + len(body), 1, 0, 2013) + body


ServerType = TypeVar("ServerType", bound=Server)


class SharedServers:
    """One server of each kind per process, started when first asked for; for tests that never harm them.

    Tests keep apart by database number, virtual host and database name. Each call without an argument
    gives one that nobody has had. Tests that stop or kill a server start one of their own.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="imd-servers-"))
        self._servers: dict[str, Server] = {}
        self._redis_numbers = itertools.count(1)
        self._mongo_numbers = itertools.count(1)

    @property
    def redis(self) -> RedisServer:
        return self._started(RedisServer)

    @property
    def rabbit(self) -> RabbitServer:
        return self._started(RabbitServer)

    @property
    def mongo(self) -> MongoServer:
        return self._started(MongoServer)

    def redis_url(self, db: int | None = None) -> str:
        """An empty database, or the one with this number (0 is never given out)."""
        redis = self.redis
        return redis.url_of(next(self._redis_numbers) if db is None else db)

    def amqp_url(self, vhost: str | None = None) -> str:
        """An empty virtual host, or the one with this name."""
        rabbit = self.rabbit
        return rabbit.url_of(rabbit.new_vhost() if vhost is None else vhost)

    def mongo_url(self, database: str | None = None) -> str:
        """An empty database, or the one with this name."""
        return self.mongo.url_of(f"test{next(self._mongo_numbers)}" if database is None else database)

    def end(self) -> None:
        """Kill all and remove their folder."""
        for server in self._servers.values():
            server.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _started(self, kind: type[ServerType]) -> ServerType:
        server = self._servers.setdefault(kind.name, kind(self.folder / kind.name))
        assert isinstance(server, kind)
        server.start()
        return server


@cache
def shared() -> SharedServers:
    """The servers that all tests of this process share; they end with it."""
    servers = SharedServers()
    atexit.register(servers.end)
    return servers
