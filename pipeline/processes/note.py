"""What the receiver keeps in the shared memory of the run: what the source said of it."""

from phasewatch.pipeline.documents import RunStart
from phasewatch.pipeline.messages import decode, encode_start
from phasewatch.pipeline.transport.ring import Ring


def note_of(run: RunStart) -> bytes:
    """Return `run` as bytes: the parts of its message, each with its length before it."""
    parts = encode_start(run)
    return b"".join(x for part in parts for x in (len(part).to_bytes(8, "little"), bytes(part)))


def noted(ring: Ring) -> RunStart:
    """Return the run that `ring` was laid out for."""
    parts, at = [], 0
    while at < len(ring.note):
        length = int.from_bytes(ring.note[at : at + 8], "little")
        parts.append(ring.note[at + 8 : at + 8 + length])
        at += 8 + length
    return decode(parts).run()
