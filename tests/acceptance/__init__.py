"""The whole thing, as its users have it: real programs, real files, real kills."""
