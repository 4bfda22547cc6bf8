"""Tries a configuration on the run that is going on, in a process of its own that disturbs nobody.

``python -m phasewatch.pipeline.processes.trial RING`` reads the configuration as a line of JSON,
builds the stages that a run would build and starts them with what the source said of the present
run. It ends with 0 and the digests as JSON, or with 1 and one line that says what is wrong; or with
3 as soon as its standard input is closed.
"""

import json
import os
import subprocess
import sys
import threading
from contextlib import suppress
from typing import IO

from pydantic import TypeAdapter

from phasewatch.pipeline.build import (
    accelerated_stages,
    classify_stage,
    reduce_stages,
    slots_of,
)
from phasewatch.pipeline.config import Config
from phasewatch.pipeline.documents import RunStart
from phasewatch.pipeline.errors import one_line
from phasewatch.pipeline.processes.children import one_thread
from phasewatch.pipeline.processes.note import noted
from phasewatch.pipeline.stages.track import Track
from phasewatch.pipeline.transport.ring import Ring

DIGESTS = TypeAdapter(dict[str, str])
END_S = 2.0  # that a killed process has


class Trial:
    """A trial that is going on; it ends when this process does.

    Parameters
    ----------
    config
        What is tried.
    ring
        Descriptor of the shared memory of the run.

    Raises
    ------
    OSError
        The process cannot be started.
    """

    def __init__(self, config: Config, ring: int) -> None:
        self.config = config
        line = config.model_dump_json().encode() + b"\n"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "phasewatch.pipeline.processes.trial", str(ring)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the supervisor
            env=one_thread(),
            pass_fds=(ring,),
        )
        self._stdin, self._stdout = _pipe(self._process.stdin), _pipe(self._process.stdout)
        with suppress(OSError):  # it has ended; `result` says how
            self._stdin.write(line)
            self._stdin.flush()

    @property
    def over(self) -> bool:
        """Whether there is a result."""
        return self._process.poll() is not None

    def result(self) -> tuple[dict[str, str], str]:
        """Return the digests, and what is wrong with the configuration (empty: nothing)."""
        said, code = self._stdout.read(), self._process.wait()
        self.close()
        text = said.decode(errors="replace").strip()
        if code == 0:
            with suppress(ValueError):
                return DIGESTS.validate_json(said), ""
            text = ""
        return {}, text or f"the trial ended unexpectedly (exit code {code})"

    def close(self) -> None:
        """End it."""
        self._process.kill()
        with suppress(subprocess.TimeoutExpired):  # in the kernel, at a file system that hangs
            self._process.wait(END_S)
        with suppress(OSError):  # what it has not read
            self._stdin.close()
        self._stdout.close()


def try_out(config: Config, run: RunStart) -> RunStart:
    """Return what the chain of `config` makes of `run`.

    Raises
    ------
    ValueError
        One line that says why it cannot: a file, a shape, a card that does not match.
    """
    slots_of(config, run.items)
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
    """Try what comes on standard input, a line; what a library prints is no part of the answer."""
    out = os.dup(1)
    os.dup2(2, 1)
    line = sys.stdin.buffer.readline()
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    try:
        config = Config.model_validate_json(line)
        run = try_out(config, noted(Ring.attach(int(sys.argv[1]))))
    except (ValueError, OSError) as error:
        os.write(out, one_line(error).encode(errors="replace"))
        return 1
    os.write(out, json.dumps(run.digests).encode())
    return 0


def _end_with_parent() -> None:
    while os.read(0, 1):
        continue
    os._exit(3)


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    if pipe is None:
        raise RuntimeError("a trial without pipes")
    return pipe


if __name__ == "__main__":
    sys.exit(main())
