"""Our chain against the loop that a user would write, in one run, taking turns.

The loop: pyFAI's `integrate1d` with the method that is fastest for this detector here (every CPU
method is tried, the three fastest in turns), pybaselines' asls, the same network eagerly in torch;
one process, all libraries with as many threads as they like, on the same items from the same
memory. Patterns leave out the first step. Throughput is the median over rounds of the items per
second, ours under ``offline``; latency is the p90 of one item at a time (``single-stream``), the
loop's being the time of one turn.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter_ns
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phasewatch.bench.load.latency import latencies, percentiles, rate_hz
from phasewatch.bench.load.report import report
from phasewatch.bench.load.session import Finding, Session, finding_of
from phasewatch.bench.load.store import read_store
from phasewatch.bench.load.verdict import judge
from phasewatch.bench.measure import interleaved, median_ms
from phasewatch.calibration.calibration import Calibration
from phasewatch.pipeline.batch import Batch
from phasewatch.pipeline.build import reduce_stages
from phasewatch.pipeline.chain import Chain
from phasewatch.pipeline.config import Config
from phasewatch.pipeline.documents import RunStart
from phasewatch.pipeline.errors import PipelineError

FINAL_ROUNDS, FINAL_S = 15, 4.0
Step = Callable[[NDArray[Any]], NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Loop:
    """The user's loop: what it is, its steps, and how far its patterns are from ours.

    `clean` makes a pattern of counts or intensity, `forward` logits of a pattern; `deviation` is
    the largest difference to what our reducer gives, where patterns go from 0 to 1.
    """

    what: str
    clean: Step
    forward: Step | None
    deviation: float

    def turn(self, item: NDArray[Any]) -> NDArray[Any]:
        """Do what the user's loop does with one item."""
        pattern = self.clean(item)
        return pattern if self.forward is None else self.forward(pattern[None])


def user_loop(config: Config, session: Session) -> Loop:
    """Write the loop that does what `config` asks for.

    Raises
    ------
    PipelineError
        The configuration asks for what the loop does not do.
    """
    from pybaselines import Baseline

    from phasewatch.models.fresh import plain_forward

    if config.reduce.normalise != "minmax" or config.reduce.baseline.method != "asls":
        raise PipelineError("compare: only with baseline asls and normalise minmax")
    store = read_store(session.workload.store)
    name, integrate = "patterns", None
    if "frame" in store.arrays:
        name, integrate = fastest(config, store.arrays["frame"][0], store.run)
    settings = config.reduce.baseline.settings()
    # tol=0 makes all the solutions; pybaselines counts them from 0
    asls = {"lam": settings["lam"], "p": settings["p"], "max_iter": settings["n_iter"] - 1}
    fitter = Baseline()
    model = config.classifier.model if config.classifier else None
    forward = plain_forward(model) if model is not None else None

    def clean(item: NDArray[Any]) -> NDArray[Any]:
        pattern = item if integrate is None else integrate(item)
        flat = pattern - fitter.asls(pattern, tol=0, **asls)[0]
        low, high = flat.min(), flat.max()
        return np.asarray((flat - low) / (high - low), np.float32)

    chain = Chain(reduce_stages(config, store.run))
    chain.start(store.run)
    zero = np.zeros(1, np.int64)
    first = {key: array[:1] for key, array in store.arrays.items()}
    ours = chain.process(Batch(seq=zero, ids=zero, arrays=first)).arrays["intensity"][0]
    deviation = float(np.nanmax(np.abs(clean(next(iter(first.values()))[0]) - ours)))
    steps = ["pyFAI integrate1d " + name] if integrate else []
    steps += ["pybaselines asls", "min-max"] + (["torch, eager"] if forward else [])
    return Loop(", ".join(steps), clean, forward, deviation)


