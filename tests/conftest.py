"""What every test may rely on: property tests that search the same examples each time."""

from __future__ import annotations

import os

from hypothesis import settings

# The suite is deterministic, so a failure is the change's and not the day's. No deadline: a slow machine is
# no bug. `HYPOTHESIS_PROFILE=explore` looks further, and remembers what it found.
settings.register_profile("ci", derandomize=True, database=None, deadline=None, print_blob=True)
settings.register_profile("explore", max_examples=2000, deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))
