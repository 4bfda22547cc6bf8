"""All workers of one kind must say the same of a run."""

import numpy as np

from phasewatch.pipeline.documents import RunStart
from phasewatch.pipeline.errors import PipelineError


class Agreement:
    """Remembers the first start of a run and compares the others with it."""

    def __init__(self) -> None:
        self._run: RunStart | None = None

    def is_new(self, run: RunStart) -> bool:
        """Tell whether `run` is the first.

        Raises
        ------
        PipelineError
            Another worker said something else of the same run.
        """
        if self._run is None:
            self._run = run
            return True
        same = self._run.model_dump() == run.model_dump() and all(
            name in run.constants and np.array_equal(run.constants[name], array)
            for name, array in self._run.constants.items()
        )
        if not same:
            raise PipelineError(f"run {run.run_id}: two workers disagree on what they send")
        return False
