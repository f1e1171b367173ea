"""MongoDB, as the doctor sees it: what happens to the archive when one server is gone?"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

import pymongo
from pymongo.errors import OperationFailure, PyMongoError
from pymongo.uri_parser import parse_uri

from imd.command.findings import Finding, note, ok, problem, say, warning
from imd.command.judge import certificate, clock
from imd.config.settings import Mongodb
from imd.store.mongo.all_indexes import BESIDE
from imd.store.mongo.archive import COLLECTION, DATABASE
from imd.store.mongo.indexes import (
    INDEXES,
    Index,
    conflict,
    consequence,
    is_kept_unique,
    label,
    missing_indexes,
)
from imd.store.mongo.ledger import count_missing

PART = "mongodb"
FULL = 0.85
SLOW_INDEX_DOCUMENTS = 1_000_000
SEVERAL_INDEXES = 5
"""the first version of MongoDB that has several indexes of the same keys"""


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
    alone = client.server_info()["versionArray"][0] < SEVERAL_INDEXES
    named: list[Finding] = []
    missing: list[str] = []
    for name, indexes in {COLLECTION: INDEXES, **BESIDE}.items():
        if name in names_there:
            of_one, to_be_made = _indexes(database[name], indexes, alone)
            named += of_one
            missing += to_be_made
    yield from named
    names = "; ".join(missing)
    if not there:
        yield note(
            PART, f"{database.name}.{COLLECTION} is not there yet: the first node that starts makes it"
        )
    if names and count > SLOW_INDEX_DOCUMENTS:
        advice = "The next node that starts makes them, which takes its time, or its log says why not."
        yield warning(PART, f"{count:,} documents, and indexes are missing: {names}", advice)
    elif names:
        advice = "The next node that starts makes them, or its log says why not."
        yield warning(PART, f"indexes are missing: {names}", advice)
    elif there and named:
        yield note(PART, f"{count:,} documents in {database.name}.{COLLECTION}")
    elif there:
        yield ok(PART, f"{count:,} documents in {database.name}.{COLLECTION}, with all indexes")
    if there:
        yield from _shrinking(database)
    yield from _missing(database)
    stats = database.command("dbStats")
    used, total = stats.get("fsUsedSize"), stats.get("fsTotalSize")
    if used and total and used > FULL * total:
        yield warning(PART, f"its disk is {100 * used / total:.0f} % full")


def _indexes(collection: Any, indexes: Iterable[Index], alone: bool) -> tuple[list[Finding], list[str]]:
    """Findings about missing indexes of a collection, and the names of those that a node simply makes.

    `alone`: the server has one index of the same keys at most.
    """
    try:
        information = collection.index_information()
    except OperationFailure as error:
        what = f"the indexes of {collection.name} cannot be looked at: code {error.code}"
        return [warning(PART, what, "Is it a collection, and may imd's user list its indexes?")], []
    named, to_be_made = [], []
    for index in missing_indexes(information, indexes):
        say_so = problem if index.unique and not is_kept_unique(index, information) else warning
        why = conflict(index, information, alone=alone)
        what = f"no index of {label(collection, index)}: "
        if why is not None:
            advice = "Drop that index; a node makes its own within a minute or two."
            named.append(say_so(PART, f"{what}{why}; {consequence(index, information)}", advice))
        elif say_so is problem and collection.estimated_document_count():
            # The documents that are there may be its obstacle, which only a try shows.
            advice = "A node makes it within a minute or two. If none does, its log says why."
            named.append(problem(PART, f"{what}{consequence(index, information)}", advice))
        else:
            to_be_made.append(label(collection, index))
    return named, to_be_made


def _shrinking(database: Any) -> Iterator[Finding]:
    """Settings that make MongoDB remove documents by itself."""
    for name, index in database[COLLECTION].index_information().items():
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
