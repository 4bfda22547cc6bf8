"""What a load is, as its processes read it: a folder with ``load.json`` and two sockets.

``announce``: the generator pushes blocks of items, each a row of four int64 (`ROW`); an empty
message ends the load. ``back``: source and sink push to the generator: `GO` (the chain listens),
`DONE` (the end was read), or the ids of answered items as raw int64.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from phasewatch.bench.load.schedule import offsets
from phasewatch.pipeline.errors import PipelineError

ROW = ("id", "due", "index", "sent")
GO, DONE, END = b"go", b"done", b""
LOAD, TIMES = "load.json", "times.npy"
Scenario = Literal["single-stream", "server", "offline"]


@dataclass(frozen=True, slots=True)
class Load:
    """A load: how many items, when.

    Attributes
    ----------
    n
        Items; item k is item ``k % stored`` of the store.
    rate_hz
        Of ``server``; else not used.
    at_once
        Items that the source hands on together at most, where so many are due.
    """

    scenario: Scenario
    n: int
    store: str
    stored: int
    at_once: int
    rate_hz: float = 0.0
    poisson: bool = False
    seed: int = 0

    def offsets(self) -> NDArray[np.int64]:
        """Return when each item is due after the first, (n,) ns; ``single-stream``: unknown, 0."""
        rate = self.rate_hz if self.scenario == "server" else float("inf")
        return offsets(self.n, rate_hz=rate, poisson=self.poisson, seed=self.seed)

    def write(self, folder: Path) -> None:
        """Make `folder` that of this load."""
        folder.mkdir(parents=True)
        (folder / LOAD).write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> "Load":
        """Return the load of `folder`.

        Raises
        ------
        PipelineError
            It is not the folder of a load.
        """
        try:
            return cls(**json.loads((folder / LOAD).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise PipelineError(f"{folder / LOAD}: not a load ({error})") from None


def address(folder: Path, socket: Literal["announce", "back"]) -> str:
    """Return where `socket` of the load in `folder` is."""
    return f"ipc://{folder}/{socket}"
