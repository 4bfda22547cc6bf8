"""All workers of one kind must say the same of a run, and send what they said."""

from collections import deque

import numpy as np

from phasewatch.pipeline.batch import Batch
from phasewatch.pipeline.documents import RunStart
from phasewatch.pipeline.errors import PipelineError
from phasewatch.pipeline.messages import Message, MessageError
from phasewatch.pipeline.stage import conform

EARLY = 256  # messages; what is forgotten, the receiver sends again


class Agreement:
    """Remembers the first start of a run and compares the others with it.

    Attribute `early`: messages with items that came before it.
    """

    def __init__(self) -> None:
        self._run: RunStart | None = None
        self.early: deque[Message] = deque(maxlen=EARLY)

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

    def batch(self, message: Message) -> Batch | None:
        """Return the batch of `message`; None where it has to wait for the start of the run.

        Raises
        ------
        MessageError
            It is not what the start announced.
        """
        if self._run is None:
            self.early.append(message)
            return None
        batch = message.batch()
        try:
            return conform(self._run, batch)
        except PipelineError as error:
            raise MessageError(f"batch of the run: {error}") from None
