-- What runs that were given up wait for: the end of others. `awaited` is a run's id, since there may be no row
-- of that run yet.
CREATE TABLE awaiting (
    run INTEGER NOT NULL REFERENCES run (key),
    awaited TEXT NOT NULL,
    PRIMARY KEY (run, awaited)
) STRICT, WITHOUT ROWID;
CREATE INDEX awaiting_awaited ON awaiting (awaited);
