"""Processes that are made to be killed."""

from __future__ import annotations

import subprocess
import sys
import textwrap


def python(body: str, *argv: object) -> subprocess.Popen[str]:
    """A process that runs ``body``."""
    code = "import asyncio, os, sys, signal\nfrom perdure import *\n" + textwrap.dedent(body)
    return subprocess.Popen([sys.executable, "-c", code, *map(str, argv)], stdout=subprocess.PIPE, text=True)
