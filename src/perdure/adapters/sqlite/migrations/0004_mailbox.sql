-- Letters that wait to be read; `key` grows in the order of posting, `body` is JSON.
CREATE TABLE letter (
    key INTEGER PRIMARY KEY,
    run INTEGER NOT NULL REFERENCES run (key),
    id TEXT NOT NULL,
    sent_millis INTEGER NOT NULL,
    body BLOB NOT NULL,
    UNIQUE (run, id)
) STRICT;

-- When somebody is to take the run up that nobody owns: 0 is at once, NULL not before a letter comes. It says
-- nothing of runs that have an owner.
ALTER TABLE run ADD COLUMN due_millis INTEGER DEFAULT 0;
UPDATE run SET due_millis = NULL WHERE ended = 1;
CREATE INDEX run_due ON run (due_millis) WHERE ended = 0 AND owner IS NULL AND due_millis IS NOT NULL;
-- Those whose owner may have died.
CREATE INDEX run_owned ON run (owner, expires_millis) WHERE ended = 0 AND owner IS NOT NULL;
