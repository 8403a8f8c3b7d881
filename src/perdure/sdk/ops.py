"""Operations written as functions: ``op`` and what it makes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import Any, Generic, TypeVar, overload

from perdure.errors import Json
from perdure.ids import OpId, OpPath, StateId
from perdure.model.config import ExecutionMode
from perdure.model.pipeline import Pipeline
from perdure.model.plan import DependencyEdge, StateGraph, StateNode
from perdure.sdk.binding import BoundState, Declared, Origin, bind
from perdure.sdk.checks import expect, expect_many
from perdure.sdk.execution import check_execution
from perdure.sdk.function_states import FunctionState
from perdure.sdk.mistakes import Mistake, Place, place_of_caller, refuse_mistakes
from perdure.sdk.results import checked_json, output_mistakes, typed_input, typed_result
from perdure.sdk.signals import SignalDefinition
from perdure.sdk.states import StateDefinition, StateMaker
from perdure.sdk.values import UNTYPED, Codec

In = TypeVar("In")
Out = TypeVar("Out")
T = TypeVar("T")


class Op(Generic[In, Out]):
    """An operation made of functions; an ``Operation`` for planners, made by :func:`op`.

    ``In`` is the type of its input, ``Out`` of its runs' results.
    """

    def __init__(
        self,
        declared: Declared,
        op_version: str,
        output: Any,
        exports: Sequence[str] | None,
        execution: ExecutionMode | None = None,
    ) -> None:
        self.op_version = op_version
        self.execution = execution
        """How its states are executed in runs that do not say it; None is one at a time."""
        self._declared = declared
        self._states = list(declared.states)
        self._output = output
        self._exports = exports
        self._signals: list[SignalDefinition[Any]] = []

    def __repr__(self) -> str:
        return f"<op {self.op_id} {self.op_version}: {len(self._states)} states>"

    # What an operation is to planners

    @property
    def op_id(self) -> OpId:
        """The operation's name; a bad one is among the mistakes."""
        return OpId.trusted(self._declared.op_id)

    @property
    def imports(self) -> tuple[str, ...]:
        """The keys that it reads from earlier steps."""
        return tuple(self._declared.imports)

    @property
    def exports(self) -> tuple[str, ...]:
        """The states whose results are a run's: those named, or those that no other state takes."""
        return tuple(self.export_types)

    def expand(self, op_path: OpPath, config: Json, input: Json) -> StateGraph:  # noqa: A002 — the term
        """The states as a graph; ``InvalidPlanError`` (``op_invalid``) if the operation has mistakes."""
        # Whether another step carries a tag is the planner's to say.
        tags = {tag for each in self._states for tag in each.meta.depends_on}
        refuse_mistakes(self._declared.op_id, self.mistakes(tags))
        # Results have names of their own: they can clash only with what is written besides.
        says_writes = any(each.definition.meta.writes is not None for each in self.states)
        nodes = [
            StateNode(
                state_id,
                FunctionState(each, state_id, input, config, self.input_json, says_writes=says_writes),
            )
            for each in self.states
            for state_id in [StateId(f"{op_path}.{each.definition.name}")]
        ]
        edges = [
            DependencyEdge(StateId(f"{op_path}.{before}"), StateId(f"{op_path}.{each.definition.name}"))
            for each in self.states
            for before in each.before
        ]
        return StateGraph(nodes, edges)

    # What it is to its author

    @property
    def state(self) -> StateMaker:
        """The decorator that makes a function a state of this operation; see :class:`StateMaker`."""
        return StateMaker(self._add)

    def signal(self, name: str, annotation: type[T]) -> SignalDefinition[T]:
        """Declare a signal of this operation, and the type of its value.

        Runs of an operation that declares signals take no others.
        """
        definition: SignalDefinition[T] = SignalDefinition(name, annotation)
        self._signals.append(definition)
        return definition

    @property
    def signals(self) -> dict[str, SignalDefinition[Any]]:
        """The declared signals, by name."""
        return {each.name: each for each in self._signals}

    def mistakes(self, tags: Collection[str] = ()) -> list[Mistake]:
        """Everything that keeps the operation from running, in the order of its states.

        ``tags`` are those that states of other steps carry.
        """
        return self._bound[1] + self._own_mistakes(tags)

    @property
    def tags(self) -> set[str]:
        """The tags that its states carry."""
        return {tag for each in self._states for tag in each.meta.tags}

    @property
    def states(self) -> list[BoundState]:
        """The states with their arguments, in the order in which they were given."""
        return self._bound[0]

    @property
    def place(self) -> Place:
        """Where the operation was made."""
        return self._declared.place

    @cached_property
    def export_types(self) -> Mapping[str, Codec]:
        """The exported keys with their types."""
        results = {each.definition.name: each.result for each in self.states}
        if self._exports is not None:
            return {name: results.get(name) or Codec(UNTYPED) for name in self._exports}
        taken = {one.key for each in self.states for one in each.arguments if one.origin is Origin.STATE}
        return {name: codec for name, codec in results.items() if codec is not None and name not in taken}

    @property
    def import_types(self) -> Mapping[str, Codec]:
        """The imported keys with their types."""
        return {key: Codec(annotation) for key, annotation in self._declared.imports.items()}

    @property
    def input_type(self) -> Any:
        """The type of the input; None if none was declared."""
        return self._declared.input

    def pipeline_of(self, config: Any = None) -> Pipeline:
        """The pipeline that runs this operation alone.

        ``InvalidPlanError``: ``op_invalid`` for mistakes, ``config_invalid`` for another type's ``config``.
        """
        refuse_mistakes(self._declared.op_id, self.mistakes())
        return Pipeline.of_op(self._declared.op_id, self.op_version, self.config_json(config))

    def config_json(self, config: Any) -> Json:
        """``config`` as a manifest keeps it; ``InvalidPlanError`` (``config_invalid``) for another type.

        Without one, states take the defaults of their parameters.
        """
        return None if config is None else checked_json(self._declared.config, config, "configuration")

    def input_json(self, given: Any) -> Json:
        """``given`` as a manifest keeps it; ``InvalidPlanError`` (``input_invalid``) for another type."""
        return typed_input(self.input_type, given)

    def result_of(self, exports: Mapping[str, Json]) -> Out:
        """A run's result from its exports: the value of the only one, or all of them by name."""
        result: Out = typed_result(self._output, self.export_types, exports)
        return result

    @cached_property
    def _bound(self) -> tuple[list[BoundState], list[Mistake]]:
        return bind(self._declared._replace(states=tuple(self._states)))

    def _add(self, definition: StateDefinition[..., Any, Any]) -> None:
        self._states.append(definition)
        for cached in ("_bound", "export_types"):
            self.__dict__.pop(cached, None)

    def _own_mistakes(self, tags: Collection[str]) -> list[Mistake]:
        found: list[Mistake] = []

        def wrong(code: str, message: str, hint: str) -> None:
            found.append(Mistake(code, message, self.place, hint))

        if OpId.pattern.fullmatch(self._declared.op_id) is None:
            wrong(
                "op_id_invalid",
                f"{self._declared.op_id!r} cannot name an operation",
                "use lower-case letters, digits and _, beginning with a letter",
            )
        if not self._states:
            wrong("op_empty", "the operation has no states", "add one with @operation.state")
        names = {each.name for each in self._states}
        for name in self._exports or ():
            if name not in names:
                wrong(
                    "export_unknown",
                    f"it exports {name}, which is none of its states",
                    f"export one of: {', '.join(sorted(names))}",
                )
        for number, each in enumerate(self._signals):
            if each.name in {before.name for before in self._signals[:number]}:
                wrong(
                    "signal_taken", f"it declares the signal {each.name} twice", "take one declaration away"
                )
            if each.codec.problem is not None:
                wrong(
                    "signal_unwritable",
                    f"the signal {each.name} cannot be recorded: {each.codec.problem}",
                    "give it a type that JSON can hold",
                )
        for key in sorted(names & self._declared.imports.keys()):
            wrong("import_taken", f"{key} is both an import and a state", "rename one of them")
        known = self.tags.union(tags)
        for state in self._states:
            for tag in state.meta.depends_on:
                if tag not in known:
                    wrong(
                        "tag_unknown",
                        f"{state.name} depends on the tag {tag!r}, which no state has",
                        "give a state the tag, or take the dependency away",
                    )
        return [*found, *output_mistakes(self._output, self.export_types, self.place)]


