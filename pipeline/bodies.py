"""The bodies of our messages: what each kind says, beside its arrays.

Unknown fields are refused, in the bodies as in the documents they carry.
"""

from typing import Annotated, Any, Literal

from pydantic import Field

from phasewatch.pipeline.batch import Failure
from phasewatch.pipeline.documents import Document, Event, Packing, RunStart, RunStop, Text

VERSION = 2
Columns = Annotated[tuple[Annotated[str, Field(max_length=64)], ...], Field(max_length=32)]
RunId = Annotated[str, Field(min_length=1, max_length=128)]


class StartBody(Document):
    """A run begins; `packing`: how frames will come to who can take them packed."""

    type: Literal["start"] = "start"
    run: RunStart
    packing: Packing | None = None


class BatchBody(Document):
    """Items of a run."""

    type: Literal["batch"] = "batch"
    run_id: RunId
    n: Annotated[int, Field(ge=0)]
    columns: Columns


class SlotsBody(Document):
    """Items of a run that lie in the ring from `slot` on; with them come only the columns."""

    type: Literal["slots"] = "slots"
    run_id: RunId
    slot: Annotated[int, Field(ge=0)]
    n: Annotated[int, Field(ge=1)]
    columns: Columns


class PackedBody(Document):
    """Items of a run, the frames as they came compressed.

    Tile k of frame i is the array ``packed/i/k`` (n_bytes,), |u1.
    """

    type: Literal["packed"] = "packed"
    run_id: RunId
    n: Annotated[int, Field(ge=1)]
    columns: Columns


class FailedBody(Document):
    """Items that could not be processed: (seq, id, stage, error)."""

    type: Literal["failed"] = "failed"
    run_id: RunId
    items: tuple[tuple[int, int, Text, Text], ...]

    def failures(self) -> list[Failure]:
        """Return the items as failures."""
        return [Failure(*item) for item in self.items]


class DroppedBody(Document):
    """Items that the receiver dropped: (seq, id), and why."""

    type: Literal["dropped"] = "dropped"
    run_id: RunId
    items: tuple[tuple[int, int], ...]
    reason: Text


class EventBody(Document):
    """Something that happened to the sample."""

    type: Literal["event"] = "event"
    run_id: RunId
    event: Event


class StopBody(Document):
    """A run is over; `aborted`: what has not ended by now never will."""

    type: Literal["stop"] = "stop"
    stop: RunStop
    aborted: bool = False


class ReportBody(Document):
    """All endings of a run up to `position`, the items among them (`n`) as arrays.

    With them comes, as the array ``state`` (bytes), what the tracker remembers at `position`: the
    sinks keep the last one for a tracker that has to go on from there.
    """

    type: Literal["report"] = "report"
    run_id: RunId
    position: Annotated[int, Field(ge=0)]
    n: Annotated[int, Field(ge=0)] = 0
    columns: Columns = ()
    failed: tuple[tuple[int, int, Text, Text], ...] = ()
    dropped: tuple[tuple[int, int, Text], ...] = ()
    events: tuple[Event, ...] = ()


class ResumeBody(Document):
    """To a tracker that begins: the sinks have all endings up to `position`; with ``state``.

    To a classifier that keeps the order: no item before `position` will come any more.
    """

    type: Literal["resume"] = "resume"
    run_id: RunId
    position: Annotated[int, Field(ge=0)]


class CreditBody(Document):
    """A worker asks for `n` more orders; `local`: it can read the ring of this host.

    `afresh`: what it asked for before does not count, it may have been lost. `codecs`: it unpacks
    what was compressed by one of these.
    """

    type: Literal["credit"] = "credit"
    n: Annotated[int, Field(ge=0, le=1024)]
    local: bool = True
    afresh: bool = False
    codecs: Annotated[tuple[Annotated[str, Field(max_length=32)], ...], Field(max_length=32)] = ()


class LeaveBody(Document):
    """A worker has done what it had, and goes."""

    type: Literal["leave"] = "leave"


class AckBody(Document):
    """The sinks have all endings with a smaller seq."""

    type: Literal["ack"] = "ack"
    run_id: RunId
    seq: Annotated[int, Field(ge=0)]


class ControlBody(Document):
    """A request, a reply or a report between the processes of a run, a user and the supervisor."""

    type: Literal["control"] = "control"
    what: Annotated[str, Field(max_length=32)]
    sender: Annotated[str, Field(max_length=64)] = ""
    data: dict[str, Any] = Field(default_factory=dict)


Body = (
    StartBody
    | BatchBody
    | SlotsBody
    | PackedBody
    | FailedBody
    | DroppedBody
    | EventBody
    | StopBody
    | ReportBody
    | ResumeBody
    | CreditBody
    | LeaveBody
    | AckBody
    | ControlBody
)


class Header(Document):
    """The first part of every message."""

    v: Literal[2] = 2
    body: Annotated[Body, Field(discriminator="type")]
    arrays: tuple[tuple[str, str, tuple[Annotated[int, Field(ge=0)], ...]], ...] = ()
