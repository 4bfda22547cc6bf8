"""The source `simulate:`."""

import numpy as np
import pytest

from phasewatch.bench.source import SimulatedSource
from phasewatch.bench.twin.run import open_run
from phasewatch.pipeline import PipelineError
from phasewatch.pipeline.plugin import open_source


def test_frames():
    source = open_source("simulate:fe-ramp", seed=6, frames=3, layout="p022")
    start = source.start()
    assert start.expected == 3
    assert start.items["frame"].shape == (1833, 1556)
    assert start.items["frame"].dtype == "<i2"
    assert start.constants["mask"].shape == (1833, 1556)
    assert start.wavelength_m == pytest.approx(4.836e-11)
    assert start.saturation == 4095
    batches = list(source)
    assert [batch.seq.tolist() for batch in batches] == [[0], [1], [2]]
    assert [batch.ids.tolist() for batch in batches] == [[1], [2], [3]]
    assert all(batch.t_acq is None for batch in batches)
    run = open_run("fe-ramp", seed=6, frames=3, layout="p022")
    assert np.array_equal(batches[1].arrays["frame"][0], run.frame(1))


def test_patterns():
    source = open_source("simulate:fe-ramp", kind="patterns", frames=20)
    start = source.start()
    assert start.unit == "2th_deg"
    assert start.constants["axis"].shape == start.items["intensity"].shape
    batches = list(source)
    assert [len(batch) for batch in batches] == [16, 4]
    assert np.concatenate([batch.seq for batch in batches]).tolist() == list(range(20))
    assert batches[0].arrays["intensity"].dtype == np.float32


def test_another_experiment():
    start = open_source("simulate:D8", kind="patterns", frames=3).start()
    assert start.source == "simulate:D8"
    assert start.run_id == "D8-0"


def test_closing_ends_it():
    source = open_source("simulate:fe-ramp", kind="patterns", frames=40)
    source.start()
    batches = iter(source)
    next(batches)
    source.close()
    source.close()
    assert list(batches) == []


def test_unknown_kind_and_key_are_refused():
    with pytest.raises(PipelineError, match="'frames' or 'patterns'"):
        open_source("simulate:fe-ramp", kind="movies")
    with pytest.raises(PipelineError, match="unknown key 'sead'"):
        open_source("simulate:fe-ramp", sead=1)


def test_resumed_with_lent_memory_is_the_tail_of_the_whole():
    run = open_run("fe-ramp", frames=19)  # setting it up takes longer than drawing
    for kind, name, n in (("frames", "frame", 16), ("patterns", "intensity", 17)):
        whole = SimulatedSource(run, kind=kind)
        start = whole.start()
        expected = np.concatenate([batch.arrays[name] for batch in whole])
        source = SimulatedSource(run, kind=kind)
        source.resume(start, n)
        asked = []

        def allocate(most, asked=asked, spec=start.items[name], name=name):
            asked.append(np.full((1, *spec.shape), 77, spec.dtype))
            return {name: asked[-1]} if len(asked) != 2 else None

        source.lend(allocate)
        batches = list(source)
        assert np.array_equal(np.concatenate([b.arrays[name] for b in batches]), expected[n:])
        assert np.concatenate([b.seq for b in batches]).tolist() == list(range(n, 19))
        assert np.concatenate([b.ids for b in batches]).tolist() == list(range(n + 1, 20))
        if kind == "frames":
            pairs = zip(batches, asked, strict=True)
            lent = [np.shares_memory(batch.arrays[name], array) for batch, array in pairs]
            assert lent == [True, False, True]
