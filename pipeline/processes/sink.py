"""The sink process: gives the documents of the run to every sink."""

from phasewatch.pipeline.bodies import (
    BatchBody,
    DroppedBody,
    EventBody,
    FailedBody,
    StartBody,
    StopBody,
)
from phasewatch.pipeline.messages import Message
from phasewatch.pipeline.plugin import Sink, open_sink
from phasewatch.pipeline.processes.desk import Desk, Setup
from phasewatch.pipeline.transport.links import Transport


def serve(transport: Transport, desk: Desk, setup: Setup) -> None:
    """Run until the supervisor says that the run is over."""
    inbox = transport.link("pull", setup.addresses["results"], bind=True, hwm=8)
    sinks: list[Sink] = []
    written = 0
    try:
        for config in setup.config.sink:
            sinks.append(open_sink(config.type, **config.options))
        while not desk.finished:
            ready = transport.poll([inbox, desk.link], timeout_ms=100)
            received = inbox.receive() if inbox in ready else None
            if received is not None:
                for sink in sinks:
                    give(sink, received[1])
                if isinstance(received[1].body, StartBody):
                    desk.report("ready")
                if isinstance(received[1].body, BatchBody):
                    written += received[1].body.n
                if isinstance(received[1].body, StopBody):
                    while sinks:
                        sinks.pop().close()
                    desk.report("written")
            if desk.link in ready:
                desk.commands()
            desk.health(written=written, rejected=inbox.rejected)
    finally:
        for sink in sinks:
            sink.close()


def give(sink: Sink, message: Message) -> None:
    """Hand one document to one sink."""
    body = message.body
    if isinstance(body, StartBody):
        sink.start(message.run())
    elif isinstance(body, BatchBody):
        sink.batch(message.batch())
    elif isinstance(body, FailedBody):
        sink.failures(body.failures())
    elif isinstance(body, DroppedBody):
        sink.dropped(body.items, body.reason)
    elif isinstance(body, EventBody):
        sink.event(body.event)
    elif isinstance(body, StopBody):
        sink.stop(body.stop)
