-- A checksum over the letter's place and its body; NULL in letters that were posted before there was one.
ALTER TABLE letter ADD COLUMN crc INTEGER;
