"""What to do next, by error code. A code without an entry needs no more than its message."""

from __future__ import annotations

HINTS: dict[str, str] = {}
