-- What is to be started when: `body` is JSON, `crc` covers the whole row. A schedule is due at `due_millis`, and
-- when the run has ended that it awaits, which is named by its id.
CREATE TABLE schedule (
    id TEXT NOT NULL PRIMARY KEY,
    revision INTEGER NOT NULL,
    due_millis INTEGER,
    awaits TEXT,
    body BLOB NOT NULL,
    crc INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX schedule_due ON schedule (due_millis) WHERE due_millis IS NOT NULL;
CREATE INDEX schedule_awaiting ON schedule (awaits) WHERE awaits IS NOT NULL;
