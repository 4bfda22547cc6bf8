"""What all sources of detector streams share; the feed is a list, the clock is passed in."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from structlog.testing import capture_logs

from phasewatch.pipeline.batch import Batch, Failure
from phasewatch.pipeline.documents import ItemSpec, RunStart
from phasewatch.pipeline.errors import PipelineError
from phasewatch.pipeline.messages import MessageError
from phasewatch.plugins.sources.stream import Began, Ended, Found, Frame, Lost, Stream

from . import streamed

SPEC = ItemSpec.of((2, 3), np.uint16)
Message = Any


def frame(number: int, *, spec: ItemSpec = SPEC, error: str = "", **more: Any) -> Frame:
    def write(out: NDArray[Any]) -> None:
        if error:
            raise PipelineError(error)
        out[...] = number

    return Frame(number, spec, write, **more)


def began(series: str = "", **more: Any) -> Began:
    return Began(SPEC, series, **more)


class Feed:
    """Gives `messages` in turn, then none for `silent` times; nothing after that is waited for."""

    def __init__(self, messages: Iterable[Message], silent: int = 0) -> None:
        self.address = "list:7"
        self.closed = 0
        self.opened = 0
        self._messages: Iterator[Message | None] = iter([*messages, *[None] * silent])

    def open(self) -> None:
        self.opened += 1

    def receive(self, timeout_ms: int) -> Message | None:
        return next(self._messages)

    def close(self) -> None:
        self.closed += 1


def decode(message: Message) -> Iterator[Found]:
    for found in message if isinstance(message, list) else [message]:
        if callable(found):
            found = found()
        if isinstance(found, Exception):
            raise found
        yield found


class Clock:
    """Advances by `step` seconds whenever it is asked."""

    def __init__(self, step: float = 0.0) -> None:
        self.now, self.step = 0.0, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def stream(*messages: Message, silent: int = 0, idle: float | None = None, step: float = 0.0):
    return Stream("list", Feed(messages, silent), decode, idle_timeout_s=idle, clock=Clock(step))


def read(source: Stream, first: int = 0) -> list[tuple[int, Any]]:
    """Return (id, first pixel or error) of all items."""
    found = streamed.read(source, first)
    return [(i, item if isinstance(item, str) else item[0, 0]) for i, item in found]


def test_a_run_from_its_start_to_its_end() -> None:
    source = stream(
        [began("s", facts={"expected": 4, "wavelength_m": 1e-10})],
        [frame(5, series="s"), frame(6, series="s")],
        frame(8, series="s"),
        Lost(9, "module 2 is missing", "s"),
        Ended("s"),
    )
    run = source.start()
    assert (run.items, run.expected, run.wavelength_m) == ({"frame": SPEC}, 4, 1e-10)
    assert run.source == "list:list:7"
    assert read(source) == [(5, 5), (6, 6), (8, 8), (9, "module 2 is missing")]
    assert source._feed.closed == 1
    source.close()
    source.close()
    assert source._feed.closed == 1


def test_frames_that_begin_the_run_are_not_lost() -> None:
    source = stream([began(), frame(1), frame(2)], frame(3), Ended())
    source.start()
    assert read(source) == [(1, 1), (2, 2), (3, 3)]


def test_what_is_of_the_same_message_and_after_its_end_is_of_no_run() -> None:
    source = stream([began(), frame(1), Ended(), frame(2)])
    source.start()
    assert read(source) == [(1, 1)]


@pytest.mark.parametrize(
    "bad",
    [
        lambda: frame(1 << 63),
        lambda: frame(-(1 << 63) - 1),
        lambda: frame("5"),
        lambda: frame(True),
        lambda: frame(5.0),
        lambda: frame(np.int64(5)),
        lambda: frame(5, t_acq=1 << 63),
        lambda: frame(5, t_acq="now"),
        lambda: Lost(1 << 70, "x"),
        lambda: Lost(None, "x"),
        lambda: ItemSpec(shape=(1, 2, 3, 4, 5), dtype="<u2"),
        lambda: ItemSpec(shape=(-1, 2), dtype="<u2"),
        lambda: Began(ItemSpec.of((2, 3, 4), "u2")),
        lambda: Began(ItemSpec.of((1 << 20, 1 << 20), "u2")),
        lambda: Began(ItemSpec(shape=(2, 3), dtype="O")),
        lambda: Began(ItemSpec.of((0, 3), "u2")),
        lambda: Began(SPEC, facts={"expected": 1 << 60}),
        lambda: MessageError("not of the\nprotocol " + "x" * 10_000),
    ],
)
def test_hostile_message_is_refused_and_later_good_ones_are_taken(bad: Callable[[], Any]) -> None:
    source = stream(bad, [began(), frame(1)], [frame(2), bad], bad, frame(3), Ended())
    source.start()
    assert read(source) == [(1, 1), (2, 2), (3, 3)]
    assert source.refused == {"not understood": 3}
    assert len(source.last_error) < 600
    assert "\n" not in source.last_error


@pytest.mark.parametrize("facts", [{"wavelength_m": 0.0}, {"wavelength_m": "1"}, {"expected": -1}])
def test_unusable_start_is_waited_out(facts: dict[str, Any]) -> None:
    source = stream(began("a", facts=facts), frame(1), began("b"), frame(2, series="b"), Ended())
    run = source.start()
    assert run.settings["series"] == "b"
    assert read(source) == [(2, 2)]
    assert source.refused == {"no usable start": 1, "before a start": 1}


def test_refusals_are_logged_once_a_kind_and_counted() -> None:
    with capture_logs() as logs:
        source = stream(*[lambda: MessageError("x")] * 5, began(), Ended())
        source.start()
        read(source)
    assert [log["event"] for log in logs] == ["message refused", "messages refused"]
    assert logs[1]["not understood"] == 5


def test_another_series_in_between_is_refused() -> None:
    source = stream(
        began("a"),
        [frame(1, series="a"), frame(7, series="b"), frame(2, series="a")],
        Lost(8, "x", "b"),
        Ended("b"),
        began("a"),
        frame(3),
        Ended("a"),
    )
    source.start()
    assert read(source) == [(1, 1), (2, 2), (3, 3)]
    assert source.refused == {"another series": 2}


def test_next_series_ends_the_run() -> None:
    source = stream(began("a"), frame(1, series="a"), began("b"), frame(2, series="b"))
    source.start()
    with capture_logs() as logs:
        assert read(source) == [(1, 1)]
    assert [log["event"] for log in logs] == ["another run began: this one is over"]


def test_changed_shape_is_a_failure_of_these_frames() -> None:
    larger, wider = ItemSpec.of((2, 4), np.uint16), ItemSpec.of((2, 3), np.uint32)
    source = stream(
        [began(), frame(1)],
        [frame(2), frame(3, spec=larger), frame(4)],
        frame(5, spec=wider),
        frame(6),
        Ended(),
    )
    source.start()
    assert read(source) == [
        (1, 1),
        (2, 2),
        (3, "frame: uint16 (2, 4) came, not uint16 (2, 3)"),
        (4, 4),
        (5, "frame: uint32 (2, 3) came, not uint16 (2, 3)"),
        (6, 6),
    ]


def test_times_are_of_all_frames_or_none() -> None:
    source = stream(began(timed=True), [frame(1, t_acq=10), frame(2)], frame(3, t_acq=30), Ended())
    source.start()
    items = [item for item in source if item is not None]
    assert [i.t_acq.tolist() for i in items if isinstance(i, Batch)] == [[10], [30]]
    assert [i.error for i in items if isinstance(i, Failure)] == [
        "frame: it has no time, earlier ones had"
    ]
    source = stream(began(), frame(1, t_acq=10), Ended())
    source.start()
    assert [i.t_acq for i in source if isinstance(i, Batch)] == [None]


def test_idle_run_ends_and_what_came_is_kept() -> None:
    source = stream([began(), frame(1)], frame(2), silent=5, idle=2.0, step=1.0)
    source.start()
    with capture_logs() as logs:
        assert read(source) == [(1, 1), (2, 2)]
    assert [log["event"] for log in logs] == ["idle: the run is over"]
    assert source._feed.closed == 1


def test_frame_of_the_last_moment_is_kept() -> None:
    """The clock leaps while the message is decoded."""
    source = stream([began(), frame(1)], silent=1, idle=2.0, step=3.0)
    source.start()
    assert read(source) == [(1, 1)]


def test_time_until_it_is_read_is_not_idle() -> None:
    source = stream(began(), None, frame(1), Ended(), idle=2.0)
    source.start()
    source._clock.now += 100.0  # the other processes started meanwhile
    assert read(source) == [(1, 1)]


def test_what_is_not_of_the_run_does_not_put_off_its_end() -> None:
    source = stream(began("a"), *[[frame(1, series="b")]] * 9, idle=5.0, step=1.0)
    source.start()
    assert read(source) == []


def test_who_holds_messages_back_is_not_silent() -> None:
    class Holds:
        def __call__(self, message: Message) -> Iterable[Found]:
            return () if message == "held" else decode(message)

        def rest(self) -> Iterable[Found]:
            return [frame(7)]

    feed = Feed([began(), *["held"] * 9, frame(1)], silent=9)
    source = Stream("list", feed, Holds(), idle_timeout_s=5.0, clock=Clock(1.0))
    source.start()
    assert read(source) == [(1, 1), (7, 7)]


def test_no_run_in_time_says_what_came() -> None:
    with pytest.raises(PipelineError, match=r"^list:list:7: no run in 2.0 s; nothing came$"):
        stream(silent=5, idle=2.0, step=1.0).start()
    source = stream(*[lambda: MessageError("no map")] * 5, idle=2.0, step=1.0)
    with pytest.raises(PipelineError, match=r"\d refused, last: not understood: no map$"):
        source.start()
    assert source._feed.closed == 1
    source = stream(silent=5, idle=2.0, step=1.0)
    source._feed.state = "nobody answers"
    with pytest.raises(PipelineError, match=r"nothing came \(nobody answers\)$"):
        source.start()


def test_says_that_it_waits() -> None:
    source = stream(None, None, None, None, None, began(), step=1.0)
    with capture_logs() as logs:
        source.start()
    assert [log["event"] for log in logs] == ["waiting for a run"]
    source.close()


def test_fatal_error_comes_after_the_frames_before_it() -> None:
    source = stream([began(), frame(1), PipelineError("the broker is gone")])
    source.start()
    items = iter(source)
    assert isinstance(next(items), Batch)
    with pytest.raises(PipelineError, match="the broker is gone"):
        list(items)
    source.close()


def test_join_in_mid_series_waits_for_the_next() -> None:
    source = stream(frame(1, series="a"), Ended("a"), began("b"), frame(2, series="b"), Ended("b"))
    assert source.start().settings["series"] == "b"
    assert read(source) == [(2, 2)]
    assert source.refused == {"before a start": 2}


def test_resumed_goes_on_at_what_comes() -> None:
    before = stream(began("a", timed=True))
    run = before.start()
    before.close()
    source = stream(
        [frame(7, series="a", t_acq=1), frame(8, series="b", t_acq=1)], Ended("b"), Ended("a")
    )
    source.resume(run, 3)
    assert read(source, first=3) == [(7, 7)]
    assert source._feed.opened == 1


def test_resumed_takes_the_start_that_is_repeated() -> None:
    before = stream(began())
    run = before.start()
    before.close()
    source = stream([began(), frame(7)], began("other"), frame(8))
    source.resume(run, 3)
    assert read(source, first=3) == [(7, 7)]


def test_closed_before_it_was_opened_and_in_the_middle() -> None:
    source = stream(began(), frame(1), frame(2), Ended())
    source.close()
    assert source._feed.closed == 0
    source.start()
    items = iter(source)
    while next(items) is None:
        pass
    source.close()
    with capture_logs() as logs:
        assert [item for item in items if item is not None] == []
    assert logs == []
    assert source._feed.closed == 1


def test_yields_nothing_while_nothing_comes() -> None:
    source = stream(began(), None, None, frame(1), None, Ended())
    source.start()
    kinds = [None if item is None else len(item) for item in source]
    assert kinds == [None, None, None, 1, None, None]


@pytest.mark.parametrize("most", [1, 2, 3, 8])
def test_lent_memory_is_written_and_a_bad_frame_takes_nobody_along(most: int) -> None:
    memory, given = np.full((64, 2, 3), 999, np.uint16), [0]

    def allocate(n: int) -> dict[str, NDArray[Any]]:
        first, given[0] = given[0], given[0] + min(n, most)
        return {"frame": memory[first : given[0]]}

    bad = frame(4, error="it is cut off")
    source = stream([began(), *map(frame, (1, 2, 3)), bad, *map(frame, (5, 6))], Ended())
    run: RunStart = source.start()
    source.lend(allocate)
    items = [item for item in source if item is not None]
    batches = [item for item in items if isinstance(item, Batch)]
    assert all(np.shares_memory(b.arrays["frame"], memory) for b in batches)
    assert [n for b in batches for n in b.arrays["frame"][:, 1, 2].tolist()] == [1, 2, 3, 5, 6]
    assert [(f.seq, f.id, f.error) for f in items if isinstance(f, Failure)] == [
        (3, 4, "it is cut off")
    ]
    assert [n for b in batches for n in b.seq.tolist()] == [0, 1, 2, 4, 5]
    assert run.items["frame"] == SPEC
