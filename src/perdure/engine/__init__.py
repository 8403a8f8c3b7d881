"""The machine: what a history means, what comes next, and the loop that does it."""
