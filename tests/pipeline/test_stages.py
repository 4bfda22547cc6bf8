"""Stages and the chain: one bad item does not take its neighbours along."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phasewatch.calibration import Calibration, CalibrationError
from phasewatch.calibration.poni import read_poni
from phasewatch.pipeline.batch import Batch, concatenate
from phasewatch.pipeline.chain import Chain
from phasewatch.pipeline.documents import ItemSpec, RunStart
from phasewatch.pipeline.errors import PipelineError
from phasewatch.pipeline.stage import Conform, conform, isolate
from phasewatch.pipeline.stages.integrate import Integrate
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


PONI = """poni_version: 2
Detector: Detector
Detector_config: {"pixel1": 1e-4, "pixel2": 1e-4}
Distance: 0.1
Poni1: 0.001
Poni2: -0.002
Rot1: 0
Rot2: 0
Rot3: 0
Wavelength: 4.836e-11
"""


@pytest.mark.parametrize("method", ["none", "minmax", "area", "monitor"])
def test_a_variance_follows_its_pattern(tmp_path: Path, method: str) -> None:
    (tmp_path / "a.poni").write_text(PONI)
    calibration = Calibration.load(tmp_path / "a.poni")
    run = RunStart(
        run_id="r",
        source="test",
        items={"frame": ItemSpec.of((30, 40), "u2"), "monitor": ItemSpec.of((), "f8")},
    )
    frames = np.random.default_rng(0).poisson(3, (5, 30, 40)).astype(np.uint16)
    arrays = {"frame": frames, "monitor": np.arange(2.0, 7.0)}
    batch = Batch(np.arange(5), np.arange(5), None, arrays)

    def chain(**options: bool) -> Chain:
        integrate = Integrate(calibration, n_bins=20, split="bbox", **options)
        return Chain([integrate, Baseline(lam=1e3), Normalise(method)])

    plain, with_variance = chain(), chain(variance=True)
    start, out = with_variance.start(run), with_variance.process(batch)

    assert "variance" not in plain.start(run).items
    assert start.items["variance"] == start.items["intensity"]
    assert start.settings["integrate"]["variance"] == "poisson"
    conform(start, out)
    same = plain.process(batch).arrays["intensity"]
    np.testing.assert_array_equal(out.arrays["intensity"], same)
    integrate = Integrate(calibration, n_bins=20, split="bbox", variance=True)
    before = Chain([integrate])
    before.start(run)
    raw = before.process(batch).arrays
    lost = Chain([Baseline(lam=1e3)])
    lost.start(RUN.evolve(items={"intensity": ItemSpec.of((20,), "f4")}))
    flat = lost.process(batch.with_arrays(drop=("frame",), intensity=raw["intensity"]))
    # two bins of a pattern say by how much it was divided
    step = np.ptp(flat.arrays["intensity"][:, 3:5], axis=1) / np.ptp(same[:, 3:5], axis=1)
    expected = raw["variance"] / step[:, None] ** 2
    np.testing.assert_allclose(out.arrays["variance"], expected, rtol=1e-3)
    assert (out.arrays["variance"] > 0).all()


def test_a_geometry_that_was_read_is_what_integrates(tmp_path: Path) -> None:
    (tmp_path / "a.poni").write_text(PONI)
    calibration = Calibration(read_poni(tmp_path / "a.poni"), 4.836e-11)
    run = RunStart(run_id="r", source="t", items={"frame": ItemSpec.of((30, 40), "u2")})
    with pytest.raises(PipelineError, match="the source says 5e-11 m"):
        Integrate(calibration, n_bins=20).start(run.evolve(wavelength_m=5e-11))
    with pytest.raises(PipelineError, match="integrate: the run carries intensity, not frame"):
        Integrate(calibration, n_bins=20).start(RUN)
