"""What a protocol of detector streams is made of: its feed, its decoder, and what that finds.

`phasewatch.plugins.sources.stream` makes a source of these.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from phasewatch.pipeline.documents import ItemSpec
from phasewatch.pipeline.messages import MessageError
from phasewatch.plugins.sources.trust import MAX_EXPECTED, check_item

INT64 = np.iinfo(np.int64)


class Feed(Protocol):
    """Where messages come from.

    A feed that knows more than whether messages come says so in a further attribute, ``state``, a
    few words such as "nobody answers": who waited in vain is told. One that can ask for messages
    again has ``go_on(run, n)``, called before `open` in a new process: begin after the first `n`
    items of `run`.

    Attributes
    ----------
    address
        For people; once open, with the port that was free.
    """

    address: str

    def open(self) -> None:
        """Connect; raises PipelineError."""

    def receive(self, timeout_ms: int) -> Any | None:
        """Return the next message, waiting at most `timeout_ms`; None where none came."""

    def close(self) -> None:
        """Let go of it; may be called twice, and before `open`."""


@dataclass(frozen=True, slots=True, eq=False)
class Began:
    """A run begins.

    Attributes
    ----------
    frame
        What each of its frames is like.
    series
        Tells one run from the next where the protocol does; "" is of any run.
    timed
        Whether each frame comes with its time; None: the first that comes says.
    facts
        Fields of `RunStart` that the protocol knows: ``expected``, ``wavelength_m``, ...
    settings
        What the decoder has to be told again where the run is resumed.
    """

    frame: ItemSpec
    series: str = ""
    timed: bool | None = False
    facts: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_item(self.frame, "frame")
        expected = self.facts.get("expected")
        if type(expected) is int and expected > MAX_EXPECTED:
            raise MessageError(f"{expected} items announced; at most {MAX_EXPECTED}")


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One frame, not yet decoded.

    Attributes
    ----------
    id
        Its number, in the facility's count.
    frame
        What it is like.
    write
        Writes it into an array (height, width) of that kind, or raises PipelineError.
    t_acq
        ns UTC, of the detector.
    """

    id: int
    frame: ItemSpec
    write: Callable[[NDArray[Any]], None]
    t_acq: int | None = None
    series: str = ""

    def __post_init__(self) -> None:
        _check_int64(self.id, "number")
        if self.t_acq is not None:
            _check_int64(self.t_acq, "time")


@dataclass(frozen=True, slots=True)
class Lost:
    """An item that is known to be, and cannot be had."""

    id: int
    error: str
    series: str = ""

    def __post_init__(self) -> None:
        _check_int64(self.id, "number")


@dataclass(frozen=True, slots=True)
class Ended:
    """The run is over."""

    series: str = ""


Found = Began | Frame | Lost | Ended


class Decoder(Protocol):
    """Knows a protocol; what it must remember between messages, it keeps.

    Where it has a method ``resume(run)``, that is called when it is to go on with a run that began
    in another process; the ``settings`` of its `Began` are in those of `run`.

    Where it has a method ``rest()``, that is called when nothing more will come, and gives, as a
    call does, what it still held back.
    """

    def __call__(self, message: Any) -> Iterable[Found]:
        """Say what is in `message`.

        Raises
        ------
        MessageError
            It is none of the protocol; a pydantic ValidationError, of an `ItemSpec`, says the same.
            PipelineError: nothing that follows can be used.
        """


def _check_int64(number: int, what: str) -> None:
    if type(number) is not int or not INT64.min <= number <= INT64.max:
        raise MessageError(f"{what} {number!r:.40}: not an integer of 64 bits")
