"""An app: the operations, transports and secrets that belong together."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Protocol

from perdure.errors import ErrorCategory, InvalidPlanError, Json
from perdure.io.port import TransportFactory
from perdure.io.router import TransportRouter
from perdure.model.config import ExecutionMode
from perdure.model.pipeline import Pipeline
from perdure.sdk.checks import expect_many, refuse_call
from perdure.sdk.operation import Operation
from perdure.sdk.ops import Op
from perdure.sdk.pipelines import PipelineDefinition
from perdure.sdk.planner import PipelineResolver
from perdure.secrets import EnvironmentSecrets, SecretSource

TRANSPORTS_GROUP = "perdure.transports"


Definition = Operation | PipelineDefinition[Any, Any]
"""What an app is made of."""


class Startable(Protocol):
    """What runs are started from: an operation or a pipeline, typed or not."""

    @property
    def op_id(self) -> str: ...

    @property
    def op_version(self) -> str: ...

    @property
    def execution(self) -> ExecutionMode | None:
        """How its states are executed in runs that do not say it."""

    def pipeline_of(self, config: Any = None) -> Pipeline:
        """The pipeline that a manifest names."""

    def input_json(self, given: Any) -> Json:
        """The input as a manifest keeps it."""

    def result_of(self, exports: Mapping[str, Json]) -> Any:
        """The result of a run's exports."""


class App:
    """Operations and pipelines, the transports that their states call through, and where secrets come from.

    Several versions of an operation or a pipeline may stand side by side; the one that is named last is the
    newest, which is started where no other is asked for. Operations of pipelines need not be named again. A
    transport that an installed package offers (entry point group ``perdure.transports``) serves the
    namespaces that none of ``transports`` does; ``http`` comes with this package. ``secrets`` are asked in
    order; without any, the environment is.
    """

    def __init__(
        self,
        ops: Sequence[Definition] = (),
        transports: Sequence[TransportFactory] = (),
        secrets: Sequence[SecretSource] | None = None,
    ) -> None:
        expect_many(ops, object, "what an app is made of", "operations and pipelines")
        for each in ops:
            if not isinstance(each, (Op, PipelineDefinition)) and not hasattr(each, "expand"):
                refuse_call(each, "each part of an app", "an operation or a pipeline")
        expect_many(transports, object, "App(transports=…)", "transports")
        for factory in transports:
            if not hasattr(factory, "namespace_group"):
                refuse_call(
                    factory, "each of App(transports=…)", "made by @perdure.transport, or has make(env)"
                )
        expect_many(secrets or (), object, "App(secrets=…)", "sources with get(name)")
        for source in secrets or ():
            if not hasattr(source, "get"):
                refuse_call(source, "each of App(secrets=…)", "a source with get(name)")
        self.pipelines = tuple(each for each in ops if isinstance(each, PipelineDefinition))
        steps = [step.op for each in self.pipelines for step in each.steps]
        named = [each for each in ops if not isinstance(each, PipelineDefinition)]
        self.ops: tuple[Operation, ...] = tuple(dict.fromkeys([*named, *steps]))
        # What is named outranks what only comes along in a pipeline, which may be an old version.
        self._by_age = (*(each for each in self.ops if each not in named), *named, *self.pipelines)
        _refuse_twins(self.ops)
        _refuse_twins(self.pipelines)
        self.transports = TransportRouter(transports, installed_transport)
        self.secrets: tuple[SecretSource, ...] = (
            (EnvironmentSecrets(),) if secrets is None else tuple(secrets)
        )
        self.resolver = PipelineResolver(self.ops)

    @property
    def definitions(self) -> list[Definition]:
        """All operations, then all pipelines."""
        return [*self.ops, *self.pipelines]

    def op(self, op_id: str, op_version: str | None = None) -> Operation:
        """The operation of this name, in its newest version unless one is given.

        The newest is the one that ``ops`` names last. Raises ``InvalidPlanError`` (``op_not_found``).
        """
        choices = [each for each in self._by_age if not isinstance(each, PipelineDefinition)]
        found: Operation = _newest(choices, op_id, op_version)
        return found

    def startable(self, op_id: str, op_version: str | None = None) -> Startable:
        """The pipeline or operation of this name; raises as :meth:`op` does."""
        found: Any = _newest(self._by_age, op_id, op_version)
        return found if isinstance(found, (Op, PipelineDefinition)) else UntypedOperation(found)


