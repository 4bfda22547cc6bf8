"""The reduction on a CUDA device, against the same code on the CPU."""

import numpy as np
import pytest
import torch

from phasewatch.calibration import Calibration
from phasewatch.calibration.gpu import integrate
from phasewatch.calibration.gpu.baseline import asls
from phasewatch.calibration.gpu.reduce import TorchReduction

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

ASLS = {"method": "asls", "lam": 1e4, "p": 0.002, "n_iter": 10}


@pytest.mark.parametrize("split", ["no", "bbox", "full"])
@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "i2", "i4", "f4", "f8"])
@pytest.mark.parametrize("at_once", [3, 64])
def test_cuda_gives_what_the_cpu_gives(write_poni, monkeypatch, split, dtype, at_once):
    rng = np.random.default_rng(0)
    mask = rng.random((120, 130)) < 0.1
    calibration = Calibration.load(write_poni(), mask=mask, saturation=200, polarization=0.99)
    frames = rng.poisson(100, (20, 120, 130)).astype(dtype)
    frames[5, :10] = 250
    frames[11] = 250
    monkeypatch.setattr(integrate, "MAX_FRAMES", at_once)
    options = {"n_bins": 100, "split": split, "baseline": ASLS, "normalise": "minmax"}
    expected = TorchReduction(calibration, **options, device="cpu")(frames)
    reduction = TorchReduction(calibration, **options, device="cuda")

    for _ in range(2):
        found = reduction(frames)
        assert found.patterns.device.type == "cuda"
        assert torch.equal(found.ok.cpu(), expected.ok)
        assert torch.equal(found.seen.cpu(), expected.seen)
        good = expected.ok
        torch.testing.assert_close(
            found.patterns.cpu()[good], expected.patterns[good], rtol=0, atol=1e-5, equal_nan=True
        )


def test_the_baseline_can_be_captured_as_a_graph():
    patterns = torch.rand((8, 4023), dtype=torch.float64, device="cuda") * 100
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        asls(patterns)  # what is allocated first is not the graph's
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = asls(patterns)

    patterns.copy_(torch.rand_like(patterns) * 50)
    graph.replay()

    torch.testing.assert_close(captured, asls(patterns), rtol=0, atol=1e-6 * 50)
