"""What touches drivers and programs. Only ``perdure.wiring`` imports from here."""
