"""Formats of the SQLite file: its tables, and the steps from each format to the next.

A step is SQL that turns a file of the format before into one of its own. New files get the tables of BASE and
then the same steps, so each change is written once.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3

from twisted.logger import Logger

from imd.protocol.errors import ConfigurationError

_log = Logger()

BASE = 2
"""the format of SCHEMA"""
UNANSWERED = 50

SCHEMA = """
-- Every user that another table refers to. An inbox holds exactly the numbers low+1 to seq.
-- agent: the agent that a visitor is assigned to; agent_used: when it last wrote to it, or was answered, ms.
-- waiting: a visitor's place in the desk's waiting order.
-- owed: 1 if a visitor's messages have no answer; 2 if it has also been silent for long, and is no load.
-- opened: 1 once a device of the user has connected.
CREATE TABLE user (uid INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, epoch TEXT NOT NULL,
    seq INTEGER NOT NULL, low INTEGER NOT NULL, agent TEXT, agent_used INTEGER NOT NULL, waiting INTEGER,
    owed INTEGER NOT NULL, opened INTEGER NOT NULL);
CREATE INDEX user_agent ON user (agent) WHERE agent IS NOT NULL;
CREATE INDEX user_waiting ON user (waiting) WHERE waiting IS NOT NULL;

-- epoch: of the cursor, or '-' until the device has acknowledged anything after `recovered: false`.
-- seq: the number that the device acknowledged; seen: when it was last heard of, ms; attempt: its highest.
CREATE TABLE device (uid INTEGER NOT NULL, name TEXT NOT NULL, epoch TEXT NOT NULL, seq INTEGER NOT NULL,
    seen INTEGER NOT NULL, attempt INTEGER, ephemeral INTEGER NOT NULL,
    PRIMARY KEY (uid, name)) WITHOUT ROWID;

-- The archive. Only this table has bodies. send_time: when the message was stored, ms.
CREATE TABLE message (number INTEGER PRIMARY KEY, id TEXT NOT NULL, sender INTEGER NOT NULL,
    conversation BLOB NOT NULL, send_time INTEGER NOT NULL, body TEXT NOT NULL);
CREATE INDEX message_conversation ON message (conversation, id);
CREATE TABLE participant (uid INTEGER NOT NULL, id TEXT NOT NULL, message INTEGER NOT NULL,
    PRIMARY KEY (uid, id)) WITHOUT ROWID;

-- size: of the body, in bytes.
CREATE TABLE inbox (uid INTEGER NOT NULL, seq INTEGER NOT NULL, message INTEGER NOT NULL,
    size INTEGER NOT NULL, PRIMARY KEY (uid, seq)) WITHOUT ROWID;
CREATE TABLE waiting (uid INTEGER NOT NULL, position INTEGER NOT NULL, message INTEGER NOT NULL,
    size INTEGER NOT NULL, PRIMARY KEY (uid, position)) WITHOUT ROWID;

-- The newest of a visitor's messages that an agent has got since the last answer.
CREATE TABLE unanswered (uid INTEGER NOT NULL, message INTEGER NOT NULL, size INTEGER NOT NULL,
    PRIMARY KEY (uid, message)) WITHOUT ROWID;

-- clientMsgIds, in the order of their last use (a use is a new row), so that the oldest are the first.
CREATE TABLE sent (use INTEGER PRIMARY KEY, sender INTEGER NOT NULL, device TEXT NOT NULL,
    client_msg_id TEXT NOT NULL, content TEXT NOT NULL, message INTEGER NOT NULL, used INTEGER NOT NULL);
CREATE UNIQUE INDEX sent_key ON sent (sender, device, client_msg_id);

-- Visitors' tokens, hashed; used: ms.
CREATE TABLE visitor (name TEXT PRIMARY KEY, token_hash TEXT NOT NULL, used INTEGER NOT NULL);
CREATE INDEX visitor_used ON visitor (used);
"""

# Messages that an agent has got of its visitor since it last wrote to it count as unanswered.
_FROM_1 = f"""
ALTER TABLE user ADD COLUMN owed INTEGER NOT NULL DEFAULT 0;
ALTER TABLE user ADD COLUMN opened INTEGER NOT NULL DEFAULT 1;
CREATE TABLE unanswered (uid INTEGER NOT NULL, message INTEGER NOT NULL, size INTEGER NOT NULL,
    PRIMARY KEY (uid, message)) WITHOUT ROWID;
