"""One training, in a process of its own: ``python -m phasewatch.bench.contest.trial DATA OUT JOB``.

So the peak of memory is that of this training. It is the kernel's VmHWM of the whole process with
interpreter, libraries and data, counted anew when these are loaded, to the end of classifying;
`memory_before_mib` is what was resident at that moment. JOB is a `Job` as JSON; progress and the
result are lines of JSON on standard output, the answer is an ``.npz`` OUT.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, perf_counter_ns, process_time
from typing import Any, TextIO

import numpy as np

from phasewatch.bench.contest import hand_over
from phasewatch.bench.contest.contender import Answer, Contender
from phasewatch.bench.contest.data import Data
from phasewatch.bench.contest.jobs import CHANGE_POINTS, CLASSIFIERS, VARIANCE, Job
from phasewatch.bench.contest.metrics import judge
from phasewatch.pipeline.errors import PipelineError, one_line

WARM_UP = 3
TIMED = 100  # predictions, of one pattern each; the median counts
STATUS = Path("/proc/self/status")


def main(arguments: list[str]) -> int:
    """Run the job; return the exit code."""
    lines, sys.stdout = sys.stdout, sys.stderr  # libraries may print
    data = hand_over.read(Path(arguments[0]))
    job = Job(**json.loads(arguments[2]))
    try:
        run = sweep if job.name == VARIANCE else trial
        result, answer = run(data, job, lines)
    except ValueError as error:  # ModelError, PipelineError, and what libraries say of their input
        _say(lines, error=one_line(error))
        return 1
    np.savez(arguments[1], **answer)
    _say(lines, result=result)
    return 0


def trial(data: Data, job: Job, lines: TextIO) -> tuple[dict[str, Any], dict[str, Any]]:
    """Train, classify, and judge; return the figures and the arrays of the answer."""
    learn = _learner(data, job, lines)
    before = _restart_peak()
    begin, cpu = perf_counter(), process_time()
    contender = learn()
    trained, cpu_trained = perf_counter(), process_time()
    answer = contender.classify(data.test)
    if contender.one is None:  # it learns from the very series
        trained, cpu_trained = perf_counter(), process_time()
    result = {
        "n_parameters": contender.n_parameters,
        "training_s": trained - begin,
        "training_cpu_s": cpu_trained - cpu,
        "peak_memory_mib": _status_mib("VmHWM"),
        "memory_before_mib": before,
        "epochs": contender.epochs,
        **_judged(data, answer),
        "prediction_ms": _prediction_ms(contender, data, len(answer.index)),
        "notes": contender.notes,
    }
    arrays = {"index": answer.index, "label": answer.label}
    if answer.probability is not None:
        arrays["probability"] = np.asarray(answer.probability, np.float32)
    return result, arrays


def _learner(data: Data, job: Job, lines: TextIO) -> Callable[[], Contender]:
    """Import what `job` needs, so that neither time nor memory contains it; return the rest."""
    if job.name in CHANGE_POINTS:
        try:
            from phasewatch.bench.contest import changes
        except ImportError as error:
            raise PipelineError(f"{error}; pip install 'phasewatch[compare]'") from None
        return lambda: changes.learn(data, job.name)
    if job.name in CLASSIFIERS:
        from phasewatch.bench.contest import outside

        return lambda: outside.learn(data, job.name, seed=job.seed)
    from phasewatch.bench.contest import ours

    ours.prepare(data, job.name)

    def progress(done: int, total: int, loss: float | None = None) -> None:
        _say(lines, done=done, total=total)

    return lambda: ours.learn(
        data, job.name, recipe=job.recipe, seed=job.seed, options=job.options, progress=progress
    )


def sweep(data: Data, job: Job, lines: TextIO) -> tuple[dict[str, Any], dict[str, Any]]:
    """Cluster the series that is judged over explained variance (figure 3.7)."""
    from phasewatch.bench.contest.contender import usable, whole
    from phasewatch.models import spectral

    found = spectral.sweep(
        whole(data.test, usable(data.test)), n_classes=len(data.labels.classes), seed=job.seed
    )
    arrays = {key: getattr(found, key) for key in ("variance", "n_components", "confidence")}
    return {key: value.tolist() for key, value in arrays.items()}, arrays


def _judged(data: Data, answer: Answer) -> dict[str, Any]:
    return judge(
        answer.label,
        answer.probability,
        answer.index,
        n=len(data.test),
        n_classes=len(data.labels.classes),
        truth_index=data.truth_index,
        truth=data.truth,
        seen=data.seen,
        order=data.test.order,
    )


def _prediction_ms(contender: Contender, data: Data, n: int) -> float | None:
    """Return the median time of a call with one pattern, in order, on one thread."""
    if contender.one is None:
        return None
    call = contender.one(data.test)
    times = []
    for i in range(min(n, WARM_UP + TIMED)):
        begin = perf_counter_ns()
        call(i)
        times.append(perf_counter_ns() - begin)
    return float(np.median(times[min(WARM_UP, len(times) - 1) :])) / 1e6


def _restart_peak() -> float | None:
    """Let the kernel count the peak anew; return what is resident now, in MiB."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return None  # then the peak is that since the process began
    return _status_mib("VmRSS")


def _status_mib(field: str) -> float | None:
    try:
        lines = STATUS.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(x.split()[1]) / 1024 for x in lines if x.startswith(field + ":")), None)


def _say(lines: TextIO, **message: Any) -> None:
    print(json.dumps(message), file=lines, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
