-- Background runs: what it takes to go on with one after its process died, and its events, kept to be followed.
--
-- A run belongs to whoever holds its lease. `fence` rises with every change of hands, and a write with an older one is
-- refused: a process that slept through its lease cannot disturb the one that took over.

CREATE TABLE runs (
    response    INTEGER PRIMARY KEY REFERENCES responses (seq) ON DELETE CASCADE,
    streamed    INTEGER NOT NULL CHECK (streamed IN (0, 1)), -- whether its events may be asked for
    holder      TEXT,             -- the process that drives it; null when nobody does
    lease_until REAL    NOT NULL, -- Unix seconds
    fence       INTEGER NOT NULL,
    attempt     INTEGER NOT NULL, -- how many processes have driven it
    ended_at    REAL,             -- Unix seconds; null while it runs
    progress    BLOB    NOT NULL, -- what the loop noted last
    request     BLOB    NOT NULL  -- the checked request; emptied at the end
) STRICT;

CREATE INDEX runs_unfinished ON runs (lease_until) WHERE ended_at IS NULL;
CREATE INDEX runs_ended ON runs (ended_at) WHERE ended_at IS NOT NULL;

CREATE TABLE events (
    response INTEGER NOT NULL REFERENCES runs (response) ON DELETE CASCADE,
    number   INTEGER NOT NULL, -- its `sequence_number`
    type     TEXT    NOT NULL,
    body     BLOB    NOT NULL,
    PRIMARY KEY (response, number)
) STRICT, WITHOUT ROWID;

-- `item_reference` names an item by its id alone.
CREATE INDEX items_by_id ON items (id);
