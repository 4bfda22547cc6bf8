"""The classifier: collects patterns by size and age, classifies them, passes them on."""

from phasewatch.pipeline.batch import Batch
from phasewatch.pipeline.batcher import Batcher
from phasewatch.pipeline.bodies import BatchBody, FailedBody, StartBody
from phasewatch.pipeline.build import classify_stage
from phasewatch.pipeline.chain import Chain
from phasewatch.pipeline.messages import encode_batch, encode_failed, encode_start
from phasewatch.pipeline.processes.agreement import Agreement
from phasewatch.pipeline.processes.desk import Desk, Setup
from phasewatch.pipeline.transport.links import Link, Transport


def serve(transport: Transport, desk: Desk, setup: Setup) -> None:
    """Run until the supervisor says that the run is over."""
    inbox = transport.link("pull", setup.addresses["reduced"], bind=True, hwm=8)
    onward = transport.link("push", setup.addresses["tracker"], bind=False, hwm=8)
    options = setup.config.classifier
    if options is None:
        raise RuntimeError("a classifier process without a [classifier] table")
    chain = Chain([classify_stage(setup.config)])
    batcher = Batcher(max_items=options.max_batch, max_wait_ns=int(options.max_wait_ms * 1e6))
    agreement, done = Agreement(), 0
    while not desk.finished:
        wait_ns = batcher.wait_ns(desk.clock())
        timeout_ms = 100 if wait_ns is None else -(-wait_ns // 1_000_000)
        ready = transport.poll([inbox, desk.link], timeout_ms)
        if desk.link in ready:
            desk.commands()
        received = inbox.receive() if inbox in ready else None
        if received is not None:
            message = received[1]
            if isinstance(message.body, StartBody):
                run = message.run()
                if agreement.is_new(run):
                    desk.send(onward, encode_start(chain.start(run)), to_role="tracker")
                    chain.warm_up(run)
                    desk.report("ready")
            elif isinstance(message.body, FailedBody):
                for parts in encode_failed(setup.run_id, message.body.failures()):
                    desk.send(onward, parts, to_role="tracker")
            elif isinstance(message.body, BatchBody):
                batcher.add(message.batch(), desk.clock())
        if batcher.wait_ns(desk.clock()) == 0:
            for batch in batcher.take():
                _classify(chain, batch, onward, desk, setup)
                done += len(batch)
        desk.health(done=done, rejected=inbox.rejected)


def _classify(chain: Chain, batch: Batch, onward: Link, desk: Desk, setup: Setup) -> None:
    good, failures = chain.process_isolated(batch)
    for parts in encode_failed(setup.run_id, failures):
        desk.send(onward, parts, to_role="tracker")
    if good is not None:
        desk.send(
            onward,
            encode_batch(setup.run_id, good.stamped("classified", desk.clock())),
            to_role="tracker",
        )
