"""Questions to a running chain, and its answers."""

from types import TracebackType
from typing import Any, Self

from phasewatch.pipeline.bodies import ControlBody
from phasewatch.pipeline.errors import PipelineError
from phasewatch.pipeline.messages import encode
from phasewatch.pipeline.transport.keys import Keys
from phasewatch.pipeline.transport.links import Transport


class NoAnswerError(PipelineError):
    """Nobody has answered in time."""


class Caller:
    """Asks the chain at `address`; a context manager."""

    def __init__(self, address: str, *, keys: Keys | None = None) -> None:
        self.address = address
        self._transport = Transport(linger_s=0.0, keys=keys)
        try:
            self._link = self._transport.link("dealer", address, bind=False)
        except BaseException:
            self._transport.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._transport.close()

    def pause(self, seconds: float) -> None:
        """Wait; an answer that comes too late is thrown away."""
        while self._transport.poll([self._link], int(seconds * 1000)):
            self._link.receive()

    def ask(self, what: str, *, timeout_s: float, **data: Any) -> dict[str, Any]:
        """Return the data of the answer to `what`, which is sent with `data`.

        Raises
        ------
        NoAnswerError
            Nobody answers within `timeout_s`.
        PipelineError
            The answer is an error, or not one of ours.
        """
        self._link.offer(encode(ControlBody(what=what, data=data)))
        if not self._transport.poll([self._link], int(timeout_s * 1000)):
            raise NoAnswerError(
                f"{self.address}: no answer within {timeout_s:g} s; is a run going on?"
            )
        received = self._link.receive()
        if received is None or not isinstance(body := received[1].body, ControlBody):
            raise PipelineError(f"{self.address}: the answer is not one of phasewatch's")
        if body.what == "error":
            raise PipelineError(f"{self.address}: {body.data.get('text')}")
        return body.data
