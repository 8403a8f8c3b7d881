"""The command line.

Exit codes: 0 completed, 1 the run failed, 2 usage, 3 store or integrity error, 130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

EXIT_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; as a console script, the interpreter exits with it."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        if words in (["--version"], ["-V"]):
            from perdure import __version__

            print(f"perdure {__version__}", flush=True)
            return 0
        from perdure.cli.commands import run_command

        code = run_command(words)
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    except OSError as error:
        from perdure.cli.commands import refused_by_system

        code = refused_by_system(error)
    return code
