"""The classifier: collects patterns by size and age, classifies them, passes them on.

For a model with temporal context it restores the order of the items first. One that is started
again then begins as many items before what has ended as the model looks back: they are classified a
second time, which nobody takes, and from there on all is as it was. So it does when the tracker is
started again: what was classified and had not come to the sinks has died with the last one.
"""

from collections.abc import Sequence
from contextlib import suppress

from phasewatch.pipeline.batch import Batch, Dropped, Failure
from phasewatch.pipeline.batcher import Batcher
from phasewatch.pipeline.bodies import BatchBody, DroppedBody, FailedBody, ResumeBody, StartBody
from phasewatch.pipeline.build import classify_stage
from phasewatch.pipeline.chain import Chain
from phasewatch.pipeline.messages import Message, MessageError
from phasewatch.pipeline.meter import Meter
from phasewatch.pipeline.processes.agreement import Agreement
from phasewatch.pipeline.processes.desk import Desk, Setup
from phasewatch.pipeline.processes.onward import Onward
from phasewatch.pipeline.reorder import Reorder, reorder
from phasewatch.pipeline.transport.links import Transport

INBOX = 8  # messages that wait to be read
DRAIN = 64  # and that are read before something is classified


def serve(transport: Transport, desk: Desk, setup: Setup) -> None:
    """Run until the supervisor says that the run is over."""
    classifier = Classifier(transport, desk, setup)
    inbox = transport.link("pull", setup.addresses["reduced"], bind=True, hwm=INBOX)
    # Of this host alone: by a word on what not to wait for, a guest could end the run for others.
    endings = transport.link("pull", setup.addresses["endings"], bind=True, hwm=INBOX)
    while not desk.finished:
        transport.poll([inbox, endings, desk.link], classifier.wait_ms())
        for what, data in desk.commands():
            if what == "back" and data["role"] == "tracker":
                classifier.begin_again()
        for _, message in inbox.drain(DRAIN):
            try:
                classifier.hear(message)
            except MessageError as error:
                inbox.refuse(str(error))
            if classifier.full:
                break
        for _, message in endings.drain(DRAIN):
            try:
                classifier.hear_receiver(message)
            except MessageError as error:
                endings.refuse(str(error))
        classifier.work()
        desk.health(lambda: {**classifier.health(), "rejected": inbox.rejected + endings.rejected})


class Classifier:
    """The classify stage between two links; `onward` is the one to the tracker."""

    def __init__(self, transport: Transport, desk: Desk, setup: Setup) -> None:
        options = setup.config.classifier
        if options is None:
            raise RuntimeError("a classifier process without a [classifier] table")
        self._desk, self._run_id = desk, setup.run_id
        self.onward = Onward(transport, desk, setup, "tracker", hop="classified", hwm=8)
        self._stage = classify_stage(setup.config)
        self._chain = Chain([self._stage])
        # A CPU takes what has come by now: a batch gains it less than the wait costs.
        self._max_wait_ns = 0 if self._stage.on_cpu else int(options.max_wait_ms * 1e6)
        self._most, self._runtime = options.max_batch, setup.config.runtime
        self._batcher, self._order = self._new_batcher(), self._new_order()
        self._where_to_begin = not setup.again
        self._agreement = Agreement()
        self._meter = Meter()

    def begin_again(self) -> None:
        """Tell a new tracker of the run; where the order is kept, go back to where it may begin."""
        self.onward.announce_again()
        if self._order is not None:
            self._stage.forget()
            self._batcher, self._order = self._new_batcher(), self._new_order()
            self._where_to_begin = False

    @property
    def full(self) -> bool:
        """Whether as much is held as is classified at once."""
        return len(self._batcher) >= self._most

    def wait_ms(self) -> int:
        """Return how long there is nothing to do if nothing comes."""
        wait_ns = self._batcher.wait_ns(self._desk.clock()) if self.onward.begun else None
        return 100 if wait_ns is None else -(-wait_ns // 1_000_000)

    def hear(self, message: Message) -> None:
        """Take in one message; what comes before the start of the run waits for it."""
        body = message.body
        if isinstance(body, StartBody) and body.run.run_id == self._run_id:
            run = message.run()
            if self._agreement.is_new(run):
                self.onward.announce(self._chain.start(run))
                self._chain.warm_up(run)
                self._desk.ready()
                while self._agreement.early:
                    with suppress(MessageError):  # what cannot be of this run
                        self.hear(self._agreement.early.popleft())
        elif isinstance(body, FailedBody) and body.run_id == self._run_id:
            self._end(body.failures())
        elif isinstance(body, BatchBody) and body.run_id == self._run_id:
            batch = self._agreement.batch(message)
            if batch is not None and len(batch):
                self._add(batch)

    def hear_receiver(self, message: Message) -> None:
        """Take in what ended there, and the first item that can still come."""
        body = message.body
        if isinstance(body, FailedBody) and body.run_id == self._run_id:
            self._end(body.failures())
        elif isinstance(body, DroppedBody) and body.run_id == self._run_id:
            self._end([Dropped(seq, i, body.reason) for seq, i in body.items])
        elif isinstance(body, ResumeBody) and body.run_id == self._run_id:
            if self._order is not None:
                self._check([body.position])
                self._order.skip(body.position)
            self._where_to_begin = True

    def work(self) -> None:
        """Classify what is due."""
        self._restore_order()
        while self.onward.begun and self._batcher.wait_ns(self._desk.clock()) == 0:
            for batch in self._batcher.take():
                self._classify(batch)
            self._restore_order()

    def health(self) -> dict[str, object]:
        """Return what the supervisor is told."""
        return {**self._meter.report(self._desk.clock()), "queued": len(self._batcher)}

    def _new_batcher(self) -> Batcher:
        return Batcher(max_items=self._most, max_wait_ns=self._max_wait_ns)

    def _new_order(self) -> Reorder | None:
        if not self._stage.context:
            return None
        return reorder(live=self._runtime.mode == "live", wait_s=self._runtime.reorder_wait_s)

    def _add(self, batch: Batch) -> None:
        if self._order is None:
            self._batcher.add(batch, self._desk.clock())
        else:
            self._check(batch.seq.tolist())
            self._order.add(batch)

    def _end(self, endings: Sequence[Failure | Dropped]) -> None:
        if self._order is None:
            self.onward.send(None, endings)
        else:
            self._check([ending.seq for ending in endings])
            self._order.end_items(endings)

    def _check(self, seqs: list[int]) -> None:
        if self._order is not None and self._where_to_begin:  # before, any seq may be the next
            self._order.check(seqs)

    def _restore_order(self) -> None:
        while self._order is not None and self._where_to_begin and not self.full:
            batch, endings = self._order.release(self._desk.clock())
            self.onward.send(None, endings)
            if batch is not None:
                self._batcher.add(batch, self._desk.clock())
            elif not endings:
                break

    def _classify(self, batch: Batch) -> None:
        began = self._desk.clock()
        good, failures = self._chain.process_isolated(batch)
        self.onward.send(good, failures)
        self._meter.add(batch, began, self._desk.clock())
