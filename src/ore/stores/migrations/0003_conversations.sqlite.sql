-- Conversations, their items, and which responses were made in them.

CREATE TABLE conversations (
    seq        INTEGER PRIMARY KEY,
    owner      TEXT    NOT NULL,
    id         TEXT    NOT NULL,
    created_at INTEGER NOT NULL, -- Unix seconds
    holder     TEXT,             -- the response that is running in it, as long as `held_until` is to come
    held_until REAL,             -- Unix seconds
    held_after INTEGER,          -- the last item when the holder came
    deleted    INTEGER NOT NULL DEFAULT 0 CHECK (deleted IN (0, 1)), -- kept for the responses that were made in it
    metadata   BLOB    NOT NULL
) STRICT;

CREATE UNIQUE INDEX conversations_by_id ON conversations (owner, id) WHERE NOT deleted;

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

CREATE TRIGGER deleted_conversations_go_with_their_last_response AFTER DELETE ON conversation_responses BEGIN
    DELETE FROM conversations WHERE seq = old.conversation AND deleted
        AND NOT EXISTS (SELECT 1 FROM conversation_responses WHERE conversation = old.conversation);
END;
