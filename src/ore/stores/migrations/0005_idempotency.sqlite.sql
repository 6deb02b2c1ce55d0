-- Answers that are given again to whoever sends the same request under the same key.

CREATE TABLE idempotency (
    owner       TEXT NOT NULL,
    key         TEXT NOT NULL, -- the client's
    fingerprint BLOB NOT NULL, -- of the request that came first
    holder      TEXT,          -- who answers it; NULL once the answer is here
    expires_at  REAL NOT NULL, -- Unix seconds
    status      INTEGER,
    headers     BLOB,
    body        BLOB,
    PRIMARY KEY (owner, key),
    CHECK ((holder IS NULL) = (body IS NOT NULL))
) STRICT;

CREATE INDEX idempotency_by_expiry ON idempotency (expires_at);
