"""What a process passes on to the next: what is true of the run, then items and failures."""

from collections.abc import Sequence

from phasewatch.pipeline.batch import Batch, Dropped, Failure
from phasewatch.pipeline.bodies import ResumeBody
from phasewatch.pipeline.documents import RunStart
from phasewatch.pipeline.messages import (
    Part,
    encode,
    encode_batch,
    encode_dropped,
    encode_failed,
    encode_start,
)
from phasewatch.pipeline.processes.desk import Desk, Setup
from phasewatch.pipeline.transport.links import Transport


class Onward:
    """The link to `name` in the addresses; `hop` stamps the batches that are sent."""

    def __init__(
        self, transport: Transport, desk: Desk, setup: Setup, name: str, *, hop: str, hwm: int
    ) -> None:
        self._link = transport.link("push", setup.addresses[name], bind=False, hwm=hwm)
        self._desk, self._run_id, self._hop = desk, setup.run_id, hop
        self._announced: list[Part] = []

    @property
    def begun(self) -> bool:
        """Whether the run was announced."""
        return bool(self._announced)

    def announce(self, run: RunStart) -> None:
        """Say what is true of the run from here on."""
        self._announced = encode_start(run)
        self.announce_again()

    def announce_again(self) -> None:
        """Say it to one who is new there and has not heard it."""
        if self._announced:
            self._desk.send(self._link, self._announced)

    def begin_at(self, position: int) -> None:
        """Say, if there is room, that no item before `position` will come; it is said again."""
        self._link.offer(encode(ResumeBody(run_id=self._run_id, position=position)))

    def send(self, batch: Batch | None, endings: Sequence[Failure | Dropped] = ()) -> None:
        """Send `endings`, then `batch`, where there are any."""
        failures = [e for e in endings if isinstance(e, Failure)]
        dropped = [e for e in endings if isinstance(e, Dropped)]
        for parts in encode_failed(self._run_id, failures):
            self._desk.send(self._link, parts)
        for parts in encode_dropped(self._run_id, dropped):
            self._desk.send(self._link, parts)
        if batch is not None:
            stamped = batch.stamped(self._hop, self._desk.clock())
            self._desk.send(self._link, encode_batch(self._run_id, stamped))
