-- Of a run as which another one goes on: the first run of the chain, by its id since there may be no row of it,
-- and its place in the chain.
ALTER TABLE run ADD COLUMN first_leg TEXT;
ALTER TABLE run ADD COLUMN leg INTEGER;
CREATE INDEX run_leg ON run (first_leg, leg DESC) WHERE first_leg IS NOT NULL;
