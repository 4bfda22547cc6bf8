"""A worker's side of the receiver: it makes itself known, asks, and gets items.

Used by the reducer and the accelerator, which differ in what they do with them.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from phasewatch.pipeline.batch import Batch, Failure, Int64
from phasewatch.pipeline.bodies import (
    BatchBody,
    CreditBody,
    LeaveBody,
    PackedBody,
    SlotsBody,
    StartBody,
)
from phasewatch.pipeline.chain import Chain
from phasewatch.pipeline.config import Config
from phasewatch.pipeline.documents import Packing, RunStart
from phasewatch.pipeline.errors import PipelineError
from phasewatch.pipeline.messages import Message, MessageError, encode
from phasewatch.pipeline.packing import CODECS, Unpacker, warm_up
from phasewatch.pipeline.processes.agreement import Agreement
from phasewatch.pipeline.processes.desk import Desk, Setup
from phasewatch.pipeline.processes.onward import Onward
from phasewatch.pipeline.stage import Stage
from phasewatch.pipeline.transport.links import Transport
from phasewatch.pipeline.transport.ring import Ring

IDLE_NS = 2_000_000_000  # without an order


@dataclass(frozen=True, slots=True, eq=False)
class Loan:
    """Items to work on. Where they lie in the ring: the generation they had, and the one now.

    `failures`: those that came packed and could not be unpacked.
    """

    batch: Batch
    had: Int64 | None = None
    now: Int64 | None = None
    failures: tuple[Failure, ...] = ()

    @property
    def intact(self) -> bool:
        """Whether the items are still those that were sent: who was stopped may be late."""
        return self.had is None or self.now is None or np.array_equal(self.had, self.now)


class Worker:
    """What a worker hears: the run, for which it builds `stages`; what the supervisor says; items.

    `chain` are the stages of the run, `orders` the link to the receiver.
    """

    def __init__(
        self,
        transport: Transport,
        desk: Desk,
        setup: Setup,
        onward: Onward,
        stages: Callable[[Config, RunStart], Sequence[Stage]],
        *,
        ahead: int,
    ) -> None:
        self._transport, self._desk, self._config = transport, desk, setup.config
        self._onward, self._stages, self._agreement = onward, stages, Agreement()
        self.orders = Orders(transport, desk, setup, ahead=ahead)
        self.chain = Chain(())

    def turn(self, timeout_ms: int) -> Loan | None:
        """Hear what there is, waiting at most `timeout_ms`; return what came to work on."""
        ready = self._transport.poll([self.orders.link, self._desk.link], timeout_ms)
        for what, data in self._desk.commands():
            if what == "back" and data["role"] == "receiver":
                self.orders.begin_again()
            elif what == "back":
                self._onward.announce_again()
        taken = self.orders.take() if self.orders.link in ready else None
        self.orders.idle(self._desk.clock())
        if isinstance(taken, Loan):
            return taken
        if taken is not None and self._agreement.is_new(taken):
            self._begin(taken)
        return None

    def _begin(self, run: RunStart) -> None:
        self.chain = Chain(self._stages(self._config, run))
        self._onward.announce(self.chain.start(run))
        self.chain.warm_up(run)
        self._desk.ready()
        self.orders.ready()


class Orders:
    """The link to the receiver."""

    def __init__(self, transport: Transport, desk: Desk, setup: Setup, *, ahead: int) -> None:
        self.link = transport.link(
            "dealer", setup.addresses["work"], bind=False, hwm=64, identity=desk.role.encode()
        )
        self._desk, self._setup, self._ahead, self._ready = desk, setup, ahead, False
        self._taken_ns = desk.clock()
        self._ring: Ring | None = None
        self._unpacker: Unpacker | None = None
        self.unpacked = 0  # items
        self.ask(0)  # makes us known: the receiver answers with the start

    def ask(self, n: int, *, afresh: bool = False) -> None:
        """Ask for `n` more orders; `afresh`: for `n` in all."""
        local = self._setup.ring is not None
        codecs = () if local else CODECS
        self.link.offer(encode(CreditBody(n=n, local=local, afresh=afresh, codecs=codecs)))

    def ready(self) -> None:
        """Ask for the first orders, once all is built."""
        if not self._ready:
            self._ready = True
            self.ask(self._ahead)

    def begin_again(self) -> None:
        """Ask a new receiver, which knows nothing of us, or one that may not have heard us."""
        self.ask(self._ahead if self._ready else 0, afresh=True)

    def idle(self, now_ns: int) -> None:
        """Ask again now and then while nothing comes: the connection may have been broken."""
        if now_ns - self._taken_ns > IDLE_NS:
            self._taken_ns = now_ns
            self.begin_again()

    @contextmanager
    def leaving(self) -> Iterator[None]:
        """Tell the receiver at the end that what it sent us goes to others."""
        try:
            yield
        finally:
            self.link.offer(encode(LeaveBody()))

    def take(self) -> RunStart | Loan | None:
        """Return what came: the start of the run, or items of it; None where it was neither.

        A message that is not what it says is refused.
        """
        received = self.link.receive()
        self._taken_ns = self._desk.clock()
        if received is None:
            return None
        try:
            return self._understood(received[1])
        except MessageError as error:
            self.link.refuse(str(error))
            return None

    def _understood(self, message: Message) -> RunStart | Loan | None:
        body = message.body
        if isinstance(body, StartBody) and body.run.run_id == self._setup.run_id:
            run = message.run()
            self._unpacker = _unpacker(body.packing, run)
            return run
        if isinstance(body, PackedBody) and body.run_id == self._setup.run_id:
            return self._unpack(message)
        if isinstance(body, BatchBody) and body.run_id == self._setup.run_id:
            return Loan(message.batch())
        if isinstance(body, SlotsBody) and body.run_id == self._setup.run_id:
            return self._borrow(message, body)
        return None

    def _unpack(self, message: Message) -> Loan:
        if self._unpacker is None:
            raise MessageError("packed items, and nothing was said of how")
        packed = message.packed(self._unpacker.n_tiles)
        try:
            batch, failures = self._unpacker.batch(message.batch(), packed)
        except PipelineError as error:
            raise MessageError(str(error)) from None
        self.unpacked += len(batch)
        return Loan(batch, failures=failures)

    def _borrow(self, message: Message, body: SlotsBody) -> Loan:
        if self._setup.ring is None:
            raise PipelineError("items in shared memory were sent to another host")
        self._ring = self._ring or Ring.attach(self._setup.ring)
        had = message.columns().get("generation")
        if had is None or body.slot + body.n > self._ring.n:
            raise MessageError(f"slots {body.slot} and {body.n - 1} more are not in the ring")
        slots = slice(body.slot, body.slot + body.n)
        arrays: dict[str, Any] = {name: a[slots] for name, a in self._ring.arrays.items()}
        batch = message.batch().with_arrays(**arrays)
        return Loan(batch, had, self._ring.generation[slots])


def _unpacker(packing: Packing | None, run: RunStart) -> Unpacker | None:
    spec = run.items.get("frame")
    if packing is None or spec is None:
        return None
    try:
        unpacker = Unpacker(packing, spec)
    except PipelineError as error:
        raise MessageError(f"start of the run: {error}") from None
    warm_up(packing.codec)
    return unpacker
