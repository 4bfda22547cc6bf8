"""What a process reports of its work, by times that are passed in."""

import numpy as np

from phasewatch.pipeline.batch import Batch
from phasewatch.pipeline.health import Book
from phasewatch.pipeline.meter import KEPT, Meter

MS = 1_000_000


def batch(n: int, received_ns: int | None = None) -> Batch:
    ids = np.arange(n)
    made = Batch(ids, ids)
    return made if received_ns is None else made.stamped("received", received_ns)


def test_before_any_work() -> None:
    assert Meter().report(5 * MS) == {"done": 0}


def test_items_durations_and_age() -> None:
    meter = Meter()
    for took in range(1, 102):
        meter.add(batch(3, received_ns=10 * MS), 20 * MS, (20 + took) * MS)
    assert meter.report(130 * MS) == {
        "done": 303,
        "p50_ms": 51.0,
        "p99_ms": 100.0,
        "batch": 3.0,
        "age_ms": 120.0,
    }


def test_quantiles_are_of_the_last_batches() -> None:
    meter = Meter()
    for _ in range(10):
        meter.add(batch(1), 0, 900 * MS)
    for _ in range(KEPT):
        meter.add(batch(4), 0, 2 * MS)
    assert meter.report(0) == {"done": 10 + 4 * KEPT, "p50_ms": 2.0, "p99_ms": 2.0, "batch": 4.0}


def test_an_age_that_cannot_be_is_not_told() -> None:
    meter = Meter()
    meter.add(batch(1, received_ns=50 * MS), 0, MS)  # by the clock of another host
    assert "age_ms" not in meter.report(20 * MS)
    meter.add(batch(0, received_ns=10 * MS), 0, MS)
    assert "age_ms" not in meter.report(20 * MS)


def test_a_status_takes_what_a_meter_reports() -> None:
    meter, book = Meter(), Book(0)
    meter.add(batch(8, received_ns=MS), MS, 3 * MS)
    book.report("reducer-0", meter.report(5 * MS), 5 * MS)
    status = book.process("reducer-0", 6 * MS)
    assert (status.done, status.batch, status.p50_ms, status.age_ms) == (8, 8.0, 2.0, 5.0)
