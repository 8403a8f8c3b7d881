"""An app: the operations and transports that belong together."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

from perdure.errors import ErrorCategory, InvalidPlanError
from perdure.io.port import TransportFactory
from perdure.io.router import TransportRouter
from perdure.sdk.operation import Operation
from perdure.sdk.planner import PipelineResolver


class App:
    """Operations and the transports that their states call through."""

    def __init__(self, ops: Sequence[Operation] = (), transports: Sequence[TransportFactory] = ()) -> None:
        self.ops = tuple(ops)
        self.transports = TransportRouter(transports)
        self.resolver = PipelineResolver(self.ops)

    def op(self, op_id: str, op_version: str | None = None) -> Operation:
        """The operation of this name, in its newest registered version unless one is given.

        Raises ``InvalidPlanError`` (``op_not_found``).
        """
        found = [op for op in self.ops if op.op_id == op_id and op_version in (None, op.op_version)]
        if not found:
            raise InvalidPlanError.of(
                "op_not_found",
                f"no operation {op_id}" + (f" in version {op_version}" if op_version else ""),
                category=ErrorCategory.PARSING_INPUT,
                details={"known": sorted({str(op.op_id) for op in self.ops})},
            )
        return found[-1]


def load_app(reference: str) -> App:
    """The app that ``module:attribute`` names: an :class:`App`, or a function that gives one.

    Modules of the current folder are found. Raises ``InvalidPlanError``: ``app_not_found``,
    ``app_invalid``.
    """
    module_name, _, attribute = reference.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise InvalidPlanError.of(
            "app_not_found",
            f"{reference!r} cannot be imported: {error}",
            category=ErrorCategory.PARSING_INPUT,
            hint="write module:attribute, importable from the current folder",
        ) from error
    app = found() if callable(found) else found
    if not isinstance(app, App):
        raise InvalidPlanError.of(
            "app_invalid",
            f"{reference!r} is a {type(app).__name__}, not an App",
            category=ErrorCategory.PARSING_INPUT,
            hint="make it an App(ops=[…], transports=[…]), or a function that returns one",
        )
    return app
