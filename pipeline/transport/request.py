"""One question to a running chain, and its answer."""

from typing import Any

from phasewatch.pipeline.bodies import ControlBody
from phasewatch.pipeline.errors import PipelineError
from phasewatch.pipeline.messages import encode
from phasewatch.pipeline.transport.links import Transport


def request(address: str, what: str, *, timeout_s: float) -> dict[str, Any]:
    """Ask the chain at `address`; return the data of its answer.

    Raises
    ------
    PipelineError
        Nobody answers within `timeout_s`, or the answer is an error.
    """
    with Transport(linger_s=0.0) as transport:
        link = transport.link("dealer", address, bind=False)
        link.send(encode(ControlBody(what=what)))
        if not transport.poll([link], int(timeout_s * 1000)):
            raise PipelineError(f"{address}: no answer within {timeout_s:g} s; is a run going on?")
        received = link.receive()
        if received is None or not isinstance(body := received[1].body, ControlBody):
            raise PipelineError(f"{address}: the answer is not one of phasewatch's")
        if body.what == "error":
            raise PipelineError(f"{address}: {body.data.get('text')}")
        return body.data
