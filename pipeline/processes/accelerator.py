"""The accelerator: reducer and classifier in one, for frames that go to a device once.

It asks the receiver for as many orders as it computes at a time, collects their items by size and
age, and passes what comes out to the tracker.
"""

from pathlib import Path
from typing import Any

from phasewatch.pipeline.batcher import Batcher
from phasewatch.pipeline.build import accelerated_stages
from phasewatch.pipeline.chain import Chain
from phasewatch.pipeline.config import ClassifierConfig
from phasewatch.pipeline.documents import RunStart
from phasewatch.pipeline.messages import Part, encode_batch, encode_failed, encode_start
from phasewatch.pipeline.processes.agreement import Agreement
from phasewatch.pipeline.processes.desk import Desk, Setup
from phasewatch.pipeline.processes.orders import Loan, Orders
from phasewatch.pipeline.transport.links import Transport

MOST_AHEAD = 64  # orders


def serve(transport: Transport, desk: Desk, setup: Setup) -> None:
    """Run until the supervisor says that the run is over."""
    options = setup.config.classifier or ClassifierConfig(model=Path())  # for its limits
    ahead = min(MOST_AHEAD, max(options.max_batch, setup.config.runtime.credits))
    orders = Orders(transport, desk, setup, ahead=ahead)
    onward = transport.link("push", setup.addresses["tracker"], bind=False, hwm=8)
    batcher = Batcher(max_items=options.max_batch, max_wait_ns=int(options.max_wait_ms * 1e6))
    agreement, chain, done, stale = Agreement(), Chain(()), 0, 0
    announced: list[Part] = []
    loans: list[Loan] = []

    def health() -> dict[str, Any]:
        return {"done": done, "stale": stale, "rejected": orders.link.rejected}

    while not desk.finished:
        wait_ns = batcher.wait_ns(desk.clock())
        timeout_ms = 100 if wait_ns is None else -(-wait_ns // 1_000_000)
        ready = transport.poll([orders.link, desk.link], timeout_ms)
        for what, data in desk.commands():
            if what == "back" and data["role"] == "receiver":
                orders.begin_again()
            elif what == "back" and announced:
                desk.send(onward, announced)
        taken = orders.take() if orders.link in ready else None
        orders.idle(desk.clock())
        if isinstance(taken, RunStart) and agreement.is_new(taken):
            chain = Chain(accelerated_stages(setup.config, taken))
            announced = encode_start(chain.start(taken))
            desk.send(onward, announced)
            chain.warm_up(taken)
            desk.ready()
            orders.ready()
        elif isinstance(taken, Loan):
            loans.append(taken)
            batcher.add(taken.batch, desk.clock())
        if batcher.wait_ns(desk.clock()) == 0:
            results = [chain.process_isolated(batch) for batch in batcher.take()]
            gone = {s for x in loans if not x.intact for s in x.batch.seq.tolist()}
            for good, failures in results:
                kept = [f for f in failures if f.seq not in gone]
                for parts in encode_failed(setup.run_id, kept):
                    desk.send(onward, parts)
                if good is not None and not gone.intersection(good.seq.tolist()):
                    stamped = good.stamped("classified", desk.clock())
                    desk.send(onward, encode_batch(setup.run_id, stamped))
            done, stale = done + sum(len(x.batch) for x in loans), stale + len(gone)
            orders.ask(len(loans))
            loans = []
        desk.health(health)
