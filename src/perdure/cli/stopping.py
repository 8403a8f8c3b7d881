"""How commands that drive runs are stopped: once in order, twice at once."""

from __future__ import annotations

import asyncio
import signal


def stop_on_sigterm() -> None:
    """Have SIGTERM cancel the task that calls this, as Ctrl-C does."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)


def leave_if_stopped_again() -> None:
    """End the process at the next signal.

    What is left to wait for are functions of states in threads, for as long as they take; their attempts are
    closed already.
    """
    asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
