"""What a record proves: every state derived again from it, offline."""
