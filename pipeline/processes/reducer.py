"""A reducer: asks the receiver for items, reduces them, passes them on. Stateless."""

from typing import Any

from phasewatch.pipeline.build import worker_stages
from phasewatch.pipeline.meter import Meter
from phasewatch.pipeline.processes.desk import Desk, Setup
from phasewatch.pipeline.processes.onward import Onward
from phasewatch.pipeline.processes.orders import Worker
from phasewatch.pipeline.transport.links import Transport


def serve(transport: Transport, desk: Desk, setup: Setup) -> None:
    """Run until the supervisor says that the run is over."""
    onward = Onward(transport, desk, setup, "reduced", hop="reduced", hwm=4)
    ahead = setup.config.runtime.credits
    worker = Worker(transport, desk, setup, onward, worker_stages, ahead=ahead)
    orders, meter, stale = worker.orders, Meter(), 0

    def health() -> dict[str, Any]:
        counts = {"stale": stale, "unpacked": orders.unpacked, "rejected": orders.link.rejected}
        return {**meter.report(desk.clock()), **counts}

    with orders.leaving():
        while not desk.finished:
            loan = worker.turn(timeout_ms=100)
            if loan is not None:
                began = desk.clock()
                batch, failures = worker.chain.process_isolated(loan.batch)
                if loan.intact:
                    onward.send(batch, [*loan.failures, *failures])
                else:
                    stale += len(loan.batch)
                meter.add(loan.batch, began, desk.clock())
                orders.ask(1)
            desk.health(health)
