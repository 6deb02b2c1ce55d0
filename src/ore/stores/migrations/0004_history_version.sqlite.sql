-- A number that changes whenever a chain that was read may have become another: when a response is deleted, or one that
-- had ended is saved again. What is remembered under the number is true for as long as the number stands.

CREATE TABLE history (
    id      INTEGER PRIMARY KEY CHECK (id = 1),
    version INTEGER NOT NULL
) STRICT;

INSERT INTO history (id, version) VALUES (1, 0);

CREATE TRIGGER history_lost_a_response AFTER DELETE ON responses BEGIN
    UPDATE history SET version = version + 1;
END;

CREATE TRIGGER history_was_rewritten AFTER UPDATE ON responses WHEN old.status NOT IN ('queued', 'in_progress') BEGIN
    UPDATE history SET version = version + 1;
END;
