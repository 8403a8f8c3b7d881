#!/usr/bin/env python3
"""Everything a developer does here, from a fresh clone on, with nothing but Python 3.11 or newer.

    python3 dev.py run      the real example on the embedded store, on this repository
    python3 dev.py test     every check, on every supported Python found on this machine

Both build `.venv` from the hash-pinned files in `requirements/` when it is missing or out of date, and
start at once when it is not. What they do is in `tools/`.
"""

# Old Pythons must be able to run this file, to say what is wrong.
import os
import sys

OLDEST = (3, 11)


def main(arguments):  # type: (list[str]) -> int
    if sys.version_info < OLDEST:
        found = ".".join(map(str, sys.version_info[:3]))
        print("Perdure needs Python 3.11 or newer; this is {} ({}).".format(found, sys.executable))
        print("Start it with a newer one, for example: python3.12 dev.py run")
        return 2
    if os.name != "posix":
        print("Set-up works on Linux and macOS; on Windows use the Windows Subsystem for Linux.")
        return 2
    # There already, unless PYTHONSAFEPATH is set.
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    from tools.commands import main as obey

    return obey(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
