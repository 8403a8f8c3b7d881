-- One row a run, with who may append to it. `epoch` grows with every owner.
CREATE TABLE run (
    key INTEGER PRIMARY KEY,
    run_id TEXT NOT NULL UNIQUE,
    owner TEXT,
    epoch INTEGER NOT NULL DEFAULT 0,
    expires_millis INTEGER NOT NULL DEFAULT 0
) STRICT;

-- `body` is the event's JSON without its envelope, `crc` covers the envelope too. `engine` is 1 for what
-- recovery reads.
CREATE TABLE event (
    run INTEGER NOT NULL REFERENCES run (key),
    seq INTEGER NOT NULL,
    ts_millis INTEGER NOT NULL,
    engine INTEGER NOT NULL,
    crc INTEGER NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (run, seq)
) STRICT, WITHOUT ROWID;

-- `data` is NULL for an artifact that is kept in a file beside the database.
CREATE TABLE artifact (
    id BLOB NOT NULL PRIMARY KEY,
    kind TEXT NOT NULL,
    size INTEGER NOT NULL,
    put_millis INTEGER NOT NULL,
    data BLOB
) STRICT;
