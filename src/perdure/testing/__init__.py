"""Tools for testing operations, transports and stores of one's own."""

from perdure.testing.clock import FakeClock
from perdure.testing.runs import FinishedRun, RunInMemory, told
from perdure.testing.transports import ScriptedTransport, in_turn

__all__ = ["FakeClock", "FinishedRun", "RunInMemory", "ScriptedTransport", "in_turn", "told"]
