"""What a person sees."""

from __future__ import annotations

import os
import sys


class Stop(Exception):
    """Ends the command with a message for the person who started it."""


def say(text: str = "") -> None:
    """Prints at once: children write to the same terminal, and the order must hold."""
    print(text, flush=True)


def paint(text: str, colour: int) -> str:
    if os.environ.get("NO_COLOR") or not sys.stdout.isatty():
        return text
    return f"\033[{colour}m{text}\033[0m"


def elapsed(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"


def heading(text: str) -> None:
    say()
    say(paint(f"-- {text} ".ljust(78, "-"), 1))
