"""The sink ``karabo-bridge``: results as a source of a Karabo bridge, protocol 2.2.

Each item that came to the end of the chain is a message, its id as train id. Its keys:
``probability`` (n_classes,), ``label`` (the class's name), ``labelIndex``, ``novelty``,
``pattern`` (n_bins,) on ``axis`` in ``unit``, ``seq``, and, as of this item, ``confidence`` of the
classification and ``zone``: for each boundary between classes the seq before and the seq after its
ambiguity zone (n_classes - 1, 2). What a run does not have is not there. The time of the metadata
is the detector's, and left out where it gave none.

What is not taken in time is lost: a client can never hold up a run, whatever ``policy`` says.
"""

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from phasewatch.pipeline.ambiguity import Ambiguity
from phasewatch.pipeline.batch import Batch, Failure
from phasewatch.pipeline.documents import Event, RunStart, RunStop
from phasewatch.plugins.bridge_wire import encode
from phasewatch.plugins.sinks.bridge_outbox import Kind, Outbox

NAMES = {"intensity": "pattern", "probability": "probability"}
NUMBERS = {"label": "labelIndex", "novelty": "novelty"}


def open_sink(
    *,
    address: str,
    socket: Kind = "REP",
    source: str = "PHASEWATCH/RESULT:output",
    queue: Annotated[int, Field(ge=1, le=10_000)] = 64,
) -> "KaraboBridge":
    """Serve results to clients of a Karabo bridge.

    Parameters
    ----------
    address
        Where to bind; loopback or ipc only, the bridge has no keys.
    socket
        ``REP`` (each request has the oldest result that waits), ``PUSH`` (each result to one of
        the clients), ``PUB`` (each to all; the slow lose results).
    source
        The name of the source.
    queue
        Results that wait for a slow client; where there are more, the oldest is dropped.
    """
    return KaraboBridge(Outbox(socket, address, queue), source)


class KaraboBridge:
    """Sink of the results of one run."""

    def __init__(self, outbox: Outbox, source: str) -> None:
        self._outbox, self._source = outbox, source

    @property
    def address(self) -> str:
        """Where it is bound; once started, with the port that was free."""
        return self._outbox.address

    def start(self, run: RunStart) -> None:
        """Bind."""
        self._run = run
        self._state = Ambiguity.of(len(run.classes)) if len(run.classes) > 1 else None
        self._outbox.open()

    def batch(self, batch: Batch) -> None:
        """Have the items of `batch` wait to be taken."""
        for i in range(len(batch)):
            if self._state is not None and "label" in batch.arrays:
                self._state = self._state.add(int(batch.arrays["label"][i]), int(batch.seq[i]))
            t_acq = None if batch.t_acq is None else int(batch.t_acq[i])
            metadata = _metadata(self._source, int(batch.ids[i]), t_acq)
            self._outbox.put(encode(self._source, self._values(batch, i), metadata))

    def failures(self, failures: Sequence[Failure]) -> None:
        """Items that failed have no result."""

    def dropped(self, items: Sequence[tuple[int, int]], reason: str) -> None:
        """Items that were dropped have no result."""

    def event(self, event: Event) -> None:
        """Events have no message of their own: labels and zones say it."""

    def stop(self, stop: RunStop) -> None:
        """There is no end of a run on the wire."""

    def close(self) -> None:
        """Close; what waits can be taken for a moment yet."""
        self._outbox.close()

    def _values(self, batch: Batch, i: int) -> dict[str, Any]:
        run, arrays = self._run, batch.arrays
        values: dict[str, Any] = {"seq": int(batch.seq[i])}
        values |= {said: arrays[name][i] for name, said in NAMES.items() if name in arrays}
        values |= {said: arrays[name][i].item() for name, said in NUMBERS.items() if name in arrays}
        if "intensity" in arrays and "axis" in run.constants:
            values |= {"axis": run.constants["axis"], "unit": run.unit}
        if self._state is not None and "label" in arrays:
            zones = [(zone.after, zone.before) for zone in self._state.zones()]
            values["label"] = run.classes[values["labelIndex"]]
            values["confidence"] = self._state.confidence()
            values["zone"] = np.array(zones, np.int64)
        return values


def _metadata(source: str, number: int, t_acq: int | None) -> dict[str, Any]:
    """Return the metadata of a source; see `phasewatch.plugins.sources.trains` for the time."""
    metadata: dict[str, Any] = {"source": source, "timestamp.tid": number}
    if t_acq is not None:
        seconds, ns = divmod(t_acq, 10**9)
        metadata |= {
            "timestamp": t_acq / 1e9,
            "timestamp.sec": str(seconds),
            "timestamp.frac": f"{ns * 10**9:018d}",
        }
    return metadata
