"""What a process passes on to the next: what is true of the run, then items and failures."""

from collections.abc import Iterator, Sequence

from phasewatch.pipeline.batch import Batch, Dropped, Failure
from phasewatch.pipeline.documents import RunStart
from phasewatch.pipeline.messages import (
    Part,
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

    def send(self, batch: Batch | None, endings: Sequence[Failure | Dropped] = ()) -> None:
        """Send `endings`, then `batch`, where there are any."""
        for parts in encode_endings(self._run_id, endings):
            self._desk.send(self._link, parts)
        if batch is not None:
            stamped = batch.stamped(self._hop, self._desk.clock())
            self._desk.send(self._link, encode_batch(self._run_id, stamped))


def encode_endings(run_id: str, endings: Sequence[Failure | Dropped]) -> Iterator[list[Part]]:
    """Yield the messages that tell of `endings`."""
    yield from encode_failed(run_id, [e for e in endings if isinstance(e, Failure)])
    yield from encode_dropped(run_id, [e for e in endings if isinstance(e, Dropped)])
