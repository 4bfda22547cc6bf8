"""Runs jobs, each in a process of its own, and tells how they go on."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from threading import Lock
from typing import Any

from phasewatch.bench.contest.jobs import Job

# Contenders on one core each are comparable, and processes side by side do not share pools.
ONE_THREAD = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL", "NUMBA")}

Tell = Callable[[Job, int, int], None]


class Runner:
    """Runs jobs; `close` ends those that are still running."""

    def __init__(self, files: dict[str, Path], answers: Path, *, at_once: int) -> None:
        self._files, self._answers, self._at_once = files, answers, at_once
        self._children: set[subprocess.Popen[str]] = set()
        self._lock = Lock()
        self._closed = False
        answers.mkdir(parents=True, exist_ok=True)

    def run(self, jobs: Sequence[Job], tell: Tell) -> Iterator[tuple[Job, dict[str, Any]]]:
        """Yield each job with its result, or with ``{"error": text}``, as they end.

        `tell` is called from other threads, with a job, its epochs done, and of how many.
        """
        with ThreadPoolExecutor(self._at_once) as pool:
            try:
                waiting = {pool.submit(self._one, job, tell): job for job in jobs}
                for future in as_completed(waiting):
                    yield waiting[future], future.result()
            finally:
                self.close()
                pool.shutdown(cancel_futures=True)

    def close(self) -> None:
        """End what is running."""
        with self._lock:
            self._closed = True
            for child in self._children:
                child.kill()

    def _one(self, job: Job, tell: Tell) -> dict[str, Any]:
        command = [sys.executable, "-m", "phasewatch.bench.contest.trial"]
        answer = self._answers / f"{job.slug}.npz"
        command += [str(self._files[job.data]), str(answer), json.dumps(asdict(job))]
        tell(job, 0, 0)
        with tempfile.TemporaryFile("w+") as errors:
            with self._lock:
                if self._closed:
                    return {"error": "stopped"}
                child = subprocess.Popen(
                    command,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    text=True,
                    env=os.environ | ONE_THREAD,
                )
                self._children.add(child)
            last: dict[str, Any] = {}
            with child:
                assert child.stdout is not None
                for line in child.stdout:
                    last = json.loads(line)
                    if "done" in last:
                        tell(job, last["done"], last["total"])
            with self._lock:
                self._children.discard(child)
            if "result" in last:
                result: dict[str, Any] = last["result"]
                return result
            errors.seek(0)
            said = [line.strip() for line in errors if line.strip()]
            why = last.get("error") or (said[-1] if said else f"exit code {child.returncode}")
            return {"error": why}
