"""Writing operations and composing them: the layer that users write against."""

from perdure.sdk.app import App, load_app
from perdure.sdk.operation import Operation
from perdure.sdk.pipeline import Pipeline, Step, manifest_for
from perdure.sdk.planner import PipelineResolver, Planner, run_exports

__all__ = [
    "App",
    "Operation",
    "Pipeline",
    "PipelineResolver",
    "Planner",
    "Step",
    "load_app",
    "manifest_for",
    "run_exports",
]
