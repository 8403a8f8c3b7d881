"""The command line.

Exit codes: 0 completed, 1 the run failed, 2 usage, 3 store or integrity error, 130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; as a console script, the interpreter exits with it."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words in (["--version"], ["-V"]):
        from perdure import __version__

        print(f"perdure {__version__}")
        return 0
    from perdure.cli.commands import run_command

    return run_command(words)
