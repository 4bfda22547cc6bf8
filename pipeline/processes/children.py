"""Starts the processes of a run and ends them; none is left behind."""

import os
import subprocess
import sys
from collections.abc import Sequence

DEBUG = "PHASEWATCH_DEBUG"  # in the environment: errors in children with their traceback
KEYS = "PHASEWATCH_KEYS"  # in the environment: the folder of keys for their tcp links


class Children:
    """The processes of a run by role; each inherits the shared memory `ring`."""

    def __init__(
        self, roles: Sequence[str], address: str, ring: int, *, keys: str | None = None
    ) -> None:
        self._address, self._ring, self._keys = address, ring, keys
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        for role in roles:
            self.start(role)

    def start(self, role: str) -> None:
        """Start `role`, in the place of the one that ended."""
        environment = one_thread()
        if self._keys is not None:
            environment[KEYS] = self._keys
        self._processes[role] = subprocess.Popen(
            [sys.executable, "-m", "phasewatch.pipeline.processes.worker", role, self._address],
            stdin=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the supervisor, which ends them
            env=environment,
            pass_fds=(self._ring,),
        )

    @property
    def pids(self) -> dict[str, int]:
        """Process ids by role."""
        return {role: process.pid for role, process in self._processes.items()}

    def ended(self) -> dict[str, int]:
        """Return the exit codes of those that have ended."""
        codes = {role: process.poll() for role, process in self._processes.items()}
        return {role: code for role, code in codes.items() if code is not None}

    def forget(self, role: str) -> None:
        """Let go of one that has ended."""
        process = self._processes.pop(role)
        if process.stdin is not None:
            process.stdin.close()

    def kill(self, role: str) -> None:
        """End `role` at once."""
        self._processes[role].kill()

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


def one_thread() -> dict[str, str]:
    """Return the environment of a process of a run.

    One thread each: the processes are the parallelism, and sums do not depend on a count.
    """
    return {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