INSERT INTO unanswered
    SELECT uid, message, size FROM (
        SELECT v.uid, m.number AS message, length(CAST(m.body AS BLOB)) AS size,
            ROW_NUMBER() OVER (PARTITION BY v.uid ORDER BY m.number DESC) AS age
        FROM user v JOIN user a ON a.name = v.agent
        JOIN participant p ON p.uid = v.uid JOIN message m ON m.number = p.message
        WHERE m.sender = v.uid AND m.number > (
            SELECT COALESCE(MAX(r.number), 0) FROM participant q JOIN message r ON r.number = q.message
            WHERE q.uid = v.uid AND r.sender = a.uid))
    WHERE age <= {UNANSWERED};
UPDATE user SET owed = 1 WHERE uid IN (SELECT uid FROM unanswered);
"""

# event: `of` is the message that is edited, recalled or reacted to, `version` the room's that it was placed
# under. Of a room's event `version` is the one that it made.
# changed: marks of messages. last: the id of the event that a reaction counts by.
_EVENTS = """
CREATE TABLE event (conversation BLOB NOT NULL, id TEXT NOT NULL, message INTEGER NOT NULL,
    version INTEGER NOT NULL, kind TEXT NOT NULL, of TEXT, PRIMARY KEY (conversation, id)) WITHOUT ROWID;
CREATE INDEX event_edit ON event (of) WHERE kind = 'edit';
CREATE INDEX event_version ON event (conversation, version) WHERE kind = 'room';
CREATE TABLE event_reader (uid INTEGER NOT NULL, id TEXT NOT NULL, message INTEGER NOT NULL,
    PRIMARY KEY (uid, id)) WITHOUT ROWID;
CREATE TABLE changed (message INTEGER PRIMARY KEY, edited TEXT, edited_ms INTEGER, recalled_ms INTEGER,
    reacted INTEGER NOT NULL DEFAULT 0);
CREATE TABLE reaction (message INTEGER NOT NULL, reaction TEXT NOT NULL, uid INTEGER NOT NULL,
    last TEXT NOT NULL, present INTEGER NOT NULL, PRIMARY KEY (message, reaction, uid)) WITHOUT ROWID;
