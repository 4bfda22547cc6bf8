"""A reducer: asks the receiver for batches, reduces them, passes them on. Stateless."""

from phasewatch.pipeline.bodies import BatchBody, CreditBody, StartBody
from phasewatch.pipeline.build import reduce_stages
from phasewatch.pipeline.chain import Chain
from phasewatch.pipeline.messages import encode, encode_batch, encode_failed, encode_start
from phasewatch.pipeline.processes.desk import Desk, Setup
from phasewatch.pipeline.transport.links import Transport


def serve(transport: Transport, desk: Desk, setup: Setup) -> None:
    """Run until the supervisor says that the run is over."""
    work = transport.link(
        "dealer", setup.addresses["work"], bind=False, identity=desk.role.encode()
    )
    onward = transport.link("push", setup.addresses["reduced"], bind=False, hwm=4)
    next_role = "classifier" if setup.config.classifier else "tracker"
    chain, done = Chain(()), 0
    work.send(encode(CreditBody(n=0)))  # makes us known: the receiver answers with the start
    while not desk.finished:
        ready = transport.poll([work, desk.link], timeout_ms=100)
        if desk.link in ready:
            desk.commands()
        received = work.receive() if work in ready else None
        if received is not None:
            message = received[1]
            if isinstance(message.body, StartBody):
                run = message.run()
                chain = Chain(reduce_stages(setup.config, run))
                desk.send(onward, encode_start(chain.start(run)), to_role=next_role)
                chain.warm_up(run)
                desk.report("ready")
                work.send(encode(CreditBody(n=setup.config.runtime.credits)))
            elif isinstance(message.body, BatchBody):
                batch, failures = chain.process_isolated(message.batch())
                for parts in encode_failed(setup.run_id, failures):
                    desk.send(onward, parts, to_role=next_role)
                if batch is not None:
                    stamped = batch.stamped("reduced", desk.clock())
                    desk.send(onward, encode_batch(setup.run_id, stamped), to_role=next_role)
                done += message.body.n
                work.send(encode(CreditBody(n=1)))
        desk.health(done=done, rejected=work.rejected)
