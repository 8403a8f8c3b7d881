"""What stands where a secret was taken out: ``[redacted:<detector>]``, and other texts that are no secret."""

from __future__ import annotations

import functools
import re

MARKER = r"\[redacted:[a-z][a-z0-9_]{0,62}\]"
"""The pattern of a marker."""


def marker(detector: str) -> str:
    """The text that replaces what ``detector`` found."""
    return f"[redacted:{detector}]"


def is_marker(text: str) -> bool:
    """Whether ``text`` is a marker and nothing else. It is never a finding."""
    return re.fullmatch(MARKER, text) is not None


@functools.cache
def _placeholder() -> re.Pattern[bytes]:
    forms = (
        r"[^A-Za-z0-9\x80-\xff]*",
        MARKER,
        r"\$?\{\{?[^{}]*\}?\}",
        r"\$[A-Z0-9_]+",
        r"<[^<>]*>",
        r"%s|%\([A-Za-z_]+\)s",
    )
    return re.compile("|".join(forms).encode())


def is_placeholder(value: bytes) -> bool:
    """Whether a value that stands in a text only takes a secret's place.

    Such are nothing at all, masks (``***``), markers, variables (``$NAME``, ``${name}``, ``{name}``,
    ``{{name}}``, ``%s``, ``%(name)s``) and ``<name>``. Only texts are judged so: the string under an
    object's key counts whatever it holds, a marker apart.
    """
    return _placeholder().fullmatch(value) is not None
