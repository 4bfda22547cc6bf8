"""A LAMBDA run that is followed while its part files are written.

Frames come in the order of their sequence numbers, as soon as every module has them. One that a
module does not have is a `Failure` once that module has written later frames, or the run is over.
The run is over when the planned number of frames is there, when the listing says so, or when
nothing changed for `idle_timeout_s`.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import numpy as np
import structlog
from numpy.typing import NDArray

from phasewatch.pipeline.batch import Batch, Failure
from phasewatch.pipeline.documents import Packing, RunStart
from phasewatch.pipeline.errors import PipelineError, one_line
from phasewatch.plugins.sources.frames import Allocate
from phasewatch.plugins.sources.items import check_same
from phasewatch.plugins.sources.lambda_assembly import Assembly
from phasewatch.plugins.sources.lambda_files import PartFile
from phasewatch.plugins.sources.lambda_index import Held, index_frames
from phasewatch.plugins.sources.lambda_listing import Listing
from phasewatch.plugins.sources.lambda_watch import PartWatch

POLL_S = 0.5
LONGEST_S = 1.0  # between two looks, as far as idling and patience go
STEP_S = 0.1  # of waiting; a run can be stopped that often
WAITING_S = 3.0  # then a user is told what is waited for

_log = structlog.get_logger(__name__)


class LambdaFollow:
    """Source of the assembled frames of one run of `modules` modules, whose files `listing` knows.

    `label` is the URI. A file that is replaced by one of another run, or shrinks, ends it with an
    error. A frame that turns up after later ones were given is a `Failure` at that place.
    """

    def __init__(
        self,
        label: str,
        listing: Listing,
        modules: int,
        idle_timeout_s: float | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self._label, self._listing = label, listing
        self._idle_timeout_s = idle_timeout_s
        self._clock, self._wait = clock, wait
        self._time = 0.0  # of looking: where nobody looked, because frames had to wait, it stands
        self._watch = PartWatch(modules, lambda: self._time)
        self._assembly: Assembly | None = None
        self._name = ""
        self._looked = clock()
        self._trouble = ""
        self._moved, self._said = 0.0, False  # when frames were last given; who lags was said
        self._late: list[PartFile] = []
        self._given: list[NDArray[np.int64]] = []  # numbers that were decided
        self._last: int | None = None  # the highest of them
        self._count = self._first = 0

    def start(self) -> RunStart:
        """Wait until every module has written a frame."""
        try:
            return self._begin(self._wait_for_heads())
        except BaseException:
            self.close()
            raise

    def resume(self, run: RunStart, n: int) -> None:
        """Go on with `run` after its first `n` frames."""
        check_same(run, self.start())
        self._first = n

    def lend(self, allocate: Allocate) -> None:
        """Assemble the frames in the memory that `allocate` gives."""
        self._started().lend(allocate)

    def pack(self, wanted: Callable[[], bool]) -> Packing | None:
        """Give the chunks of the modules along while they are wanted, if all are of one kind."""
        return self._started().pack(wanted, list(self._watch.parts().values()))

    def __iter__(self) -> Iterator[Batch | Failure | None]:
        """Yield the frames in the order of the sequence numbers, until the run is over."""
        looked = True
        while True:
            if looked:
                over = self._over()
                yield from self._too_late()
                yield from self._frames(all_of_them=over)
                if over:
                    break
                self._say_who_lags()
            yield None
            looked = self._pause()
        self.close()

    def close(self) -> None:
        """Close what is open."""
        self._listing.close()
        if self._assembly is not None:
            self._assembly.close()

    def _wait_for_heads(self) -> dict[int, PartFile]:
        began, said = self._clock(), False
        while len(heads := self._watch.heads()) < len(self._watch.modules):
            over = self._listing.over and self._watch.at_rest()
            if over or self._idle():
                when = "before the stream was over" if over else f"in {self._idle_timeout_s} s"
                raise PipelineError(f"{self._label}: no run {when}: {self._waiting(heads)}")
            if not said and self._clock() - began > WAITING_S:
                _log.info("waiting for a run", source=self._label, state=self._waiting(heads))
                said = True
            self._pause()
        return heads

    def _begin(self, heads: Mapping[int, PartFile]) -> RunStart:
        self._assembly = made = Assembly([heads[m] for m in self._watch.modules])
        planned = max(part.planned for part in heads.values())
        if not planned and self._idle_timeout_s is None and not self._listing.over:
            _log.warning(
                "the files do not say how many frames are planned: without idle_timeout_s the run "
                "goes on until it is stopped",
                source=self._label,
            )
        return RunStart(
            run_id=self._name[:128],
            source=self._label[:4096],
            items={"frame": made.spec},
            saturation=made.saturation,
            expected=planned or None,
            digests={"first_frames": self._watch.first_frames()},
            constants={"mask": made.mask},
        )

    def _started(self) -> Assembly:
        assert self._assembly is not None, "start comes first"
        return self._assembly

    def _pause(self) -> bool:
        """Wait a little, and look at the files where it is time to; tell whether it was."""
        self._wait(STEP_S)
        since = self._clock() - self._looked
        if since < POLL_S:
            return False
        self._looked += since
        self._time += min(since, LONGEST_S)
        if self._assembly is not None:
            self._assembly.close()  # HDF5 shares what it knows of a file that is open already
        try:
            self._name, files = self._listing()
        except OSError as error:  # the network disk is away: it may come back
            if not self._trouble:
                _log.warning("cannot look now", source=self._label, error=one_line(error))
            self._trouble = one_line(error)
        else:
            self._trouble = ""
            self._late += self._watch.look(files)
        return True

    def _frames(self, *, all_of_them: bool) -> Iterator[Batch | Failure]:
        """Yield the frames up to which every module has come, or all that there are."""
        bound, last, watch = self._bound(), self._last, self._watch
        if bound is None or (last is not None and bound <= last and not all_of_them):
            return
        parts = {
            key: part
            for key, part in watch.parts().items()
            if last is None or (part.numbers > last).any()
        }
        index = index_frames(parts, watch.modules)
        held = Held(watch.modules, parts, watch.problems(), watch.paths(), index)
        first = 0 if last is None else int(np.searchsorted(index.numbers, last, "right"))
        stop = len(index.numbers)
        if not all_of_them:
            stop = int(np.searchsorted(index.numbers, bound, "right"))
        if first == stop:
            return
        begin = min(stop, first + max(0, self._first - self._count))
        shift = self._count - first
        self._count += stop - first
        self._moved, self._said = self._time, False
        self._last = int(index.numbers[stop - 1])
        self._given.append(index.numbers[first:stop])
        for item in self._started().frames(held, begin, stop):
            if isinstance(item, Failure):
                yield replace(item, seq=item.seq + shift)
            else:
                yield replace(item, seq=item.seq + shift)

    def _too_late(self) -> Iterator[Failure]:
        """Yield a failure for each frame that was not known when later ones were given."""
        late, self._late = self._late, []
        for part in late:
            if self._last is None or not (numbers := part.numbers[part.numbers < self._last]).size:
                continue
            new = np.setdiff1d(numbers, np.concatenate(self._given))
            for number in new.tolist():
                error = f"frame {number}: file {part.path} came after frame {self._last} was given"
                if self._count >= self._first:  # else it was told before the receiver died
                    yield Failure(self._count, number, "source", error)
                self._count += 1
            self._given.append(new)

    def _bound(self) -> int | None:
        """Return the number up to which every module has come, None where one has nothing."""
        beyond = self._watch.beyond().values()
        known = [number for number in beyond if number is not None]
        return min(known) if len(known) == len(beyond) else None

    def _over(self) -> bool:
        """Tell whether no more is to come."""
        if self._idle():
            _log.warning("idle: the run is over", source=self._label)
            return True
        if self._listing.over and self._watch.at_rest():
            return True
        bound, parts = self._bound(), self._watch.parts().values()
        planned = max((part.planned for part in parts), default=0)
        if bound is None or not planned:
            return False
        numbers = np.unique(np.concatenate([part.numbers for part in parts]))
        numbers = numbers[(numbers >= 0) & (numbers <= bound)]
        # Numbers begin at 1, so the last is also told where one was lost by all modules.
        lowest = max(1, int(numbers.min(initial=bound)))
        return len(numbers) >= planned or bound - lowest + 1 >= planned

    def _say_who_lags(self) -> None:
        """Tell once, where no frames can be given, which modules have not written them."""
        beyond = {m: n for m, n in self._watch.beyond().items() if n is not None}
        behind = [m for m, n in beyond.items() if n < max(beyond.values())]
        if behind and not self._said and self._time - self._moved > WAITING_S:
            self._said = True
            _log.warning(
                "waiting for modules", source=self._label, modules=behind, after=self._last
            )

    def _idle(self) -> bool:
        quiet = self._time - self._watch.changed
        return self._idle_timeout_s is not None and quiet > self._idle_timeout_s

    def _waiting(self, heads: Mapping[int, PartFile]) -> str:
        """Say what is waited for."""
        if self._trouble:
            return self._trouble
        if not self._watch.paths():
            return "no file named RUN_m1_part00000.nxs or alike"
        module = next(m for m in self._watch.modules if m not in heads)
        own = (text for (m, _), text in self._watch.problems().items() if m == module)
        return f"module {module} has no frame yet: {next(own, 'its file is empty')}"
