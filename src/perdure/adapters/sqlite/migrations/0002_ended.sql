-- Whether the run has ended, so that what is unfinished is found without reading histories.
ALTER TABLE run ADD COLUMN ended INTEGER NOT NULL DEFAULT 0;
UPDATE run SET ended = 1 WHERE EXISTS (
    SELECT 1 FROM event
    WHERE event.run = run.key AND event.engine = 1
      AND substr(CAST(event.body AS TEXT), 1, 25) = '{"Kernel":{"RunCompleted"'
);
CREATE INDEX run_unfinished ON run (key) WHERE ended = 0;
