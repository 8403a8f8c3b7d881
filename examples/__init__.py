"""Programs built with Perdure."""
