"""One suite for all stores, and proof that it bites."""
