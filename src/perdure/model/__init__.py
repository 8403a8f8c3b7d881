"""The machine's values: frozen, comparable, and each with its JSON shape."""
