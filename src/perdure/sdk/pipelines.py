"""Pipelines of operations: ``pipeline`` and ``step``, and what they make."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar, overload

from perdure.errors import Json
from perdure.ids import OpId
from perdure.model.config import ExecutionMode
from perdure.model.pipeline import Pipeline, Step
from perdure.sdk.checks import expect, expect_many
from perdure.sdk.execution import check_execution
from perdure.sdk.mistakes import Mistake, Place, place_of_caller, refuse_mistakes
from perdure.sdk.ops import Op
from perdure.sdk.results import output_mistakes, typed_input, typed_result
from perdure.sdk.values import Codec, accepts

In = TypeVar("In")
Out = TypeVar("Out")


class PipelineStep(NamedTuple):
    """An operation in a pipeline, under a name of its own and with its configuration there."""

    step_id: str
    op: Op[Any, Any]
    config: Any = None


def step(step_id: str, op: Op[Any, Any], config: Any = None) -> PipelineStep:
    """An operation under another name than its own, or with a configuration."""
    expect(step_id, str, "a step's name", "a string")
    expect(op, Op, "what step(…) names", "an operation, made by perdure.op")
    return PipelineStep(step_id, op, config)


class PipelineDefinition(Generic[In, Out]):
    """A pipeline made of operations, by :func:`pipeline`; started as an operation is."""

    def __init__(
        self,
        machine_id: str,
        pipeline_version: str,
        steps: Sequence[PipelineStep],
        input_type: Any,
        output: Any,
        place: Place,
        execution: ExecutionMode | None = None,
    ) -> None:
        self.execution = execution
        self.machine_id = machine_id
        self.pipeline_version = pipeline_version
        self.steps = tuple(steps)
        self.input_type = input_type
        self.place = place
        self._output = output

    def __repr__(self) -> str:
        return f"<pipeline {self.machine_id} {self.pipeline_version}: {len(self.steps)} steps>"

    @property
    def op_id(self) -> OpId:
        """The name under which its runs go: the machine's; a bad one is among the mistakes."""
        return OpId.trusted(self.machine_id)

    @property
    def op_version(self) -> str:
        """The version that its runs' manifests carry."""
        return self.pipeline_version

    @property
    def export_types(self) -> Mapping[str, Codec]:
        """What its steps export, the later before the earlier where both export a key."""
        return {key: codec for each in self.steps for key, codec in each.op.export_types.items()}

    def pipeline_of(self, config: Any = None) -> Pipeline:
        """The pipeline as a manifest names it. ``InvalidPlanError`` (``op_invalid``) for mistakes."""
        refuse_mistakes(self.machine_id, self.mistakes())
        steps = tuple(
            Step(each.step_id, str(each.op.op_id), each.op.op_version, each.op.config_json(each.config))
            for each in self.steps
        )
        return Pipeline(self.machine_id, self.pipeline_version, steps)

    def input_json(self, given: Any) -> Json:
        """``given`` as a manifest keeps it; ``InvalidPlanError`` (``input_invalid``) for another type."""
        return typed_input(self.input_type, given)

    def result_of(self, exports: Mapping[str, Json]) -> Out:
        """A run's result from its exports."""
        result: Out = typed_result(self._output, self.export_types, exports)
        return result

    def mistakes(self) -> list[Mistake]:
        """Everything that keeps the pipeline from running: its operations' mistakes, then its own."""
        ops = list(dict.fromkeys(each.op for each in self.steps))
        tags = {tag for op in ops for tag in op.tags}
        return [mistake for op in ops for mistake in op.mistakes(tags)] + list(self._own_mistakes())

    def _own_mistakes(self) -> Iterator[Mistake]:
        if not self.steps:
            yield Mistake("pipeline_empty", "the pipeline has no steps", self.place, "give it an operation")
        yield from self._named_badly()
        yield from output_mistakes(self._output, self.export_types, self.place)
        exported: dict[str, tuple[str, Codec]] = {}
        for each in self.steps:
            for key, wanted in each.op.import_types.items():
                exporter, offered = exported.get(key, ("", wanted))
                if not accepts(wanted.annotation, offered.annotation):
                    yield Mistake(
                        "import_mistyped",
                        f"{each.step_id} imports {key} as {wanted.name}, "
                        f"and {exporter} exports {offered.name}",
                        self.place,
                        "make the two annotations agree",
                    )
            own_input = each.op.input_type
            if own_input is not None and self.input_type is not None and own_input != self.input_type:
                yield Mistake(
                    "input_mistyped",
                    f"{each.step_id} takes {Codec(own_input).name} as its input, and the pipeline's is "
                    f"{Codec(self.input_type).name}",
                    self.place,
                    "all steps share the pipeline's input; pass results on by imports and exports",
                )
            exported |= {key: (each.step_id, codec) for key, codec in each.op.export_types.items()}

    def _named_badly(self) -> Iterator[Mistake]:
        rule = "use lower-case letters, digits and _, beginning with a letter"
        if OpId.pattern.fullmatch(self.machine_id) is None:
            message = f"{self.machine_id!r} cannot name a pipeline"
            yield Mistake("pipeline_id_invalid", message, self.place, rule)
        for step_id, times in Counter(each.step_id for each in self.steps).items():
            if OpId.pattern.fullmatch(step_id) is None:
                yield Mistake("step_id_invalid", f"{step_id!r} cannot name a step", self.place, rule)
            if times > 1:
                message = f"{times} steps are called {step_id}"
                yield Mistake(
                    "step_id_taken", message, self.place, "name one with step('another', operation)"
                )


