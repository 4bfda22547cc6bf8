"""What stands between the run and one sink: a policy for the case that the sink is slow.

``wait``: the run waits for the sink. ``queueDrop``: up to `QUEUE` documents wait for the sink, the
oldest items are dropped for new ones. ``drop``: the same, but new items are dropped. What a sink
dropped it was not given; the loss table of the run does not count it, the health of the sinks does.
The start, the stop, failures and events of a run are never dropped.
"""

import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Literal

import structlog

from phasewatch.pipeline.batch import Batch
from phasewatch.pipeline.plugin import Sink

Policy = Literal["wait", "queueDrop", "drop"]
QUEUE = 64  # documents
log = structlog.get_logger(__name__)
CLOSE_S = 5.0  # what a slow sink has not taken by then, after the end of the run, is lost to it


class Outlet:
    """One sink, `name` in the log. Attribute `dropped`: items that it was not given."""

    def __init__(self, sink: Sink, policy: Policy, *, name: str = "") -> None:
        self.sink, self._policy, self._name = sink, policy, name
        self.dropped = 0
        self._calls: deque[tuple[int, Callable[[], None]]] = deque()  # items in it, what to do
        self._changed = threading.Condition()
        self._closing = False
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None
        if policy != "wait":
            self._thread = threading.Thread(target=self._serve, name="outlet", daemon=True)
            self._thread.start()

    def give(self, do: Callable[[Sink], None]) -> None:
        """Give the sink a document that is never dropped; raises what the sink raised."""
        self._put(0, partial(do, self.sink))

    def batch(self, batch: Batch) -> None:
        """Give the sink items; raises what the sink raised."""
        self._put(len(batch), partial(self.sink.batch, batch))

    def close(self) -> None:
        """Let the sink take what waits, for at most `CLOSE_S`, and close it."""
        if self._thread is not None:
            with self._changed:
                self._closing = True
                self._changed.notify_all()
            self._thread.join(CLOSE_S)
            hangs = self._thread.is_alive()  # in the sink, which nobody else may touch now
            with self._changed:
                self.dropped += sum(n for n, _ in self._calls)
                self._calls.clear()
            if self.dropped or hangs:
                what = {"sink": self._name, "items": self.dropped, "hangs": hangs}
                log.warning("a sink was slow and missed items", policy=self._policy, **what)
            if hangs:
                return
        self.sink.close()
        self._raise()

    def _put(self, n: int, call: Callable[[], None]) -> None:
        if self._thread is None:
            call()
            return
        self._raise()
        with self._changed:
            if n and sum(1 for size, _ in self._calls if size) >= QUEUE:
                if self._policy == "drop":
                    self.dropped += n
                    return
                oldest = next(i for i, (size, _) in enumerate(self._calls) if size)
                self.dropped += self._calls[oldest][0]
                del self._calls[oldest]
            self._calls.append((n, call))
            self._changed.notify_all()

    def _raise(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _serve(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._calls or self._closing)
                if not self._calls:
                    return
                _, call = self._calls.popleft()
            try:
                call()
            except Exception as error:  # raised where the next document is given
                self._error = error
                return
