"""Stores in one SQLite file: write-ahead log, full synchronisation, one writer thread with group commit."""
