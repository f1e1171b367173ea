"""A private MongoDB, alone or as a replica set."""

from __future__ import annotations

import struct
import sysconfig
from pathlib import Path

import pymongo

from tests.support.servers.ports import HOST
from tests.support.servers.process import program, wait_until
from tests.support.servers.server import Server


def mongod_program() -> str:
    """The path of mongod: the one on PATH, or the one that the `servers` extra installs."""
    packaged = Path(sysconfig.get_path("purelib"), "fiftyone", "db", "bin", "mongod")
    return str(packaged) if packaged.exists() else program("mongod", "pip install 'imd[servers]'")


class MongoServer(Server):
    """MongoDB, small; standalone if it is in no `replica_set`."""

    name = "mongodb"

    def __init__(self, folder: str | Path, port: int | None = None, replica_set: str = "") -> None:
        super().__init__(folder, port)
        self._replica_set = replica_set

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
            *(("--replSet", self._replica_set, "--oplogSize", "50") if self._replica_set else ()),
        ]

    def _question(self) -> bytes:
        # {hello: 1, $db: "admin"} as one OP_MSG.
        document = b"\x10hello\0\x01\0\0\0\x02$db\0\x06\0\0\0admin\0\0"
        body = struct.pack("<IB", 0, 0) + struct.pack("<I", len(document) + 4) + document
        return struct.pack("<IIII", 16 + len(body), 1, 0, 2013) + body


class MongoReplicaSet:
    """Some members, of which the first leads whenever it may."""

    name = "rs"

    def __init__(self, folder: str | Path, members: int) -> None:
        whole = Path(folder).absolute()
        self.members = [MongoServer(whole / str(n), replica_set=self.name) for n in range(members)]

    @property
    def url(self) -> str:
        hosts = ",".join(f"{HOST}:{member.port}" for member in self.members)
        return f"mongodb://{hosts}/imd?replicaSet={self.name}"

    def start(self) -> None:
        """Return when the first one leads."""
        for member in self.members:
            member.start()
        members = [
            {"_id": number, "host": f"{HOST}:{member.port}", "priority": int(number == 0)}
            for number, member in enumerate(self.members)
        ]
        leader = self.members[0].url_of("admin")
        with pymongo.MongoClient(leader, directConnection=True) as client:
            client.admin.command("replSetInitiate", {"_id": self.name, "members": members})
            wait_until(lambda: client.admin.command("hello")["isWritablePrimary"], 180, "no member leads")

    def kill(self) -> None:
        for member in self.members:
            member.kill()
