"""MongoDB, as the doctor sees it: what happens to the archive when one server is gone?"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pymongo
from pymongo.errors import OperationFailure, PyMongoError
from pymongo.uri_parser import parse_uri

from imd.command.findings import Finding, note, ok, problem, say, warning
from imd.command.judge import certificate, clock
from imd.config.settings import Mongodb
from imd.store.mongo.apply import EVENTS, REACTIONS
from imd.store.mongo.archive import COLLECTION, DATABASE
from imd.store.mongo.indexes import (
    EVENT_INDEXES,
    REACTION_INDEXES,
    TALK_INDEXES,
    conflict,
    missing_indexes,
)
from imd.store.mongo.ledger import count_missing
from imd.store.mongo.talk_write import TALKS

PART = "mongodb"
FULL = 0.85
SLOW_INDEX_DOCUMENTS = 1_000_000
BESIDE = {EVENTS: EVENT_INDEXES, REACTIONS: REACTION_INDEXES, TALKS: TALK_INDEXES}
"""collections beside that of the messages → their indexes"""


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
    """The error, without the timeouts and the view of all servers that the driver appends."""
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
        # The user has no permission to ask.
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
    names_there = database.list_collection_names()
    there = COLLECTION in names_there
    count = database[COLLECTION].estimated_document_count() if there else 0
    information = database[COLLECTION].index_information() if there else {}
    missing = missing_indexes(information)
    for name, indexes in BESIDE.items():
        if there and name in names_there:
            missing += missing_indexes(database[name].index_information(), indexes)
    conflicts = {index.fields: conflict(index, information) for index in missing}
    names = "; ".join(index.fields for index in missing if not conflicts[index.fields])
    for fields, why in conflicts.items():
        if why and there:
            advice = "Drop that index; a node makes its own within a minute or two."
            yield warning(PART, f"history is slow without an index of {fields}: {why}", advice)
    if not there:
        yield note(
            PART, f"{database.name}.{COLLECTION} is not there yet: the first node that starts makes it"
        )
    elif names and count > SLOW_INDEX_DOCUMENTS:
        advice = "The next node that starts makes them, which takes its time."
        yield warning(PART, f"{count:,} documents, and indexes are missing: {names}", advice)
    elif names:
        yield warning(PART, f"indexes are missing: {names}", "The next node that starts makes them.")
    elif missing:
        yield note(PART, f"{count:,} documents in {database.name}.{COLLECTION}")
    else:
        yield ok(PART, f"{count:,} documents in {database.name}.{COLLECTION}, with all indexes")
    if there:
        yield from _shrinking(database, information)
    yield from _missing(database)
    stats = database.command("dbStats")
    used, total = stats.get("fsUsedSize"), stats.get("fsTotalSize")
    if used and total and used > FULL * total:
        yield warning(PART, f"its disk is {100 * used / total:.0f} % full")


def _shrinking(database: Any, information: Any) -> Iterator[Finding]:
    """Settings that make MongoDB remove documents by itself."""
    for name, index in information.items():
        if "expireAfterSeconds" in index:
            advice = "Drop it, unless the archive is meant to forget: history ends there."
            what = f"the index {name} of {COLLECTION} removes documents after {index['expireAfterSeconds']} s"
            yield warning(PART, what, advice)
    if database[COLLECTION].options().get("capped"):
        advice = "Copy it into a collection that is not capped."
        yield warning(PART, f"{COLLECTION} is a capped collection: it loses the oldest documents", advice)


def _missing(database: Any) -> Iterator[Finding]:
    """Batches that RabbitMQ has confirmed and never gave out."""
    missing = count_missing(database)
    if missing:
        batches = sum(missing.values())
        what = f"{batches:,} confirmed batches are missing in the archive (published by {', '.join(missing)})"
        advice = (
            "Something took them out of imd.archive: a policy, a purge, another consumer? "
            "docs/how-to/missing-batches.md."
        )
        yield problem(PART, what, advice)
