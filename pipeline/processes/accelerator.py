"""The accelerator: reducer and classifier in one, for frames that go to a device once.

It asks the receiver for as many batches as it computes at a time, collects them by size and age,
and passes what comes out to the tracker.
"""

from pathlib import Path

from phasewatch.pipeline.batcher import Batcher
from phasewatch.pipeline.bodies import BatchBody, CreditBody, StartBody
from phasewatch.pipeline.build import accelerated_stages
from phasewatch.pipeline.chain import Chain
from phasewatch.pipeline.config import ClassifierConfig
from phasewatch.pipeline.messages import encode, encode_batch, encode_failed, encode_start
from phasewatch.pipeline.processes.desk import Desk, Setup
from phasewatch.pipeline.transport.links import Transport

HIGH_WATER = 64  # of the receiver's link: with no more asked for, it never waits for us


def serve(transport: Transport, desk: Desk, setup: Setup) -> None:
    """Run until the supervisor says that the run is over."""
    work = transport.link(
        "dealer", setup.addresses["work"], bind=False, hwm=HIGH_WATER, identity=desk.role.encode()
    )
    onward = transport.link("push", setup.addresses["tracker"], bind=False, hwm=8)
    options = setup.config.classifier or ClassifierConfig(model=Path())  # for its limits
    batcher = Batcher(max_items=options.max_batch, max_wait_ns=int(options.max_wait_ms * 1e6))
    ahead = min(HIGH_WATER, max(options.max_batch, setup.config.runtime.credits))
    chain, held, done = Chain(()), 0, 0
    work.send(encode(CreditBody(n=0)))  # makes us known: the receiver answers with the start
    while not desk.finished:
        wait_ns = batcher.wait_ns(desk.clock())
        timeout_ms = 100 if wait_ns is None else -(-wait_ns // 1_000_000)
        ready = transport.poll([work, desk.link], timeout_ms)
        if desk.link in ready:
            desk.commands()
        received = work.receive() if work in ready else None
        if received is not None:
            message = received[1]
            if isinstance(message.body, StartBody):
                run = message.run()
                chain = Chain(accelerated_stages(setup.config, run))
                desk.send(onward, encode_start(chain.start(run)), to_role="tracker")
                chain.warm_up(run)
                desk.report("ready")
                work.send(encode(CreditBody(n=ahead)))
            elif isinstance(message.body, BatchBody):
                batcher.add(message.batch(), desk.clock())
                held += 1
        if batcher.wait_ns(desk.clock()) == 0:
            for batch in batcher.take():
                good, failures = chain.process_isolated(batch)
                for parts in encode_failed(setup.run_id, failures):
                    desk.send(onward, parts, to_role="tracker")
                if good is not None:
                    stamped = good.stamped("classified", desk.clock())
                    desk.send(onward, encode_batch(setup.run_id, stamped), to_role="tracker")
                done += len(batch)
            work.send(encode(CreditBody(n=held)))
            held = 0
        desk.health(done=done, rejected=work.rejected)