@overload
def op(
    op_id: str,
    op_version: str = "1",
    *,
    input: type[In],
    output: type[Out],
    config: Any = None,
    imports: Mapping[str, Any] | None = None,
    exports: Sequence[str] | None = None,
    states: Sequence[StateDefinition[..., Any, Any]] = (),
    execution: ExecutionMode | None = None,
) -> Op[In, Out]: ...
@overload
def op(
    op_id: str,
    op_version: str = "1",
    *,
    input: type[In],
    output: None = None,
    config: Any = None,
    imports: Mapping[str, Any] | None = None,
    exports: Sequence[str] | None = None,
    states: Sequence[StateDefinition[..., Any, Any]] = (),
    execution: ExecutionMode | None = None,
) -> Op[In, Any]: ...
@overload
def op(
    op_id: str,
    op_version: str = "1",
    *,
    input: None = None,
    output: type[Out],
    config: Any = None,
    imports: Mapping[str, Any] | None = None,
    exports: Sequence[str] | None = None,
    states: Sequence[StateDefinition[..., Any, Any]] = (),
    execution: ExecutionMode | None = None,
) -> Op[Any, Out]: ...
@overload
def op(
    op_id: str,
    op_version: str = "1",
    *,
    input: Any = None,
    output: Any = None,
    config: Any = None,
    imports: Mapping[str, Any] | None = None,
    exports: Sequence[str] | None = None,
    states: Sequence[StateDefinition[..., Any, Any]] = (),
    execution: ExecutionMode | None = None,
) -> Op[Any, Any]: ...
def op(
    op_id: str,
    op_version: str = "1",
    *,
    input: Any = None,  # noqa: A002 — the term
    output: Any = None,
    config: Any = None,
    imports: Mapping[str, Any] | None = None,
    exports: Sequence[str] | None = None,
    states: Sequence[StateDefinition[..., Any, Any]] = (),
    execution: ExecutionMode | None = None,
) -> Op[Any, Any]:
    """Make an operation. Its states are those given, and those that ``@operation.state`` adds.

    ``input`` and ``output`` are the types of its input and of a run's result, ``config`` that of its
    configuration in a pipeline; ``imports`` gives the types of the keys that it reads from earlier steps;
    ``exports`` names the states whose results it offers, those that no other state takes unless given.
    With ``execution=FanOutJoin(8)`` its runs execute up to eight states side by side.

    Nothing is checked here but when the operation is first used, or by ``perdure op check``, so that all
    mistakes are told at once.
    """
    expect(op_id, str, "an operation's name", "a string")
    expect(op_version, str, "an operation's version", "a string")
    expect_many(states, StateDefinition, "op(…, states=…)", "what @state makes")
    expect_many(exports or (), str, "op(…, exports=…)", "names of states")
    expect(imports or {}, Mapping, "op(…, imports=…)", "a dict of types by key")
    expect_many(list(imports or {}), str, "the keys of op(…, imports=…)", "strings")
    declared = Declared(op_id, tuple(states), imports or {}, input, config, place_of_caller(1))
    check_execution(execution, "op(…, execution=…)")
    return Op(declared, op_version, output, exports, execution)
