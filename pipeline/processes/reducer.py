"""A reducer: asks the receiver for items, reduces them, passes them on. Stateless."""

from typing import Any

from phasewatch.pipeline.build import worker_stages
from phasewatch.pipeline.chain import Chain
from phasewatch.pipeline.documents import RunStart
from phasewatch.pipeline.messages import Part, encode_batch, encode_failed, encode_start
from phasewatch.pipeline.meter import Meter
from phasewatch.pipeline.processes.agreement import Agreement
from phasewatch.pipeline.processes.desk import Desk, Setup
from phasewatch.pipeline.processes.orders import Loan, Orders
from phasewatch.pipeline.transport.links import Transport


def serve(transport: Transport, desk: Desk, setup: Setup) -> None:
    """Run until the supervisor says that the run is over."""
    orders = Orders(transport, desk, setup, ahead=setup.config.runtime.credits)
    onward = transport.link("push", setup.addresses["reduced"], bind=False, hwm=4)
    agreement, chain, meter, stale = Agreement(), Chain(()), Meter(), 0
    announced: list[Part] = []

    def health() -> dict[str, Any]:
        return {**meter.report(desk.clock()), "stale": stale, "rejected": orders.link.rejected}

    with orders.leaving():
        while not desk.finished:
            ready = transport.poll([orders.link, desk.link], timeout_ms=100)
            for what, data in desk.commands():
                if what == "back" and data["role"] == "receiver":
                    orders.begin_again()
                elif what == "back" and announced:  # who is new has not heard of the run
                    desk.send(onward, announced)
            taken = orders.take() if orders.link in ready else None
            orders.idle(desk.clock())
            if isinstance(taken, RunStart) and agreement.is_new(taken):
                chain = Chain(worker_stages(setup.config, taken))
                announced = encode_start(chain.start(taken))
                desk.send(onward, announced)
                chain.warm_up(taken)
                desk.ready()
                orders.ready()
            elif isinstance(taken, Loan):
                began = desk.clock()
                batch, failures = chain.process_isolated(taken.batch)
                if taken.intact:
                    for parts in encode_failed(setup.run_id, failures):
                        desk.send(onward, parts)
                    if batch is not None:
                        stamped = batch.stamped("reduced", desk.clock())
                        desk.send(onward, encode_batch(setup.run_id, stamped))
                else:
                    stale += len(taken.batch)
                meter.add(taken.batch, began, desk.clock())
                orders.ask(1)
            desk.health(health)
