"""What stands where a secret was taken out: ``[redacted:<detector>]``."""

from __future__ import annotations

import re

MARKER = re.compile(r"\[redacted:[a-z][a-z0-9_]{0,62}\]")


def marker(detector: str) -> str:
    """The text that replaces what ``detector`` found."""
    return f"[redacted:{detector}]"


def is_marker(text: str) -> bool:
    """Whether ``text`` is a marker and nothing else. It is never a finding."""
    return MARKER.fullmatch(text) is not None
