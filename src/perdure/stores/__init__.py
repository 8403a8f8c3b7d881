"""Where runs are kept: the ports, a store in memory, and the registry of the others."""
