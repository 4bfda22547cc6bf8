"""Metrics and heartbeat: what comes out is read back by those who would read it."""

import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from phasewatch.pipeline.bodies import ControlBody
from phasewatch.pipeline.documents import Event
from phasewatch.pipeline.errors import PipelineError
from phasewatch.pipeline.health import Book, Status, parse_status, run_status
from phasewatch.pipeline.plugin import keys_of, load, open_observer
from phasewatch.pipeline.transport.keys import Keys, write_keys
from phasewatch.pipeline.transport.links import Transport
from phasewatch.plugins.heartbeat import Heartbeat
from phasewatch.plugins.metrics import Metrics

S = 1_000_000_000
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def status() -> Status:
    book = Book(began_ns=0)
    book.report("receiver", {"received": 80, "missed": 2, "queued": 4, "in_flight": 6}, S)
    book.report("reducer-0", {"done": 70, "age_ms": 5.0, "p99_ms": 4.0, "rejected": 3}, S)
    tracker = {"classified": 60, "failed": 1, "dropped": {"late": 4}}
    book.report("tracker", {**tracker, "phase": 1, "posterior": 0.9, "confidence": 0.8}, S)
    book.report("sink", {"p50_ms": 2.0, "p999_ms": 9.0}, S)
    book.restarted("reducer-0")
    event = Event(kind="onset", seq=10, id=110, t_acq=None, phase=1, posterior=0.9)
    return run_status(
        book,
        2 * S,
        run_id="r1",
        source="series:s.npz",
        expected=100,
        classes=("before", "after"),
        events=[event],
        n_events=1,
    )


@pytest.fixture
def clock() -> list[float]:
    return [10.0]


@pytest.fixture
def metrics(clock: list[float]) -> Iterator[Metrics]:
    metrics = Metrics("127.0.0.1", 0, lambda: clock[0])
    yield metrics
    metrics.close()


def scraped(url: str) -> Samples:
    with urllib.request.urlopen(url, timeout=10) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain")
        text = answer.read().decode()
    return {
        (sample.name.removeprefix("phasewatch_"), frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_metrics_are_what_the_status_says(metrics: Metrics, clock: list[float]) -> None:
    metrics.update(status())
    clock[0] += 3.5
    samples = scraped(metrics.url)
    plain = {name: value for (name, labels), value in samples.items() if not labels}
    assert plain == {
        "status_age_seconds": 3.5,
        "run_elapsed_seconds": 2.0,
        "frames_expected": 100.0,
        "frames_received_total": 80.0,
        "frames_missed_total": 2.0,
        "frames_classified_total": 60.0,
        "frames_failed_total": 1.0,
        "events_total": 1.0,
        "phase_posterior_ratio": 0.9,
        "confidence_ratio": 0.8,
    }

    def one(name: str, **labels: str) -> float:
        return samples[name, frozenset(labels.items())]

    assert one("frames_dropped_total", reason="late") == 4
    assert one("latency_seconds", quantile="0.5") == 0.002
    assert one("latency_seconds", quantile="0.999") == 0.009
    assert one("process_latency_seconds", process="reducer-0", quantile="0.99") == 0.004
    assert [one("phase", **{"class": c}) for c in ("before", "after", "unknown")] == [0, 1, 0]
    assert one("queue_length", process="receiver") == 4
    assert one("in_flight_items", process="receiver") == 6
    assert one("data_age_seconds", process="reducer-0") == 1.005
    assert one("process_heard_seconds", process="tracker") == 1
    assert one("process_items_total", process="reducer-0") == 70
    assert one("process_restarts_total", process="reducer-0") == 1
    assert one("process_restarts_total", process="tracker") == 0
    assert one("messages_rejected_total", process="reducer-0") == 3
    assert one("run_info", run_id="r1", source="series:s.npz") == 1
    assert ("queue_length", frozenset({("process", "tracker")})) not in samples
    build = next(dict(labels) for name, labels in samples if name == "build_info")
    assert build.keys() == {"version", "python"}


def test_before_anything_is_known(metrics: Metrics) -> None:
    assert [name for name, _ in scraped(metrics.url)] == ["build_info"]
    metrics.update(run_status(Book(0), S, run_id="r"))
    names = {name for name, _ in scraped(metrics.url)}
    assert "frames_received_total" in names
    assert not {"frames_expected", "phase", "confidence_ratio"} & names


def test_where_metrics_are_served_is_told_and_given_back() -> None:
    with capture_logs() as logs:
        observer = open_observer("metrics", port=0)
    url = logs[0]["address"]
    assert url.startswith("http://127.0.0.1:")
    assert scraped(url)
    port = int(url.split(":")[2].partition("/")[0])
    with pytest.raises(PipelineError, match=rf"^\[metrics\] 127\.0\.0\.1:{port}: Address already"):
        open_observer("metrics", port=port)
    observer.close()
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(url, timeout=10)


def beats(address: str, heartbeat: Heartbeat, keys: Keys | None = None) -> list[ControlBody]:
    """Return what a subscriber hears while `heartbeat` is told again and again, two messages."""
    heard = []
    with Transport(linger_s=0, keys=keys) as transport:
        link = transport.link("sub", address, bind=False)
        for _ in range(1000):
            heartbeat.update(status())
            if transport.poll([link], 10):
                received = link.receive()
                assert received is not None
                assert isinstance(received[1].body, ControlBody)
                heard.append(received[1].body)
            if len(heard) == 2:
                return heard
    raise AssertionError("nothing was heard")


def test_a_heartbeat_is_heard() -> None:
    times = iter(range(10_000))
    heartbeat = Heartbeat("tcp://127.0.0.1:0", clock=lambda: next(times))
    first, second = beats(heartbeat.address, heartbeat)
    heartbeat.close()
    assert first.what == "heartbeat"
    assert second.data["n"] == first.data["n"] + 1
    assert first.data["t_ns"] == first.data["n"]
    assert parse_status(first.data["status"], where="heartbeat") == status()


def test_a_subscriber_that_does_not_read_holds_up_nobody() -> None:
    heartbeat = Heartbeat("tcp://127.0.0.1:0", clock=lambda: 0)
    with Transport(linger_s=0) as transport:
        link = transport.link("sub", heartbeat.address, bind=False, hwm=1)
        for _ in range(1000):
            heartbeat.update(status())
            if transport.poll([link], 10):
                break
        for _ in range(3000):
            heartbeat.update(status())
    heartbeat.close()


def test_a_heartbeat_for_other_hosts_takes_keys(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="without keys sockets bind to loopback"):
        open_observer("heartbeat", address="tcp://0.0.0.0:0")
    write_keys(tmp_path / "keys")
    with capture_logs() as logs:
        observer = open_observer(
            "heartbeat", address="tcp://127.0.0.2:0", keys=str(tmp_path / "keys")
        )
    assert isinstance(observer, Heartbeat)
    keys = Keys.load(tmp_path / "keys")
    assert len(beats(logs[0]["address"], observer, keys)) == 2
    observer.close()


def test_keys_of_the_tables() -> None:
    assert keys_of(load("observers", "metrics")) == ["port = 9464", "address = '127.0.0.1'"]
    assert keys_of(load("observers", "heartbeat")) == ["address", "keys"]
    with pytest.raises(PipelineError, match=r"\[metrics\] key 'port': Input should be less than"):
        open_observer("metrics", port=70_000)
    with pytest.raises(PipelineError, match=r"\[heartbeat\] key 'address' is missing"):
        open_observer("heartbeat")