"""

# Tokens of visitors that have neither written nor got a message when they are looked at; used: ms.
_NEWCOMERS = """
CREATE TABLE newcomer (name TEXT PRIMARY KEY, token_hash TEXT NOT NULL, used INTEGER NOT NULL);
CREATE INDEX newcomer_used ON newcomer (used);
"""

# room.body: the room as JSON. made_by: a hash of the creating user, device and clientMsgId.
_ROOMS = """
CREATE TABLE room (id TEXT PRIMARY KEY, made_by TEXT NOT NULL UNIQUE, body TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE room_member (user TEXT NOT NULL, room TEXT NOT NULL, PRIMARY KEY (user, room)) WITHOUT ROWID;
"""

# selector: as JSON. muted: a time in ms; 0 for no, -1 for yes. Marks are message ids; '' for none.
_STATE = """
CREATE TABLE state_user (user TEXT PRIMARY KEY, version INTEGER NOT NULL, floor INTEGER NOT NULL,
    receipts INTEGER NOT NULL, receipts_version INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX state_user_hiding ON state_user (user) WHERE receipts = 0;
CREATE TABLE state_entry (user TEXT NOT NULL, conversation BLOB NOT NULL, version INTEGER NOT NULL,
    selector TEXT NOT NULL, read TEXT NOT NULL, peer TEXT NOT NULL, muted INTEGER NOT NULL,
    pinned INTEGER NOT NULL, hidden TEXT NOT NULL, cleared TEXT NOT NULL, marked INTEGER NOT NULL,
    PRIMARY KEY (user, conversation)) WITHOUT ROWID;
CREATE INDEX state_entry_version ON state_entry (user, version);
CREATE INDEX state_entry_kept ON state_entry (user) WHERE pinned = 1 OR muted <> 0;
"""

# talk: conversations; at: the newest message. key: the conversation; behind it a hash of the people who see
# the messages, if somebody was left out. version: the room's that `at` was placed under; highest: of any.
_TALKS = """
CREATE TABLE talk (key BLOB PRIMARY KEY, at TEXT NOT NULL, version INTEGER NOT NULL,
    highest INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE talk_member (uid INTEGER NOT NULL, key BLOB NOT NULL, PRIMARY KEY (uid, key)) WITHOUT ROWID;
INSERT INTO talk_member SELECT DISTINCT p.uid, m.conversation FROM participant p
    JOIN message m ON m.number = p.message WHERE p.uid <> 0;
DELETE FROM talk_member WHERE key IN
    (SELECT t.key FROM talk_member t JOIN user u USING (uid) WHERE u.name GLOB 'visitor-*');
INSERT INTO talk SELECT key, (SELECT MAX(id) FROM message WHERE conversation = key), 0, 0
    FROM (SELECT DISTINCT key FROM talk_member);
INSERT INTO talk SELECT conversation, MAX(id), version, 0 FROM
    (SELECT m.conversation, m.id, json_extract(m.body, '$.roomVersion') AS version
        FROM participant p JOIN message m ON m.number = p.message
        WHERE p.uid = 0 AND iif(json_valid(m.body), m.body ->> '$.kind', '') = 'message')
    GROUP BY conversation;
UPDATE talk SET highest = (SELECT MAX(json_extract(m.body, '$.roomVersion')) FROM message m
        WHERE m.conversation = key AND iif(json_valid(m.body), m.body ->> '$.kind', '') = 'message')
    WHERE version > 0;
"""

# block: `user` wants to hear nothing of `other`.
# left_out: users whom a block left out of a message or event to a list.
_BLOCKS = """
CREATE TABLE block (user TEXT NOT NULL, other TEXT NOT NULL, PRIMARY KEY (user, other)) WITHOUT ROWID;
CREATE INDEX block_other ON block (other, user);
CREATE TABLE left_out (message INTEGER NOT NULL, user TEXT NOT NULL,
    PRIMARY KEY (message, user)) WITHOUT ROWID;
"""

STEPS: tuple[str, ...] = (
    # 3. sync: 1 if the device wants what its user's other devices send.
    "ALTER TABLE device ADD COLUMN sync INTEGER NOT NULL DEFAULT 0;",
    # 4.
    _EVENTS,
    # 5.
    _NEWCOMERS,
    # 6.
    _ROOMS,
    # 7.
    _STATE,
    # 8.
    _TALKS,
    # 9.
    _BLOCKS,
)
"""formats BASE + 1 and up, in order; each is the SQL that makes it of the format before"""

_ABSENT = 0
_OLDEST = 1


def newest() -> int:
    """The format that this version writes."""
    return BASE + len(STEPS)


def migrate(connection: sqlite3.Connection, path: str) -> None:
    """Give the open file at `path` the newest format, in one transaction. Call in the file's thread.

    A file of an older format is copied first, to `<path>.format-<n>`. Raises ConfigurationError for an
    unknown format, or if the copy cannot be kept; sqlite3.Error for any other trouble. Either leaves the file
    as it was.
    """
    found: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if found == newest():
        return
    if not _ABSENT <= found < newest():
        raise ConfigurationError(f"{path} has format {found}, {newest()} is expected")
    if found != _ABSENT:
        copy = _keep_copy(connection, path, found)
        _log.info(
            "{path}: format {found} becomes {new}; {copy} is as it was",
            path=path,
            found=found,
            new=newest(),
            copy=copy,
        )
    steps = {_ABSENT: [SCHEMA, *STEPS], _OLDEST: [_FROM_1, *STEPS]}.get(found, STEPS[max(0, found - BASE) :])
    try:
        connection.executescript(
            f"BEGIN IMMEDIATE; {' '.join(steps)} PRAGMA user_version = {newest()}; COMMIT;"
        )
    except sqlite3.Error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _keep_copy(connection: sqlite3.Connection, path: str, found: int) -> str:
    """Write a whole copy beside the file, for the way back. A copy of an earlier try is replaced."""
    copy = f"{path}.format-{found}"
    part = f"{copy}.part"
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(part)
        # VACUUM INTO takes an empty file, whose mode it leaves alone.
        os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        connection.execute("VACUUM INTO ?", (part,))
        _sync(part)
        os.replace(part, copy)
        _sync(os.path.dirname(path))
    except (OSError, sqlite3.Error) as error:
        with contextlib.suppress(OSError):
            os.unlink(part)
        why = f"before it becomes {newest()} a copy is kept, and {copy} cannot be written: {error}"
        raise ConfigurationError(f"{path} has format {found}; {why}") from None
    return copy


def _sync(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
