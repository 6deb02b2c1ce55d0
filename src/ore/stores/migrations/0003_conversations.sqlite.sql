-- Conversations, their items, and which responses were made in them.

CREATE TABLE conversations (
    seq        INTEGER PRIMARY KEY,
    owner      TEXT    NOT NULL,
    id         TEXT    NOT NULL,
    created_at INTEGER NOT NULL, -- Unix seconds
    holder     TEXT,             -- the response that is running in it, as long as `held_until` is to come
    held_until REAL,             -- Unix seconds
    held_after INTEGER,          -- the last item when the holder came
    metadata   BLOB    NOT NULL,
    UNIQUE (owner, id)
) STRICT;

-- AUTOINCREMENT: `seq` is the order of a conversation too, so that of a deleted item is never given to another.
CREATE TABLE conversation_items (
    seq          INTEGER PRIMARY KEY AUTOINCREMENT,
    conversation INTEGER NOT NULL REFERENCES conversations (seq) ON DELETE CASCADE,
    id           TEXT    NOT NULL,
    body         BLOB    NOT NULL,
    UNIQUE (conversation, id)
) STRICT;

CREATE INDEX conversation_items_in_order ON conversation_items (conversation);

CREATE TABLE conversation_responses (
    response     INTEGER PRIMARY KEY REFERENCES responses (seq) ON DELETE CASCADE,
    id           TEXT    NOT NULL, -- the conversation's, also when there is none of that id any more
    conversation INTEGER REFERENCES conversations (seq) ON DELETE SET NULL,
    after        INTEGER NOT NULL, -- the last item that stood before the response's own
    appended     INTEGER NOT NULL CHECK (appended IN (0, 1)) -- whether the response's items were added
) STRICT;

CREATE INDEX conversation_responses_by_conversation ON conversation_responses (conversation);
