-- Responses, each with its items; every row belongs to an owner, directly or through its response.
--
-- `seq` grows with every insert, so items are appended to their table and to their index, however random the ids are:
-- a save dirties fewer pages. Long columns come last, so that reading what stands before them never loads them.

PRAGMA application_id = 0x4F524531; -- "ORE1": how ORE knows its own file

CREATE TABLE schema_migrations (
    version    INTEGER PRIMARY KEY,
    name       TEXT    NOT NULL,
    checksum   TEXT    NOT NULL, -- SHA-256 of the file that was applied, in hexadecimal digits
    applied_at INTEGER NOT NULL  -- Unix seconds
) STRICT;

CREATE TABLE responses (
    seq                  INTEGER PRIMARY KEY,
    owner                TEXT    NOT NULL,
    id                   TEXT    NOT NULL,
    created_at           INTEGER NOT NULL, -- Unix seconds
    status               TEXT    NOT NULL,
    previous_response_id TEXT,             -- not a foreign key: an ancestor may be deleted before its descendants
    envelope             BLOB    NOT NULL,
    UNIQUE (owner, id)
) STRICT;

CREATE TABLE items (
    seq       INTEGER PRIMARY KEY,
    response  INTEGER NOT NULL REFERENCES responses (seq) ON DELETE CASCADE,
    direction INTEGER NOT NULL CHECK (direction IN (0, 1)), -- 0: input, 1: output
    position  INTEGER NOT NULL,
    id        TEXT    NOT NULL, -- not unique: clients choose the ids of what they send
    body      BLOB    NOT NULL,
    UNIQUE (response, direction, position)
) STRICT;

-- One row that is touched to find out whether the disk takes writes again.
CREATE TABLE heartbeat (
    id    INTEGER PRIMARY KEY CHECK (id = 1),
    beats INTEGER NOT NULL
) STRICT;

INSERT INTO heartbeat (id, beats) VALUES (1, 0);