def fastest(config: Config, frame: NDArray[Any], run: RunStart) -> tuple[str, Step]:
    """Return pyFAI's fastest CPU method for `frame` (height, width), by name, and a call of it."""
    from pyFAI.method_registry import IntegrationMethod

    from phasewatch.calibration.reference import azimuthal_integrator, single

    if config.calibration is None or config.reduce.n_bins is None:
        raise PipelineError("compare: frames need [calibration] poni and [reduce] n_bins")
    keys = config.calibration.model_dump()
    reduce = config.reduce
    calibration = Calibration.load(keys.pop("poni"), **keys, polarization=reduce.polarization)
    calibration = calibration.with_detector(
        shape=(frame.shape[0], frame.shape[1]),
        mask=run.constants.get("mask"),
        saturation=run.saturation,
    )
    ai = azimuthal_integrator(calibration)
    options = {
        "unit": reduce.unit,
        "radial_range": reduce.range,
        "mask": np.array(calibration.mask),
        "polarization_factor": reduce.polarization,
        "dark": single(calibration.dark),
        "flat": single(calibration.flat),
        # How pyFAI leaves saturated pixels out: a mask per frame would make it plan anew.
        "dummy": calibration.saturation,
        "delta_dummy": None if calibration.saturation is None else 0.5,
    }

    def with_method(method: IntegrationMethod) -> Step:
        return lambda counts: np.asarray(
            ai.integrate1d(counts, reduce.n_bins, method=method, **options).intensity
        )

    calls, took = {}, {}
    for method in IntegrationMethod.select_method(1, reduce.split, "*", "*", degradable=False):
        if method.impl_lower == "opencl" and "CPU" not in str(method.target_name).upper():
            continue
        name, call = f"{method.algo_lower} {method.impl_lower}", with_method(method)
        call(frame)  # makes its plan
        calls[name], took[name] = call, min(_timed(call, frame) for _ in range(3))
    if not calls:
        raise PipelineError(f"compare: pyFAI has no CPU method for split {reduce.split!r}")
    final = {name: partial(calls[name], frame) for name in sorted(took, key=took.__getitem__)[:3]}
    samples = interleaved(final, rounds=FINAL_ROUNDS, budget_s=FINAL_S)
    best = min(samples, key=lambda name: median_ms(samples[name]))
    return best, calls[best]


def compare(session: Session, *, frames: int, singles: int, turns: int, rounds: int) -> Finding:
    """Take turns: `turns` turns of the loop, `frames` items offline, `singles` one by one."""
    workload = session.workload
    session.tell("the user's loop: which method of pyFAI is fastest")
    loop = user_loop(workload.config, session)
    items = next(iter(read_store(workload.store).arrays.values()))
    loop.turn(items[0])
    theirs: list[NDArray[np.int64]] = []
    ours, single = [], []
    for i in range(rounds):
        session.tell(f"round {i + 1} of {rounds}: the loop ({loop.what})")
        theirs.append(
            np.array([_timed(loop.turn, items[k % len(items)]) for k in range(turns)], np.int64)
        )
        session.tell(f"round {i + 1} of {rounds}: the chain, {frames} at once")
        ours.append(session.chain(session.load("offline", frames)))
        session.tell(f"round {i + 1} of {rounds}: the chain, {singles} one by one")
        single.append(session.chain(session.load("single-stream", singles)))
    if error := next((m.error or "nothing came" for m in (*ours, *single) if not m.times), ""):
        raise PipelineError(f"compare: {error}")
    middle = sorted(ours, key=lambda m: rate_hz(m.times))[len(ours) // 2]
    null = session.null(middle.load)
    document, _ = report(middle, null, note=workload.note)
    rates = {
        "chain": [rate_hz(m.times) for m in ours],
        "loop": [len(t) / t.sum() * 1e9 for t in theirs],
    }
    one_at_a_time = {
        "chain": [percentiles(latencies(m.times))["p90"] for m in single],
        "loop": [percentiles(t)["p90"] for t in theirs],
    }
    verdicts = [judge(m.facts(None, None), shortest_s=0.0) for m in (*ours, *single)]
    bad = [v.reason for v in verdicts if not v.valid]
    document |= {
        "scenario": "compare",
        "verdict": "INVALID" if bad else "VALID",
        "reason": bad[0] if bad else f"{rounds} rounds of turns, medians",
        "loop": loop.what,
        "loop_deviation": loop.deviation,
        "ratio": {
            "throughput": _median(rates["chain"]) / _median(rates["loop"]),
            "latency": _median(one_at_a_time["loop"]) / _median(one_at_a_time["chain"]),
        },
        "throughput_hz": rates,
        "single_p90_ms": one_at_a_time,
    }
    found = finding_of(document, middle, null)
    return replace(found, more={"loop": {"turn": np.concatenate(theirs)}})


def _median(values: list[float]) -> float:
    return float(np.median(values))


def _timed(call: Step, item: NDArray[Any]) -> int:
    begin = perf_counter_ns()
    call(item)
    return perf_counter_ns() - begin
