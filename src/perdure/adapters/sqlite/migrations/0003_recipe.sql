-- Whether `data` is the recipe of an artifact that is kept in parts; `size` is the whole's in any case.
ALTER TABLE artifact ADD COLUMN recipe INTEGER NOT NULL DEFAULT 0;
