"""Tries a configuration on the run that is going on, in a process of its own that disturbs nobody.

``python -m phasewatch.pipeline.processes.trial RING`` reads the configuration as JSON, builds the
stages that a run would build and starts them with what the source said of the present run. It ends
with 0 and the digests as JSON, or with 1 and one line that says what is wrong.
"""

import json
import subprocess
import sys
from contextlib import suppress
from typing import IO

from phasewatch.pipeline.build import (
    accelerated_stages,
    classify_stage,
    context_of,
    reduce_stages,
)
from phasewatch.pipeline.config import Config
from phasewatch.pipeline.documents import RunStart
from phasewatch.pipeline.processes.children import one_thread
from phasewatch.pipeline.processes.note import noted
from phasewatch.pipeline.stages.track import Track
from phasewatch.pipeline.transport.ring import Ring


class Trial:
    """A trial that is going on.

    Parameters
    ----------
    config
        What is tried.
    ring
        Descriptor of the shared memory of the run.
    """

    def __init__(self, config: Config, ring: int) -> None:
        self.config = config
        self._process = subprocess.Popen(
            [sys.executable, "-m", "phasewatch.pipeline.processes.trial", str(ring)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the supervisor
            env=one_thread(),
            pass_fds=(ring,),
            text=True,
        )
        with suppress(OSError), _pipe(self._process.stdin) as stdin:  # `result` says how it ended
            stdin.write(config.model_dump_json())

    @property
    def over(self) -> bool:
        """Whether there is a result."""
        return self._process.poll() is not None

    def result(self) -> tuple[dict[str, str], str]:
        """Return the digests, and what is wrong with the configuration (empty: nothing)."""
        with _pipe(self._process.stdout) as stdout:
            said = stdout.read().strip()
        if self._process.wait() == 0:
            return dict(json.loads(said)), ""
        return {}, said or f"the trial ended unexpectedly (exit code {self._process.returncode})"

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        _pipe(self._process.stdout).close()


def try_out(config: Config, run: RunStart) -> RunStart:
    """Return what the chain of `config` makes of `run`.

    Raises
    ------
    ValueError
        One line that says why it cannot: a file, a shape, a card that does not match.
    """
    context_of(config)
    if config.reduce.torch_device is not None:
        stages = accelerated_stages(config, run)
    else:
        last = [] if config.classifier is None else [classify_stage(config)]
        stages = [*reduce_stages(config, run), *last]
    if config.classifier is not None:
        stages.append(Track(**config.track.model_dump()))
    for stage in stages:
        run = stage.start(run)
    return run


def main() -> int:
    """Try what comes on standard input."""
    try:
        config = Config.model_validate_json(sys.stdin.read())
        run = try_out(config, noted(Ring.attach(int(sys.argv[1]))))
    except (ValueError, OSError) as error:
        print(" ".join(str(error).split()))
        return 1
    print(json.dumps(run.digests))
    return 0


def _pipe(pipe: IO[str] | None) -> IO[str]:
    if pipe is None:
        raise RuntimeError("a trial without pipes")
    return pipe


if __name__ == "__main__":
    sys.exit(main())
