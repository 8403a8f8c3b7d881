"""Tools for testing stores, transports and operations of one's own."""
