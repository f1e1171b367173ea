"""MongoDB, as the doctor sees it: what happens to the archive when one server is gone?"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pymongo
from pymongo.errors import OperationFailure, PyMongoError
from pymongo.uri_parser import parse_uri

from imd.backends.mongo_archive import COLLECTION, DATABASE
from imd.backends.mongo_history import INDEXES
from imd.command.look import certificate, clock, note, ok, problem, say, warning
from imd.command.output import Finding
from imd.settings import Mongodb

PART = "mongodb"
FULL = 0.85
SLOW_INDEX_DOCUMENTS = 1_000_000


def look(mongodb: Mongodb, seconds: float) -> Iterator[Finding]:
    milliseconds = int(seconds * 1000)
    try:
        parsed = parse_uri(mongodb.url)
        client: Any = pymongo.MongoClient(
            mongodb.url,
            serverSelectionTimeoutMS=milliseconds,
            connectTimeoutMS=milliseconds,
            socketTimeoutMS=milliseconds,
            tz_aware=True,
            appname="imd doctor",
        )
    except (PyMongoError, ValueError) as error:
        yield problem(PART, f"the url cannot be used: {say(error)}")
        return
    if parsed["options"].get("tls"):
        for host, port in parsed["nodelist"]:
            yield certificate(PART, host, port or 27017, seconds)
    try:
        with pymongo.timeout(seconds):
            yield from _server(client)
            yield from _writes(client, client.get_default_database(DATABASE))
    except PyMongoError as error:
        advice = "Messages go on; the archive's queue holds them, and history is unavailable."
        yield problem(PART, f"cannot be used: {_short(error)}", advice)
    finally:
        client.close()


def _short(error: PyMongoError) -> str:
    """The driver goes on about its timeouts and its view of all servers."""
    return say(error).partition(" (configured timeouts")[0].partition(", Timeout:")[0]


def _server(client: Any) -> Iterator[Finding]:
    asked = time.time()
    hello = client.admin.command("hello")
    answered = time.time()
    version = client.server_info()["version"]
    name = hello.get("setName")
    if hello.get("msg") == "isdbgrid":
        yield ok(PART, f"version {version}, sharded")
    elif name is None:
        advice = "A replica set of three keeps the archive, and goes on, when one server is lost."
        yield warning(
            PART, f"version {version}, one server by itself: the archive is as safe as its disk", advice
        )
    else:
        yield from _replicas(client, version, name, hello.get("hosts", []))
    yield clock(PART, hello["localTime"].timestamp(), asked, answered)


def _replicas(client: Any, version: str, name: str, hosts: list[str]) -> Iterator[Finding]:
    try:
        members = client.admin.command("replSetGetStatus")["members"]
    except OperationFailure:
        # Not everybody may ask.
        yield ok(PART, f"version {version}, replica set {name} of {len(hosts)}")
        return
    away = [member["name"] for member in members if member.get("health") != 1]
    if away:
        yield warning(PART, f"version {version}, replica set {name}: {', '.join(away)} cannot be reached")
    elif len(members) < 3:
        yield warning(PART, f"version {version}, replica set {name} of {len(members)}: none may be lost")
    else:
        yield ok(PART, f"version {version}, replica set {name} of {len(members)}, all well")


def _writes(client: Any, database: Any) -> Iterator[Finding]:
    asked = client.write_concern.document
    concern = {"w": "majority", "j": True, **asked}
    if concern["w"] in ("majority",) and concern["j"]:
        yield ok(PART, "writes wait for a majority and the journal")
    else:
        said = ", ".join(f"{key}={value}" for key, value in asked.items())
        yield warning(PART, f"the url asks for {said}: less than a majority and the journal", "Leave it out.")
    there = COLLECTION in database.list_collection_names()
    count = database[COLLECTION].estimated_document_count() if there else 0
    keys = [index["key"] for index in database[COLLECTION].index_information().values()] if there else []
    missing = [index.keys for index in INDEXES if index.keys not in [list(key) for key in keys]]
    names = "; ".join(", ".join(field for field, _ in wanted) for wanted in missing)
    if not there:
        yield note(
            PART, f"{database.name}.{COLLECTION} is not there yet: the first node that starts makes it"
        )
    elif missing and count > SLOW_INDEX_DOCUMENTS:
        advice = "The next node that starts makes them, which takes its time."
        yield warning(PART, f"{count:,} documents, and indexes are missing: {names}", advice)
    elif missing:
        yield warning(PART, f"indexes are missing: {names}", "The next node that starts makes them.")
    else:
        yield ok(PART, f"{count:,} documents in {database.name}.{COLLECTION}, with all indexes")
    stats = database.command("dbStats")
    used, total = stats.get("fsUsedSize"), stats.get("fsTotalSize")
    if used and total and used > FULL * total:
        yield warning(PART, f"its disk is {100 * used / total:.0f} % full")
