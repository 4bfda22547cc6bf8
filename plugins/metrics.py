"""The observer ``[metrics]``: how a run is, for Prometheus, over HTTP.

Names and units are Prometheus's: seconds, ratios, ``_total`` for what only grows (and begins anew
with a run, or with a process that was started anew). Nothing is computed when nobody asks.
"""

import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import version
from typing import Annotated

import structlog
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from pydantic import Field

from phasewatch.pipeline.errors import PipelineError
from phasewatch.pipeline.health import ProcessStatus, Status

_log = structlog.get_logger(__name__)


def open_observer(
    *,
    port: Annotated[int, Field(ge=0, le=65535)] = 9464,
    address: str = "127.0.0.1",
) -> "Metrics":
    """Serve the metrics of a run to Prometheus.

    Parameters
    ----------
    port
        Where to listen; 0 is a free one, told in the log.
    address
        Of this host; other than loopback, anybody who reaches it can read.
    """
    return Metrics(address, port)


class Metrics(Collector):
    """Keeps the last status, and tells it to who asks.

    Attributes
    ----------
    url
        Where it is served, with the port that was free.
    """

    def __init__(
        self, address: str, port: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._last: tuple[float, Status] | None = None
        registry = CollectorRegistry()
        registry.register(self)
        try:
            self._server, self._thread = start_http_server(port, address, registry)
        except OSError as error:
            raise PipelineError(f"[metrics] {address}:{port}: {error.strerror}") from None
        host = f"[{address}]" if ":" in address else address
        self.url = f"http://{host}:{self._server.server_port}/metrics"
        _log.info("metrics", address=self.url)

    def update(self, status: Status) -> None:
        """Take the status of the run."""
        self._last = self._clock(), status

    def collect(self) -> Iterator[Metric]:
        """Yield what Prometheus asks for."""
        yield build_info()
        if (last := self._last) is not None:
            at, status = last
            yield _gauge("status_age_seconds", "Time since the numbers here.", self._clock() - at)
            yield from families(status)

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def build_info() -> Metric:
    """Return which version this is."""
    versions = {"version": version("phasewatch"), "python": platform.python_version()}
    return InfoMetricFamily("phasewatch_build", "Versions of the program.", value=versions)


def families(status: Status) -> Iterator[Metric]:
    """Yield `status` in Prometheus's terms."""
    frames, processes = status.frames, status.processes
    run = {"run_id": status.run_id, "source": status.source}
    yield InfoMetricFamily("phasewatch_run", "The run that is going on.", value=run)
    yield _gauge("run_elapsed_seconds", "Time since the start of the run.", status.elapsed_s)
    if frames.expected is not None:
        yield _gauge("frames_expected", "Frames the source announced.", frames.expected)
    yield _counter("frames_received", "Frames that came.", frames.received)
    yield _counter("frames_missed", "Frames that never came, by gaps in ids.", frames.missed)
    yield _counter("frames_classified", "Frames at the end of the chain.", frames.classified)
    yield _counter("frames_failed", "Frames that could not be processed.", frames.failed)
    yield _labelled(
        CounterMetricFamily, "frames_dropped", "Frames dropped.", "reason", frames.dropped
    )
    yield _counter("events", "Onsets, completions, reversals, unknowns.", status.n_events)
    yield _quantiles(
        "latency_seconds", "From received to tracked.", [((), status.latency_ms)], labels=()
    )
    yield from _track(status)
    for kind, name, text, value in _OF_A_PROCESS:
        values = {role: value(p) for role, p in processes.items()}
        known = {role: v for role, v in values.items() if v is not None}
        yield _labelled(kind, name, text, "process", known)
    yield _quantiles(
        "process_latency_seconds",
        "Time that a process takes.",
        [((role,), {"p50": p.p50_ms, "p99": p.p99_ms}) for role, p in processes.items()],
        labels=("process",),
    )


Family = type[CounterMetricFamily] | type[GaugeMetricFamily]
_OF_A_PROCESS: tuple[tuple[Family, str, str, Callable[[ProcessStatus], float | None]], ...] = (
    (CounterMetricFamily, "process_items", "Items handled.", lambda p: p.done),
    (CounterMetricFamily, "process_restarts", "Times started anew.", lambda p: p.restarts),
    (CounterMetricFamily, "messages_rejected", "Messages not ours.", lambda p: p.rejected),
    (GaugeMetricFamily, "queue_length", "Batches that wait.", lambda p: p.queued),
    (GaugeMetricFamily, "in_flight_items", "Items under way.", lambda p: p.in_flight),
    (GaugeMetricFamily, "batch_items", "Items handled at once.", lambda p: p.batch),
    (GaugeMetricFamily, "process_heard_seconds", "Since its last word.", lambda p: p.heard_s),
    (
        GaugeMetricFamily,
        "data_age_seconds",
        "Age of the oldest item held, or the last one seen.",
        lambda p: None if p.age_ms is None else p.age_ms / 1e3,
    ),
)


def _track(status: Status) -> Iterator[Metric]:
    track = status.track
    if track is None:
        return
    phases = {name: float(name == track.phase) for name in (*track.classes, "unknown")}
    yield _labelled(GaugeMetricFamily, "phase", "1 for the phase it is in.", "class", phases)
    yield _gauge("phase_posterior_ratio", "How sure that phase is.", track.posterior)
    if track.confidence is not None:
        yield _gauge("confidence_ratio", "Classification confidence.", track.confidence)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"phasewatch_{name}", text, value=value)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"phasewatch_{name}", text, value=value)


def _labelled(
    kind: Family, name: str, text: str, label: str, values: Mapping[str, float | None]
) -> Metric:
    family = kind(f"phasewatch_{name}", text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], float(value or 0))
    return family


def _quantiles(
    name: str,
    text: str,
    rows: Iterable[tuple[tuple[str, ...], Mapping[str, float | None]]],
    *,
    labels: tuple[str, ...],
) -> Metric:
    """Return quantiles in ms, ``p50`` and so on, as gauges in seconds: ``quantile="0.5"``."""
    family = GaugeMetricFamily(f"phasewatch_{name}", text, labels=[*labels, "quantile"])
    for row, quantiles in rows:
        for key, value in quantiles.items():
            if value is not None:
                family.add_metric([*row, str(float(f"0.{key[1:]}"))], value / 1e3)
    return family
