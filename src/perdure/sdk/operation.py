"""What an operation is: a reusable definition that expands into states."""

from __future__ import annotations

from typing import Protocol

from perdure.errors import Json
from perdure.ids import OpId, OpPath
from perdure.model.plan import StateGraph


class Operation(Protocol):
    """A reusable workflow definition.

    ``imports`` are the context keys that it reads from earlier steps, ``exports`` those that it offers to
    later ones and that make up a run's result.
    """

    @property
    def op_id(self) -> OpId: ...

    @property
    def op_version(self) -> str: ...

    @property
    def imports(self) -> tuple[str, ...]: ...

    @property
    def exports(self) -> tuple[str, ...]: ...

    def expand(self, op_path: OpPath, config: Json, input: Json) -> StateGraph:  # noqa: A002 — the term
        """The operation's states, named ``<op_path>.<state>``.

        Deterministic and without IO: the same arguments give the same graph, now and years later.
        """
