"""Messages of one stream of ASAP::O, in order of their ids, through the facility's own client.

Messages of a stream are numbered 1, 2, 3, ...; they are asked for by number, so that none is
skipped, none is taken from another consumer, and a new process goes on where the old one was. In a
consumer group (`group`) the server hands each message to one member of the group only, in whatever
order they are there, and remembers which it has handed out.

Errors of the client, as its documentation has them: AsapoEndOfStreamError, nothing yet;
AsapoStreamFinishedError, the end; AsapoNoDataError and AsapoPartialDataError, a message or a part
of it is not there although later ones are; AsapoUnavailableServiceError, the server is gone.

Tested with asapo-consumer 25.3.0 against a fake server object only.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from phasewatch.pipeline.documents import RunStart
from phasewatch.pipeline.errors import PipelineError, one_line
from phasewatch.pipeline.messages import LIMITS
from phasewatch.plugins.sources.asapo_messages import (
    MAX_PARTS,
    Finished,
    Message,
    Missing,
    Part,
    lacking,
    substream,
)

PATIENCE_S = 5.0  # for a message, or a part of one, when there are later ones
GIVE_UP_S = 60.0  # a server that does not answer
BACK_OFF_S = (0.5, 8.0)  # first and longest time between two tries

_log = structlog.get_logger(__name__)


def package() -> Any:
    """Return the package ``asapo_consumer``; raises PipelineError that says how to get it."""
    try:
        import asapo_consumer
    except ImportError:
        raise PipelineError("source asapo: pip install 'phasewatch[asapo]'") from None
    return asapo_consumer


class Patience:
    """Says of a message that is not there whether it has been waited for long enough.

    That counts from when the stream was seen to be as long: where a part of all messages is
    missing, only the first is waited for.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._marks: deque[tuple[float, int]] = deque()  # when, and how long the stream was then

    def over(self, number: int, size: int) -> bool:
        """Tell it of the message `number`, when the stream has `size` of them."""
        now = self._clock()
        if not self._marks or max(size, number) > self._marks[-1][1]:
            self._marks.append((now, max(size, number)))
        while self._marks[0][1] < number:
            self._marks.popleft()
        return now - self._marks[0][0] >= PATIENCE_S


