"""In the environment of the chain: frames, what the chain makes of them, and two models of them.

``python prepare.py FOLDER`` writes ``L.poni``, another calibration (``far.poni``, ``mask.npy``),
``expected.npz``, ``model`` and ``other`` there.
"""

import sys
from pathlib import Path

import numpy as np

from phasewatch.models import load, save
from phasewatch.models.labels import Labels
from phasewatch.models.series import Series
from phasewatch.models.training import Recipe, train
from phasewatch.pipeline.batch import Batch
from phasewatch.pipeline.build import reduce_stages
from phasewatch.pipeline.config import parse_config
from phasewatch.pipeline.documents import ItemSpec, RunStart

PONI = """poni_version: 2.1
Detector: Detector
Detector_config: {{"pixel1": 1e-4, "pixel2": 1e-4, "max_shape": [96, 80], "orientation": 3}}
Distance: {distance}
Poni1: 0.0048
Poni2: 0.004
Rot1: 0
Rot2: 0
Rot3: 0
Wavelength: 4e-11
"""
N, SHAPE = 48, (96, 80)


def frames() -> np.ndarray:
    """Return rings that jump half way (N, height, width), uint16."""
    y, x = np.indices(SHAPE)
    radius = np.hypot(y - 48, x - 40)
    at = np.where(np.arange(N) < N // 2, 16, 27)[:, None, None]
    counts = 20 + 400 * np.exp(-(((radius - at) / 2) ** 2))
    return np.random.default_rng(1).poisson(counts).astype(np.uint16)


def reduced(folder: Path, **calibration: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the axis (n_bins,) and the patterns (N, n_bins) that `calibration` makes of them."""
    tables = {
        "source": {"uri": "zmq:tcp://127.0.0.1:1"},
        "calibration": calibration,
        "reduce": {"n_bins": 64, "baseline": {"method": "asls", "lam": 1e3}},
    }
    config = parse_config(tables, name="prepare", folder=folder)
    run = RunStart(run_id="r", source="t", items={"frame": ItemSpec.of(SHAPE, np.uint16)})
    stages = reduce_stages(config, run)
    for stage in stages:
        run = stage.start(run)
    index = np.arange(N)
    batch = Batch(index, index, None, {"frame": frames()})
    for stage in stages:
        batch = stage.process(batch)
    return run.constants["axis"], batch.arrays["intensity"]


def main(folder: Path) -> None:
    """Write all of it to `folder`."""
    (folder / "L.poni").write_text(PONI.format(distance=0.1))
    (folder / "far.poni").write_text(PONI.format(distance=0.101))
    mask = np.zeros(SHAPE, np.uint8)
    mask[40:60, 45:70] = 1
    np.save(folder / "mask.npy", mask)
    axis, patterns = reduced(folder, poni="L.poni")
    _, far = reduced(folder, poni="far.poni", mask="mask.npy")
    np.savez(folder / "expected.npz", frames=frames(), patterns=patterns, far=far)
    index = np.arange(N)
    series = Series(
        axis=axis,
        unit="2th_deg",
        intensity=patterns,
        ids=index,
        index=index,
        digest="0" * 64,
        source="test",
        baseline={"p": 0.002, "n_iter": 10, "method": "asls", "lam": 1e3},
        normalise="minmax",
    )
    labels = Labels(np.array([2, 10, 30, 40]), np.array([0, 0, 1, 1]), ("before", "after"))
    save(folder / "model", *train(series, labels, model="fcnn", recipe=Recipe(epochs=3)))
    network, card, novelty = load(folder / "model")
    next(network.parameters()).data *= 1.01
    save(folder / "other", network, card, novelty)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
