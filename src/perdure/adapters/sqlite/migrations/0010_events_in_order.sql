-- Events stand in the order in which they were written, and a small index finds those of a run. When they stood
-- run by run, a transaction of two hundred runs wrote two hundred pages for what fits into twenty.
CREATE TABLE event_in_order (
    run INTEGER NOT NULL REFERENCES run (key),
    seq INTEGER NOT NULL,
    ts_millis INTEGER NOT NULL,
    engine INTEGER NOT NULL,
    crc INTEGER NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (run, seq)
) STRICT;
INSERT INTO event_in_order SELECT run, seq, ts_millis, engine, crc, body FROM event ORDER BY run, seq;
DROP TABLE event;
ALTER TABLE event_in_order RENAME TO event;
