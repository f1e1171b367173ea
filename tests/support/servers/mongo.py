"""A private MongoDB."""

from __future__ import annotations

import struct
import sysconfig
from pathlib import Path

from tests.support.servers.ports import HOST
from tests.support.servers.process import program
from tests.support.servers.server import Server


def mongod_program() -> str:
    """The path of mongod: the one on PATH, or the one that the `servers` extra installs."""
    packaged = Path(sysconfig.get_path("purelib"), "fiftyone", "db", "bin", "mongod")
    return str(packaged) if packaged.exists() else program("mongod", "pip install 'imd[servers]'")


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
            # Journal files of 100 MB, made in advance, would be wasted on a folder that lives a minute.
            *("--wiredTigerEngineConfigString", "log=(prealloc=false,file_max=32MB)"),
        ]

    def _question(self) -> bytes:
        # {hello: 1, $db: "admin"} as one OP_MSG.
        document = b"\x10hello\0\x01\0\0\0\x02$db\0\x06\0\0\0admin\0\0"
        body = struct.pack("<IB", 0, 0) + struct.pack("<I", len(document) + 4) + document
        return struct.pack("<IIII", 16 + len(body), 1, 0, 2013) + body
