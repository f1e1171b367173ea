"""The three servers that a cluster needs, in one folder; and as a program, in the foreground."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.support.servers import MongoServer, RabbitServer, RedisServer, Server, ServerError, tail  # noqa: E402


class Services:
    """Redis, RabbitMQ and MongoDB under `folder`, on the given or on free ports."""

    def __init__(
        self,
        folder: Path,
        redis_port: int | None = None,
        rabbitmq_port: int | None = None,
        mongodb_port: int | None = None,
    ) -> None:
        self.redis = RedisServer(folder / "redis", redis_port)
        self.rabbit = RabbitServer(folder / "rabbitmq", rabbitmq_port)
        self.mongo = MongoServer(folder / "mongodb", mongodb_port)

    @property
    def all(self) -> list[Server]:
        return [self.redis, self.rabbit, self.mongo]

    def start(self) -> None:
        """Return when all answer. Raises ServerError."""
        for server in self.all:
            server.start()

    def stop(self) -> None:
        for server in self.all:
            server.stop()

    def sections(self) -> dict[str, dict[str, str]]:
        """The sections and keys of a node's configuration that name these servers."""
        return {
            "redis": {"url": self.redis.url},
            "rabbitmq": {"url": self.rabbit.url},
            "mongodb": {"url": self.mongo.url},
        }

    def ini(self) -> str:
        """The same as text."""
        return "".join(f"[{name}]\nurl = {keys['url']}\n" for name, keys in self.sections().items())


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep a second program off the same folder. Raises ServerError if there is one."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ServerError(f"{folder} is in use") from None
        yield


def end_on_signals() -> None:
    """Let SIGTERM and SIGHUP end the program as Ctrl-C does."""

    def end(signum: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    for signum in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(signum, end)


def ignore_signals() -> None:
    """From here on the end is under way, with its own deadlines."""
    for signum in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(signum, signal.SIG_IGN)


def watch(servers: list[Server]) -> None:
    """Say which servers end by themselves; for ever."""
    gone: set[str] = set()
    while True:
        for server in servers:
            if not server.running and server.name not in gone:
                gone.add(server.name)
                print(f"{server.name} has ended by itself:\n{tail(server.log, 5)}", flush=True)
        time.sleep(0.2)


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/services", description="Private servers in one folder.")
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "var" / "services")
    for name in ("redis", "rabbitmq", "mongodb"):
        parser.add_argument(f"--{name}-port", type=int, metavar="N", help="default: a free one")
    options = parser.parse_args()
    folder = options.folder.resolve()
    services = Services(folder, options.redis_port, options.rabbitmq_port, options.mongodb_port)
    end_on_signals()
    try:
        with held(folder):
            print(f"starting servers in {folder} (some ten seconds)", flush=True)
            services.start()
            print("\n".join(server.url for server in services.all) + f"\n\n{services.ini()}", flush=True)
            print("ready; Ctrl-C ends them", flush=True)
            watch(services.all)
    except ServerError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0
    finally:
        ignore_signals()
        services.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
