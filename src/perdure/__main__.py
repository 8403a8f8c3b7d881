"""``python -m perdure`` is the command line."""

from __future__ import annotations

import sys

from perdure.cli import main

sys.exit(main())