class UntypedOperation:
    """An ``Operation`` that was made by hand, as something to start: JSON in, JSON out."""

    def __init__(self, operation: Operation) -> None:
        self.op_id, self.op_version = operation.op_id, operation.op_version
        self.execution: ExecutionMode | None = None

    def pipeline_of(self, config: Any = None) -> Pipeline:
        return Pipeline.of_op(self.op_id, self.op_version, config)

    def input_json(self, given: Any) -> Json:
        return given

    def result_of(self, exports: Mapping[str, Json]) -> Any:
        return dict(exports)


def installed_transport(namespace: str) -> TransportFactory | None:
    """The transport of an installed package whose entry point is named like the namespace's first word."""
    from importlib.metadata import entry_points

    group = namespace.partition(".")[0]
    for entry in entry_points(group=TRANSPORTS_GROUP, name=group):
        factory: TransportFactory = entry.load()()
        return factory
    return None


def _refuse_twins(definitions: Sequence[Definition]) -> None:
    seen: set[tuple[str, str]] = set()
    for each in definitions:
        name = (str(each.op_id), str(each.op_version))
        if name in seen:
            raise InvalidPlanError.of(
                "op_taken",
                f"the app has two definitions of {name[0]} in version {name[1]}",
                category=ErrorCategory.PARSING_INPUT,
                hint="give one of them another name or version",
            )
        seen.add(name)


def _newest(choices: Sequence[Any], op_id: str, op_version: str | None) -> Any:
    found = [each for each in choices if each.op_id == op_id and op_version in (None, each.op_version)]
    if not found:
        known = sorted({str(each.op_id) for each in choices})
        versions = [str(each.op_version) for each in choices if each.op_id == op_id]
        if versions:
            raise InvalidPlanError.of(
                "op_not_found",
                f"no operation {op_id} in version {op_version}",
                category=ErrorCategory.PARSING_INPUT,
                details={"known": known},
                hint=f"the app has {', '.join(versions)}",
            )
        close = get_close_matches(op_id, set(known) - {op_id}, 1)
        raise InvalidPlanError.of(
            "op_not_found",
            f"no operation {op_id}",
            category=ErrorCategory.PARSING_INPUT,
            details={"known": known},
            hint=f"did you mean {close[0]}?" if close else None,
        )
    return found[-1]


def load_app(reference: str) -> App:
    """The app that ``module:attribute`` names: an :class:`App`, an operation, a pipeline, or a function that
    gives one of these.

    Modules of the current folder are found. Raises ``InvalidPlanError``: ``app_not_found``,
    ``app_import_failed``, ``app_invalid``.
    """
    module_name, _, attribute = reference.partition(":")
    if not all(word.isidentifier() for word in [*module_name.split("."), attribute]):
        raise _app_error("app_not_found", f"{reference!r} names no attribute of a module", _HOW_TO_NAME)
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and f"{module_name}.".startswith(f"{error.name}."):
            raise _app_error("app_not_found", f"there is no module {module_name!r}", _HOW_TO_NAME) from error
        raise _app_failed(f"importing {module_name}", error) from error
    try:
        found = getattr(module, attribute)
    except AttributeError as error:
        raise _app_error(
            "app_not_found", f"{module_name} has no attribute {attribute!r}", _HOW_TO_NAME
        ) from error
    try:
        app = found() if callable(found) and not isinstance(found, App) else found
    except (Exception, SystemExit) as error:
        raise _app_failed(f"calling {reference}", error) from error
    if isinstance(app, (Op, PipelineDefinition)):
        return App([app])
    if not isinstance(app, App):
        if inspect.iscoroutine(app):
            app.close()
        raise _app_error(
            "app_invalid",
            f"{reference!r} is a {type(app).__name__}, not an App",
            "make it an App([op, …]), an operation, or a function that returns one",
        )
    return app


def _app_failed(doing: str, error: BaseException) -> InvalidPlanError:
    return _app_error(
        "app_import_failed",
        f"{doing} raised {type(error).__name__}: {error}{_raised_at(error)}",
        "mend the module; python -c 'import MODULE' shows the whole traceback",
    )


_HOW_TO_NAME = "write module:attribute, importable from the current folder"


def _app_error(code: str, message: str, hint: str) -> InvalidPlanError:
    return InvalidPlanError.of(code, message, category=ErrorCategory.PARSING_INPUT, hint=hint)


def _raised_at(error: BaseException) -> str:
    """The innermost line of a traceback that is neither the import system's nor ours, if there is one."""
    if isinstance(error, SyntaxError):
        return f", at {error.filename}:{error.lineno}"
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "importlib" not in frame.filename and frame.filename != __file__
    ]
    return f", at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