class AsapoFeed:
    """Feed of the messages of `stream`.

    Parameters
    ----------
    address
        Of the server, for people.
    connect
        Returns the consumer, an object like ``asapo_consumer.create_consumer`` gives, with a
        timeout of at most 0.1 s: that is how long `receive` waits.
    datasets
        Messages are data sets.
    with_data
        Bring the bytes of the messages too.
    secret
        The token: is cut out of every text of an error.
    """

    def __init__(
        self,
        address: str,
        connect: Callable[[], Any],
        stream: str,
        *,
        group: str | None = None,
        datasets: bool = False,
        with_data: bool = True,
        secret: str = "",
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self.address = address
        self._connect, self._stream, self._group = connect, stream, group
        self._datasets, self._with_data, self._secret = datasets, with_data, secret
        self._clock, self._wait = clock, wait
        self._consumer: Any = None
        self._next: int | None = None if group else 1
        self._patience = Patience(clock)
        self._away_since: float | None = None
        self._retry_at = self._delay = 0.0
        self._finished = self._said = False

    def open(self) -> None:
        """Make the consumer; the server is not asked for anything yet."""
        asapo = package()
        try:
            self._consumer = self._connect()
        except asapo.AsapoConsumerError as error:
            raise PipelineError(f"asapo:{self.address}: {self._text(error)}") from None

    def go_on(self, run: RunStart, n: int) -> None:
        """Begin after the first `n` messages of `run`; a group's next the server knows."""
        if self._group is None:
            self._next = n + 1

    def close(self) -> None:
        """Let go of the consumer."""
        self._consumer = None

    def receive(self, timeout_ms: int) -> Message | Missing | Finished | None:
        """Return what is next; None where nothing came in the time that the consumer waits.

        Raises
        ------
        PipelineError
            The server refuses us, or has not answered for 60 s, or the stream was over before.
        """
        if self._consumer is None:
            return None
        if self._finished:
            raise PipelineError(
                f"asapo:{self.address}: stream {self._stream} is finished, without a message that "
                f"can be used" + (f" by group {self._group}" if self._group else "")
            )
        if (away := self._retry_at - self._clock()) > 0:
            self._wait(min(timeout_ms / 1000, away))
            return None
        asapo = package()
        try:
            found = self._ask(asapo)
        except asapo.AsapoUnavailableServiceError as error:
            self._back_off(error)
            return None
        except (asapo.AsapoWrongInputError, asapo.AsapoUnsupportedClientError) as error:
            raise PipelineError(f"asapo:{self.address}: {self._text(error)}") from None
        except asapo.AsapoConsumerError as error:
            self._back_off(error)
            return None
        if self._away_since is not None:
            _log.info("the server is back", address=self.address)
            self._away_since = None
        return found

    def _ask(self, asapo: Any) -> Message | Missing | Finished | None:
        try:
            number, metas = self._metas()
        except asapo.AsapoStreamFinishedError as error:
            self._finished = True
            following = str(getattr(error, "next_stream", "") or "")
            _log.info("the stream is finished", stream=self._stream, next=following)
            return Finished(following)
        except asapo.AsapoEndOfStreamError:
            self._say_what_there_is(asapo)
            return None
        except asapo.AsapoPartialDataError as error:
            number = self._number(error.partial_data.get("id"))
            return self._late(number, lacking(number, error.partial_data))
        except asapo.AsapoNoDataError as error:
            if self._next is None and type(getattr(error, "id", None)) is not int:
                return None
            number = self._number(getattr(error, "id", None))
            return self._late(number, f"message {number} is not there, later ones are")
        self._said = True
        self._next = number  # in a group too: it is asked for again where the server goes now
        found: Message | Missing
        try:
            found = Message(number, tuple(Part(meta, self._data(meta)) for meta in metas))
        except (asapo.AsapoLocalIOError, asapo.AsapoDataNotInCacheError) as error:
            found = Missing(number, f"message {number}: {self._text(error)}")
        except PipelineError as error:
            found = Missing(number, f"message {number}: {error}")
        self._done(number)
        return found

    def _metas(self) -> tuple[int, list[dict[str, Any]]]:
        """Return number and parts of the next message."""
        ask, stream = self._consumer, self._stream
        if self._datasets:
            if self._next is None:
                found = ask.get_next_dataset(self._group, stream=stream, ordered=False)
            else:
                found = ask.get_dataset_by_id(self._next, stream=stream)
            metas = sorted(found["content"], key=substream)
            return self._number(found.get("id")), metas[: MAX_PARTS + 1]
        if self._next is None:
            _, meta = ask.get_next(self._group, meta_only=True, stream=stream, ordered=False)
        else:
            _, meta = ask.get_by_id(self._next, meta_only=True, stream=stream)
        return self._number(meta.get("_id")), [meta]

    def _number(self, claimed: Any) -> int:
        """Return the number of what came: what was asked for, in a group what the server says."""
        if self._next is not None:
            return self._next
        if type(claimed) is not int or claimed < 1:
            raise PipelineError(f"asapo:{self.address}: a message of id {claimed!r:.40}")
        return claimed

    def _data(self, meta: Mapping[str, Any]) -> NDArray[np.uint8] | None:
        if not self._with_data:
            return None
        size = meta.get("size")
        if type(size) is not int or not 0 < size <= LIMITS.array_bytes:
            raise PipelineError(f"size {size!r:.40}, at most {LIMITS.array_bytes} bytes are taken")
        return np.frombuffer(self._consumer.retrieve_data(meta), np.uint8)

    def _done(self, number: int) -> None:
        self._next = None if self._group else number + 1

    def _late(self, number: int, error: str) -> Missing | None:
        """Wait for the message `number`, or give it up."""
        self._said = True
        self._next = number  # in a group too, which is handed it once only
        size = int(self._consumer.get_current_size(stream=self._stream))
        if not self._patience.over(number, size):
            return None
        self._done(number)
        return Missing(number, error)

    def _back_off(self, error: Exception) -> None:
        now, text = self._clock(), self._text(error)
        if self._away_since is None:
            self._away_since, self._delay = now, BACK_OFF_S[0]
            _log.warning("the server does not answer", address=self.address, error=text)
        elif now - self._away_since > GIVE_UP_S:
            raise PipelineError(f"asapo:{self.address}: no answer for {GIVE_UP_S:g} s: {text}")
        else:
            self._delay = min(2 * self._delay, BACK_OFF_S[1])
        self._retry_at = now + self._delay

    def _say_what_there_is(self, asapo: Any) -> None:
        """Tell once, where nothing has come yet, which streams there are."""
        if self._said:
            return
        self._said = True
        try:
            found = self._consumer.get_stream_list("", "all", detailed=False)
        except asapo.AsapoConsumerError:
            return
        names = [str(info.get("name")) for info in found]
        _log.info("no message yet", stream=self._stream, streams=names[-20:], of=len(names))

    def _text(self, error: Exception) -> str:
        text = one_line(error)
        return text.replace(self._secret, "***") if self._secret else text
