"""Writing operations, composing them, and running them from a program: the layer that users write against."""

from perdure.model.pipeline import Pipeline, Step, manifest_for
from perdure.sdk.app import App, Startable, load_app
from perdure.sdk.blocking import BlockingClient, BlockingRun
from perdure.sdk.blocking_io import BlockingIo, BlockingRecorder
from perdure.sdk.client import Client
from perdure.sdk.mistakes import Mistake
from perdure.sdk.operation import Operation
from perdure.sdk.ops import Op, op
from perdure.sdk.pipelines import PipelineDefinition, pipeline, step
from perdure.sdk.planner import PipelineResolver, Planner, run_exports
from perdure.sdk.reading import RunSummary
from perdure.sdk.runs import Run
from perdure.sdk.states import StateDefinition, state

__all__ = [
    "App",
    "BlockingClient",
    "BlockingIo",
    "BlockingRecorder",
    "BlockingRun",
    "Client",
    "Mistake",
    "Op",
    "Operation",
    "Pipeline",
    "PipelineDefinition",
    "PipelineResolver",
    "Planner",
    "Run",
    "RunSummary",
    "Startable",
    "StateDefinition",
    "Step",
    "load_app",
    "manifest_for",
    "op",
    "pipeline",
    "run_exports",
    "state",
    "step",
]
