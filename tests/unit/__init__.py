"""One module by itself."""