@overload
def pipeline(
    machine_id: str,
    pipeline_version: str = "1",
    *,
    steps: Sequence[Op[Any, Any] | PipelineStep],
    input: type[In],
    output: type[Out],
    execution: ExecutionMode | None = None,
) -> PipelineDefinition[In, Out]: ...
@overload
def pipeline(
    machine_id: str,
    pipeline_version: str = "1",
    *,
    steps: Sequence[Op[Any, Any] | PipelineStep],
    input: type[In],
    output: None = None,
    execution: ExecutionMode | None = None,
) -> PipelineDefinition[In, Any]: ...
@overload
def pipeline(
    machine_id: str,
    pipeline_version: str = "1",
    *,
    steps: Sequence[Op[Any, Any] | PipelineStep],
    input: None = None,
    output: type[Out],
    execution: ExecutionMode | None = None,
) -> PipelineDefinition[Any, Out]: ...
@overload
def pipeline(
    machine_id: str,
    pipeline_version: str = "1",
    *,
    steps: Sequence[Op[Any, Any] | PipelineStep],
    input: Any = None,
    output: Any = None,
    execution: ExecutionMode | None = None,
) -> PipelineDefinition[Any, Any]: ...
def pipeline(
    machine_id: str,
    pipeline_version: str = "1",
    *,
    steps: Sequence[Op[Any, Any] | PipelineStep],
    input: Any = None,  # noqa: A002 — the term
    output: Any = None,
    execution: ExecutionMode | None = None,
) -> PipelineDefinition[Any, Any]:
    """Make a pipeline: operations in order, each seeing what those before it export.

    An operation alone is a step of its own name; :func:`step` gives it another, or a configuration. ``input``
    is the type of the input, which all steps share, ``output`` that of a run's result. With
    ``execution=FanOutJoin(8)`` its runs execute up to eight states of a step side by side; what the
    operations say of that counts where they run alone.
    """
    expect(machine_id, str, "a pipeline's name", "a string")
    expect(pipeline_version, str, "a pipeline's version", "a string")
    expect_many(steps, (Op, PipelineStep), "pipeline(…, steps=…)", "operations or what step(…) gives")
    named = [
        each if isinstance(each, PipelineStep) else PipelineStep(str(each.op_id), each) for each in steps
    ]
    check_execution(execution, "pipeline(…, execution=…)")
    place = place_of_caller(1)
    return PipelineDefinition(machine_id, pipeline_version, named, input, output, place, execution)
