"""``lambda-nexus:PATH``: the frames of a LAMBDA detector, assembled from its modules' files.

Of an archived run the numbers of all files are read at the start. With ``follow`` the run may still
be being written, or not have begun.
"""

import hashlib
from collections.abc import Callable, Iterator
from typing import Annotated

import structlog
from pydantic import Field

from phasewatch.pipeline.batch import Batch, Failure
from phasewatch.pipeline.documents import Packing, RunStart
from phasewatch.pipeline.errors import PipelineError
from phasewatch.pipeline.plugin import Source
from phasewatch.plugins.sources.frames import Allocate
from phasewatch.plugins.sources.items import check_same
from phasewatch.plugins.sources.lambda_assembly import Assembly
from phasewatch.plugins.sources.lambda_files import PartFile, RunFiles, find_run, read_part
from phasewatch.plugins.sources.lambda_follow import LambdaFollow
from phasewatch.plugins.sources.lambda_index import Held, check_alike, index_frames, short
from phasewatch.plugins.sources.lambda_listing import Folder

_log = structlog.get_logger(__name__)


def open_source(
    target: str,
    *,
    modules: Annotated[int, Field(ge=1)] | None = None,
    follow: bool = False,
    idle_timeout_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None,
) -> Source:
    """Open a run.

    Parameters
    ----------
    target
        The folder of the run, one of its files, or its folder and prefix (``/data/RUN``).
    modules
        Number of modules of the detector; another number is refused. Without it a run that lacks
        the files of its highest modules looks like one of a smaller detector, whose frame has
        another size and origin; ``[calibration] shape`` catches that too.
    follow
        Give frames while the files are being written, from the first one on; needs `modules`.
    idle_timeout_s
        With `follow`: end the run when no file changed for so long, an error where it had not
        begun; None waits for ever, unless the planned number of frames is in the files.
    """
    if not follow:
        if idle_timeout_s is not None:
            raise PipelineError("[source] idle_timeout_s: only with follow = true")
        return LambdaNexus(target, modules)
    if modules is None:
        raise PipelineError(
            "[source] follow needs modules: how many are still to come no file says; "
            "modules = 3 for a LAMBDA 2M"
        )
    return LambdaFollow(f"lambda-nexus:{target}", Folder(target), modules, idle_timeout_s)


class LambdaNexus:
    """Source of the assembled frames of one archived run."""

    def __init__(self, target: str, modules: int | None = None) -> None:
        self._target = target
        self._modules = modules
        self._first = 0
        self._assembly: Assembly | None = None

    def start(self) -> RunStart:
        """Read what all files of the run say of themselves."""
        files = find_run(self._target, modules=self._modules)
        parts, problems = _read_parts(files)
        heads = []
        for module in files.modules:
            own = [part for (m, _), part in parts.items() if m == module]
            if not own:
                raise PipelineError(f"module {module}: {problems[module, files.parts[0]]}")
            heads.append(own[0])
        index = index_frames(parts, files.modules)
        self._held = Held(files.modules, parts, problems, files.paths, index)
        self._assembly = made = Assembly(heads)
        return RunStart(
            run_id=files.name[:128],
            source=f"lambda-nexus:{self._target}",
            items={"frame": made.spec},
            saturation=made.saturation,
            expected=max([len(index.numbers), *(h.planned for h in heads)]),
            digests={"sequence_numbers": hashlib.sha256(index.numbers.tobytes()).hexdigest()},
            constants={"mask": made.mask},
        )

    def resume(self, run: RunStart, n: int) -> None:
        """Go on with `run` after its first `n` frames."""
        check_same(run, self.start())
        self._first = n

    def lend(self, allocate: Allocate) -> None:
        """Assemble the frames in the memory that `allocate` gives."""
        self._started().lend(allocate)

    def pack(self, wanted: Callable[[], bool]) -> Packing | None:
        """Give the chunks of the modules along while they are wanted, if all are of one kind."""
        return self._started().pack(wanted, list(self._held.parts.values()))

    def __iter__(self) -> Iterator[Batch | Failure | None]:
        """Yield the frames in the order of the sequence numbers."""
        yield from self._started().frames(self._held, self._first, len(self._held.index.numbers))
        self.close()

    def close(self) -> None:
        """Close what is open."""
        if self._assembly is not None:
            self._assembly.close()

    def _started(self) -> Assembly:
        assert self._assembly is not None, "start comes first"
        return self._assembly


def _read_parts(
    files: RunFiles,
) -> tuple[dict[tuple[int, int], PartFile], dict[tuple[int, int], str]]:
    """Return the parts that can be read, and why the others cannot."""
    parts: dict[tuple[int, int], PartFile] = {}
    problems: dict[tuple[int, int], str] = {}
    first: dict[int, PartFile] = {}
    for key, path in sorted(files.paths.items()):
        try:
            part = read_part(path)
            check_alike(part, first.setdefault(key[0], part))
            parts[key] = part
            if part.rows < len(part.numbers):
                _log.warning(short(part))
        except PipelineError as error:
            problems[key] = str(error)
            _log.warning(f"module {key[0]} missing: {error}")
    return parts, problems
