"""Private Redis, RabbitMQ and MongoDB servers on loopback ports, for tests and for the scripts.

Plain blocking code on the standard library.
"""

from tests.support.servers.errors import ServerError
from tests.support.servers.mongo import MongoServer, mongod_program
from tests.support.servers.ports import HOST, free_port
from tests.support.servers.process import end_group, spawn, tail, wait_until
from tests.support.servers.rabbit import RABBITMQ_BIN, RabbitServer
from tests.support.servers.redis import RedisServer
from tests.support.servers.server import Server
from tests.support.servers.shared import ServerType, SharedServers, shared

__all__ = [
    "HOST",
    "RABBITMQ_BIN",
    "MongoServer",
    "RabbitServer",
    "RedisServer",
    "Server",
    "ServerError",
    "ServerType",
    "SharedServers",
    "end_group",
    "free_port",
    "mongod_program",
    "shared",
    "spawn",
    "tail",
    "wait_until",
]
