"""Secrets: what is one, what is none, and that the quick look agrees with the exact walk."""
