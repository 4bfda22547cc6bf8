"""Stages and the chain: one bad item does not take its neighbours along."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phasewatch.calibration import CalibrationError
from phasewatch.pipeline.batch import Batch, concatenate
from phasewatch.pipeline.chain import Chain
from phasewatch.pipeline.documents import ItemSpec, RunStart
from phasewatch.pipeline.errors import PipelineError
from phasewatch.pipeline.stage import Conform, conform, isolate
from phasewatch.pipeline.stages.reduce import Baseline, Normalise

RUN = RunStart(
    run_id="r",
    source="test",
    items={"intensity": ItemSpec.of((32,), "f4")},
    unit="2th_deg",
    constants={"axis": np.linspace(5, 15, 32)},
)


def patterns(n: int, seed: int = 0) -> Batch:
    rng = np.random.default_rng(seed)
    seq = np.arange(n)
    return Batch(seq, seq, None, {"intensity": rng.random((n, 32)).astype(np.float32)})


@given(st.integers(1, 20), st.sets(st.integers(0, 19)))
def test_bad_items_are_isolated(n: int, bad: set[int]) -> None:
    def process(batch: Batch) -> Batch:
        for seq in batch.seq.tolist():
            if seq in bad:
                raise ValueError(f"item {seq}\n is bad")
        return batch.with_arrays(double=batch.arrays["intensity"] * 2)

    good, failures = isolate("stage", process, patterns(n))
    failed = sorted(b for b in bad if b < n)
    assert [(f.seq, f.stage, f.error) for f in failures] == [
        (b, "stage", f"item {b} is bad") for b in failed
    ]
    left = [s for s in range(n) if s not in bad]
    assert (good.seq.tolist() if good else []) == left
    if good:
        np.testing.assert_array_equal(
            good.arrays["double"], patterns(n).arrays["intensity"][left] * 2
        )


def test_a_pattern_of_nan_is_a_failure_and_the_others_come_out_as_alone() -> None:
    chain = Chain([Baseline(lam=1e3), Normalise("minmax")])
    chain.start(RUN)
    alone = [chain.process(patterns(5).select(slice(i, i + 1))) for i in (0, 1, 3, 4)]
    batch = patterns(5)
    batch.arrays["intensity"][2] = np.nan
    good, failures = chain.process_isolated(batch)
    assert [(f.seq, f.stage) for f in failures] == [(2, "baseline")]
    assert good is not None
    expected = concatenate(alone).arrays["intensity"]
    assert good.arrays["intensity"].tobytes() == expected.tobytes()


def test_what_the_source_has_done_is_not_done_twice() -> None:
    chain = Chain([Baseline("asls", lam=1e3), Normalise("minmax")])
    done = {"baseline": {"method": "asls", "lam": 1e3}, "normalise": "minmax"}
    out = chain.start(RUN.evolve(settings=done))
    assert out.settings == done
    batch = patterns(2)
    assert chain.process(batch).arrays["intensity"] is batch.arrays["intensity"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"baseline": {"method": "snip"}}, r"\[reduce\] baseline: .*the source subtracted"),
        ({"normalise": "area"}, r"\[reduce\] normalise: minmax, but the source did area"),
    ],
)
def test_what_the_source_has_done_otherwise_is_refused(
    settings: dict[str, object], said: str
) -> None:
    with pytest.raises(PipelineError, match=said):
        Chain([Baseline("none"), Normalise("minmax")]).start(RUN.evolve(settings=settings))


def test_wrong_methods_are_refused_before_anything_runs() -> None:
    with pytest.raises(CalibrationError, match="'magic'"):
        Baseline("magic")
    with pytest.raises(CalibrationError, match="'lamb'"):
        Baseline("asls", lamb=1)
    with pytest.raises(PipelineError, match="'zscore'"):
        Normalise("zscore")
    with pytest.raises(PipelineError, match="no monitor"):
        Normalise("monitor").start(RUN)
    with pytest.raises(PipelineError, match="not intensity"):
        Normalise("minmax").start(RUN.evolve(items={"frame": ItemSpec.of((2, 2), "u2")}))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"drop": ("intensity",)}, "intensity is missing"),
        ({"other": np.zeros((2, 3))}, "other was not announced"),
        ({"intensity": np.zeros((2, 32))}, r"intensity is float64 \(32,\); the run began with f4"),
        ({"intensity": np.zeros((2, 31), np.float32)}, r"float32 \(31,\)"),
    ],
)
def test_a_batch_must_be_what_the_start_said(change: dict[str, object], said: str) -> None:
    conform(RUN, patterns(2))
    with pytest.raises(PipelineError, match=said):
        conform(RUN, patterns(2).with_arrays(**change))


def test_batches_refuse_columns_of_another_length() -> None:
    with pytest.raises(PipelineError, match="ids"):
        Batch(np.arange(2), np.arange(3))
    with pytest.raises(PipelineError, match="different arrays"):
        concatenate([patterns(1), patterns(1).with_arrays(more=np.zeros(1))])
    with pytest.raises(PipelineError, match="t_acq"):
        concatenate(
            [patterns(1), Batch(np.arange(1), np.arange(1), np.arange(1), patterns(1).arrays)]
        )


def test_times_come_with_all_items_or_with_none() -> None:
    check = Conform(RUN)
    check(patterns(1))
    with pytest.raises(PipelineError, match="t_acq came in the middle"):
        check(replace(patterns(1), t_acq=np.arange(1)))
    check(patterns(1))


def test_nothing_in_nothing_out() -> None:
    assert isolate("stage", lambda batch: batch, patterns(1).select(slice(0, 0))) == (None, [])
