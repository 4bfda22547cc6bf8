"""The accelerator: reducer and classifier in one, for frames that go to a device once.

It asks the receiver for as many orders as it computes at a time, collects their items by size and
age, and passes what comes out to the tracker.
"""

from pathlib import Path
from typing import Any

from phasewatch.pipeline.batcher import Batcher
from phasewatch.pipeline.build import accelerated_stages
from phasewatch.pipeline.config import ClassifierConfig
from phasewatch.pipeline.processes.desk import Desk, Setup
from phasewatch.pipeline.processes.onward import Onward
from phasewatch.pipeline.processes.orders import Loan, Worker
from phasewatch.pipeline.transport.links import Transport

MOST_AHEAD = 64  # orders


def serve(transport: Transport, desk: Desk, setup: Setup) -> None:
    """Run until the supervisor says that the run is over."""
    options = setup.config.classifier or ClassifierConfig(model=Path())  # for its limits
    ahead = min(MOST_AHEAD, max(options.max_batch, setup.config.runtime.credits))
    onward = Onward(transport, desk, setup, "tracker", hop="classified", hwm=8)
    worker = Worker(transport, desk, setup, onward, accelerated_stages, ahead=ahead)
    batcher = Batcher(max_items=options.max_batch, max_wait_ns=int(options.max_wait_ms * 1e6))
    orders, done, stale = worker.orders, 0, 0
    loans: list[Loan] = []

    def health() -> dict[str, Any]:
        return {"done": done, "stale": stale, "rejected": orders.link.rejected}

    while not desk.finished:
        wait_ns = batcher.wait_ns(desk.clock())
        loan = worker.turn(timeout_ms=100 if wait_ns is None else -(-wait_ns // 1_000_000))
        if loan is not None:
            loans.append(loan)
            batcher.add(loan.batch, desk.clock())
        if batcher.wait_ns(desk.clock()) == 0:
            results = [worker.chain.process_isolated(batch) for batch in batcher.take()]
            gone = {s for x in loans if not x.intact for s in x.batch.seq.tolist()}
            for good, failures in results:
                lost = good is not None and not gone.isdisjoint(good.seq.tolist())
                onward.send(None if lost else good, [f for f in failures if f.seq not in gone])
            done, stale = done + sum(len(x.batch) for x in loans), stale + len(gone)
            orders.ask(len(loans))
            loans = []
        desk.health(health)
