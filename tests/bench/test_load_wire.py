"""Recording raw traffic and replaying it."""

import io
from pathlib import Path
from threading import Event, Thread

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phasewatch.bench.load.record import paced, record
from phasewatch.bench.load.wire_file import (
    MAX_PARTS,
    WireMessage,
    read_messages,
    write_head,
    write_message,
)
from phasewatch.pipeline.batch import Batch, Dropped, Failure
from phasewatch.pipeline.bodies import StopBody
from phasewatch.pipeline.documents import ItemSpec, Loss, RunStart, RunStop
from phasewatch.pipeline.errors import PipelineError
from phasewatch.pipeline.messages import (
    encode,
    encode_batch,
    encode_dropped,
    encode_failed,
    encode_start,
)
from phasewatch.pipeline.plugin import open_source
from phasewatch.plugins.raw_socket import RawSocket

pytestmark = pytest.mark.usefixtures("clean_host")

MESSAGES = st.lists(
    st.tuples(st.integers(-(2**63), 2**63 - 1), st.lists(st.binary(max_size=40), max_size=4)),
    max_size=6,
)


def written(messages) -> bytes:
    file = io.BytesIO()
    write_head(file)
    for arrival, parts in messages:
        write_message(file, arrival, parts)
    return file.getvalue()


@given(MESSAGES, st.data())
def test_what_was_written_is_read_and_a_cut_loses_the_last_only(tmp_path_factory, messages, data):
    path = tmp_path_factory.mktemp("wire") / "w"
    content = written(messages)
    path.write_bytes(content)
    expected = [WireMessage(arrival, tuple(parts)) for arrival, parts in messages]
    assert list(read_messages(path)) == expected
    path.write_bytes(content[: data.draw(st.integers(8, len(content)))])
    found = list(read_messages(path))
    assert found == expected[: len(found)]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not a recording"),
        (b"PWWIRE9\nxxxx", "not a recording"),
        (b"PWWIRE1\n" + bytes(8) + b"\xff\xff\xff\xff", "a message of 4294967295 parts"),
        (b"PWWIRE1\n" + bytes(8) + b"\x01\0\0\0" + b"\xff" * 8, "a part of 18446744073709551615"),
    ],
)
def test_a_hostile_file_is_refused_in_one_line(tmp_path, content, said):
    path = tmp_path / "bad.wire"
    path.write_bytes(content)
    with pytest.raises(PipelineError, match=said) as error:
        list(read_messages(path))
    assert str(path) in str(error.value)


def test_a_claim_beyond_the_file_allocates_nothing(tmp_path):
    path = tmp_path / "w"
    path.write_bytes(b"PWWIRE1\n" + bytes(8) + b"\x01\0\0\0" + (1 << 28).to_bytes(8, "little"))
    assert list(read_messages(path)) == []


def test_too_many_parts_are_not_recorded():
    with pytest.raises(PipelineError, match="cannot be recorded"):
        write_message(io.BytesIO(), 0, [b""] * (MAX_PARTS + 1))


def recorded(path: Path, sent, **limits):
    """Record what a real socket gets."""
    address = f"ipc://{path.parent}/s"
    ticks = iter(range(10**9))
    with (
        RawSocket("pull", address, bind=True) as socket,
        RawSocket("push", address) as peer,
    ):
        for parts in sent:
            assert peer.offer([bytes(p) for p in parts])
        return record(socket, path, clock=lambda: 10 * next(ticks), **limits)


def test_recording_stops_at_its_limits(tmp_path):
    messages = [[b"a", b"bc"], [b""], [b"ddd"]]
    assert recorded(tmp_path / "w", messages, messages=3)[0] == 3
    assert [list(m.parts) for m in read_messages(tmp_path / "w")] == messages
    arrivals = [m.arrival_ns for m in read_messages(tmp_path / "w")]
    assert arrivals == sorted(arrivals)
    assert recorded(tmp_path / "v", messages, max_bytes=40)[0] == 1
    assert len(list(read_messages(tmp_path / "v"))) == 1
    assert recorded(tmp_path / "u", [], seconds=1e-8) == (0, 0)


def run_of_ours():
    axis = np.linspace(1.0, 2.0, 5)
    run = RunStart(
        run_id="r",
        source="test",
        items={"intensity": ItemSpec.of((5,), "f4")},
        unit="2th_deg",
        expected=6,
        constants={"axis": axis},
    )
    ids = np.arange(10, 13)
    patterns = np.arange(15, dtype=np.float32).reshape(3, 5)
    batch = Batch(ids - 10, ids, 5 * ids, {"intensity": patterns})
    stop = RunStop(run_id="r", reason="end of run", loss=Loss())
    parts = [
        encode_start(run),
        encode_batch("another", batch),
        encode_batch("r", batch),
        *encode_failed("r", [Failure(3, 13, "reduce", "bad")]),
        *encode_dropped("r", [Dropped(0, 10, "ring full")]),
        encode(StopBody(stop=stop)),
    ]
    return patterns, parts


@pytest.mark.parametrize("options", [{}, {"via": "zmq"}])
def test_a_recording_is_a_source_directly_and_through_a_socket(tmp_path, options):
    patterns, parts = run_of_ours()
    recorded(tmp_path / "w", parts, messages=len(parts))
    source = open_source(f"wire:{tmp_path / 'w'}", **options)
    try:
        assert source.start().expected == 6
        items = [item for item in source if item is not None]
    finally:
        source.close()
    source.close()
    assert np.array_equal(items[0].arrays["intensity"], patterns)
    assert items[0].ids.tolist() == [10, 11, 12]
    assert items[0].t_acq.tolist() == [50, 55, 60]
    assert [(f.seq, f.id) for f in items[1:]] == [(3, 13), (4, 10)]
    assert items[1].error == "reduce: bad"


def test_what_is_not_ours_is_one_line(tmp_path):
    (tmp_path / "w").write_bytes(written([(0, [b"\x01\x02"])]))
    with pytest.raises(PipelineError, match="another protocol needs via"):
        open_source(f"wire:{tmp_path / 'w'}").start()
    (tmp_path / "e").write_bytes(written([]))
    with pytest.raises(PipelineError, match="no start of a run"):
        open_source(f"wire:{tmp_path / 'e'}").start()
    with pytest.raises(PipelineError, match="no such file"):
        open_source(f"wire:{tmp_path / 'absent'}")


def test_replay_keeps_the_intervals():
    waited = []

    class Stopped(Event):
        def wait(self, timeout=None):
            waited.append(timeout)

    messages = [WireMessage(t, ()) for t in (100, 2_000_000_100, 3_000_000_100)]
    assert list(paced(iter(messages), 2.0, Stopped(), clock=lambda: 0)) == messages
    assert waited == [0.0, 1.0, 1.5]
    stopped = Event()
    stopped.set()
    assert list(paced(iter(messages), 0.0, stopped)) == []


def test_a_source_that_is_closed_ends_a_long_wait(tmp_path):
    _, parts = run_of_ours()
    hour = 3600 * 10**9
    (tmp_path / "w").write_bytes(written([(i * hour, p) for i, p in enumerate(parts)]))
    source = open_source(f"wire:{tmp_path / 'w'}", speed=1.0)
    source.start()
    thread = Thread(target=lambda: list(source))
    thread.start()
    source.close()
    thread.join(10)
    assert not thread.is_alive()
