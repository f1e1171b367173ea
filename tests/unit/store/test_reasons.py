"""Why a server or a file refuses: each reason begins with a word that stays the same."""

from __future__ import annotations

import sqlite3

from pymongo.errors import OperationFailure, ServerSelectionTimeoutError
from twisted.trial import unittest

from imd.protocol.errors import Unavailable
from imd.store.embedded.reasons import plain_reason as sqlite_reason
from imd.store.mongo.reasons import describe
from imd.store.mongo.reasons import plain_reason as mongo_reason
from imd.store.rabbit.reasons import plain_reason as rabbit_reason
from imd.store.rabbit.reasons import reason_of
from imd.store.redis.reasons import plain_reason as redis_reason


class ReasonTests(unittest.TestCase):
    def test_redis(self) -> None:
        """By the beginning of the error's text, without the driver's prefix; an unknown text is as it is."""
        self.assertEqual(redis_reason("ResponseError: OOM full"), "full, maxmemory is reached (OOM full)")
        self.assertEqual(redis_reason("not connected"), "down (not connected)")
        self.assertEqual(redis_reason("ResponseError: ERR new"), "refused (ERR new)")
        self.assertEqual(redis_reason("200000 items wait"), "200000 items wait")

    def test_sqlite(self) -> None:
        """By SQLite's name for the error, and never by its text."""
        error = sqlite3.OperationalError("database is locked")
        self.assertEqual(sqlite_reason(error), "database is locked")
        error.sqlite_errorname = "SQLITE_BUSY_SNAPSHOT"
        self.assertEqual(sqlite_reason(error), "locked, another process holds the file (database is locked)")
        self.assertEqual(sqlite_reason(ValueError("SQLITE_FULL")), "SQLITE_FULL")

    def test_mongodb(self) -> None:
        """An answer is a refusal, else the server is down; the text of an answer may hold a document."""
        answer = describe(OperationFailure("{secret: 1}", 13))
        self.assertEqual(mongo_reason(answer), "refused (OperationFailure: code 13)")
        gone = describe(ServerSelectionTimeoutError("h:1: refused" + "x" * 1000))
        self.assertEqual(len(gone), 200)
        self.assertTrue(mongo_reason(gone).startswith("down (ServerSelectionTimeoutError: h:1: refused"))
        self.assertTrue(mongo_reason(describe(OSError("SSL: handshake"))).startswith("tls ("))
        self.assertEqual(describe(Unavailable("MongoDB: stopped")), "MongoDB: stopped")

    def test_rabbitmq(self) -> None:
        """A TLS reason has its word already; any other means that there is no connection."""
        self.assertEqual(rabbit_reason("tls, it has expired"), "tls, it has expired")
        self.assertEqual(rabbit_reason(reason_of(OSError("no route"))), "down (OSError: no route)")
        self.assertEqual(len(reason_of("x" * 1000)), 300)
