"""What the machine does, in the order in which one would learn it."""
