"""The chain: messages, stages, transport, processes, tracker, configuration, the command."""

from phasewatch.pipeline.batch import Batch, Failure
from phasewatch.pipeline.documents import Event, RunStart, RunStop
from phasewatch.pipeline.errors import PipelineError
from phasewatch.pipeline.stage import Stage

__all__ = ["Batch", "Event", "Failure", "PipelineError", "RunStart", "RunStop", "Stage"]
