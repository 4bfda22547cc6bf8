"""Starts the processes of a run and ends them; none is left behind."""

import os
import subprocess
import sys
from collections.abc import Sequence

DEBUG = "PHASEWATCH_DEBUG"  # in the environment: errors in children with their traceback


class Children:
    """The processes of a run by role."""

    def __init__(self, roles: Sequence[str], address: str) -> None:
        # One thread each: the processes are the parallelism, and sums do not depend on a count.
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self._processes = {
            role: subprocess.Popen(
                [sys.executable, "-m", "phasewatch.pipeline.processes.worker", role, address],
                stdin=subprocess.PIPE,
                start_new_session=True,  # Ctrl-C is for the supervisor, which ends them
                env=environment,
            )
            for role in roles
        }

    @property
    def pids(self) -> dict[str, int]:
        """Process ids by role."""
        return {role: process.pid for role, process in self._processes.items()}

    def ended(self) -> dict[str, int]:
        """Return the exit codes of those that have ended."""
        codes = {role: process.poll() for role, process in self._processes.items()}
        return {role: code for role, code in codes.items() if code is not None}

    def end(self, *, grace_s: float) -> None:
        """Wait for each to end by itself, then make it."""
        for process in self._processes.values():
            try:
                process.wait(grace_s)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdin is not None:
                process.stdin.close()
        self._processes = {}
