-- A run that is deleted has `ended` 2 and a name that no run has, until its events are gone; these are the ones
-- whose deletion has still to be finished.
CREATE INDEX run_deleted ON run (key) WHERE ended = 2;
