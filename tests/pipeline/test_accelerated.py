"""The path of a device, run on torch's CPU: what the chain of single stages gives, to rounding."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from phasewatch.models import save
from phasewatch.models.labels import Labels
from phasewatch.models.series import Series
from phasewatch.models.training import Recipe, train
from phasewatch.pipeline.batch import Batch
from phasewatch.pipeline.build import (
    accelerated_stages,
    classify_stage,
    integrate_stage,
    reduce_stages,
    settled,
)
from phasewatch.pipeline.chain import Chain
from phasewatch.pipeline.config import Config, parse_config
from phasewatch.pipeline.documents import ItemSpec, RunStart
from phasewatch.pipeline.errors import PipelineError
from phasewatch.pipeline.processes.layout import roles
from phasewatch.pipeline.processes.supervisor import supervise
from phasewatch.pipeline.processes.view import View

from .geometry import PONI

SHAPE = (60, 64)
SATURATION = 4000
BASELINE = {"method": "asls", "lam": 1e3, "p": 0.002, "n_iter": 10}
RUN = RunStart(
    run_id="r",
    source="test",
    items={"frame": ItemSpec.of(SHAPE, "u2")},
    constants={"mask": np.arange(60 * 64).reshape(SHAPE) % 50 == 0},
)


def make_frames(n: int) -> np.ndarray:
    """Two rings that move outwards, on a background; a few pixels of each frame are saturated."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    radius = np.hypot(y, x)
    frames = []
    for i in range(n):
        rings = sum(np.exp(-(((radius - c - 10 * (2 * i > n)) / 1.5) ** 2)) for c in (20, 45))
        frame = rng.poisson(20 + 300 * rings).astype(np.uint16)
        frame[tuple(rng.integers(0, SHAPE, (5, 2)).T)] = 4095
        frames.append(frame)
    return np.stack(frames)


FRAMES = make_frames(24)


def configure(folder: Path, *, classify: bool = True, **reduce: Any) -> Config:
    tables = {
        "source": {"uri": f"hdf5:{folder / 'frames.h5'}#/frames"},
        "calibration": {"poni": "geometry.poni", "saturation": SATURATION},
        # a range, so that the axis is not that of the valid pixels: RUN has a mask, the file none
        "reduce": {
            "n_bins": 64,
            "split": "bbox",
            "range": (1.0, 9.0),
            "baseline": BASELINE,
            **reduce,
        },
        "runtime": {"credits": 4},
        "sink": [{"type": "lines", "path": "lines.json"}],
    }
    if classify:
        tables["classifier"] = {"model": "model", "max_batch": 7}
    return parse_config(tables, name="test", folder=folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A geometry, frames in a file, and a model trained on what the CPU makes of them."""
    folder = tmp_path_factory.mktemp("accelerated")
    (folder / "geometry.poni").write_text(PONI)
    with h5py.File(folder / "frames.h5", "w") as file:
        file["frames"] = FRAMES
    chain = Chain(reduce_stages(configure(folder), RUN))
    run = chain.start(RUN)
    index = np.arange(len(FRAMES))
    series = Series(
        axis=run.constants["axis"],
        unit="2th_deg",
        intensity=chain.process(batch_of(FRAMES)).arrays["intensity"],
        ids=index,
        index=index,
        digest="0" * 64,
        source="test",
        baseline=BASELINE,
        normalise="minmax",
    )
    labels = Labels(np.array([1, 5, 18, 22]), np.array([0, 0, 1, 1]), ("before", "after"))
    net, card, novelty = train(series, labels, model="fcnn", recipe=Recipe(epochs=3))
    save(folder / "model", net, card, novelty)
    return folder


def batch_of(frames: np.ndarray) -> Batch:
    seq = np.arange(len(frames))
    return Batch(seq, seq + 100, None, {"frame": frames})


def single_stages(config: Config) -> Chain:
    return Chain([*reduce_stages(config, RUN), classify_stage(config)])


def agree(ours: Any, theirs: Any) -> None:
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        assert ours[name].dtype == array.dtype
        assert ours[name].shape == array.shape
    np.testing.assert_allclose(ours["intensity"], theirs["intensity"], rtol=0, atol=1e-5)
    if "label" in theirs:
        np.testing.assert_array_equal(ours["label"], theirs["label"])
        np.testing.assert_allclose(ours["probability"], theirs["probability"], atol=1e-4)
        np.testing.assert_allclose(ours["novelty"], theirs["novelty"], rtol=1e-3)


@pytest.mark.parametrize("split", ["no", "bbox", "full"])
def test_the_stage_gives_what_the_single_stages_give(folder: Path, split: str) -> None:
    config = configure(folder, split=split, device="torch-cpu")
    config = config.model_copy(update={"classifier": None})
    plain, fast = Chain(reduce_stages(config, RUN)), Chain(accelerated_stages(config, RUN))
    assert_same_start(fast.start(RUN), plain.start(RUN))
    agree(fast.process(batch_of(FRAMES)).arrays, plain.process(batch_of(FRAMES)).arrays)


def assert_same_start(ours: RunStart, theirs: RunStart) -> None:
    assert ours.model_dump() == theirs.model_dump()
    assert ours.constants.keys() == theirs.constants.keys()
    for name, array in theirs.constants.items():
        np.testing.assert_array_equal(ours.constants[name], array)


def test_the_stage_classifies_as_the_single_stages_do(folder: Path) -> None:
    config = configure(folder, device="torch-cpu")
    plain, (fast,) = single_stages(config), accelerated_stages(config, RUN)
    assert_same_start(fast.start(RUN), plain.start(RUN))
    expected = plain.process(batch_of(FRAMES)).arrays
    assert set(expected["label"].tolist()) == {0, 1}
    agree(fast.process(batch_of(FRAMES)).arrays, expected)


def test_bad_frames_stand_alone(folder: Path) -> None:
    frames = FRAMES.copy()
    frames[3] = 4095
    frames[9] = 0
    config = configure(folder, device="torch-cpu")
    plain, fast = single_stages(config), Chain(accelerated_stages(config, RUN))
    plain.start(RUN)
    fast.start(RUN)
    expected, failed = plain.process_isolated(batch_of(frames))
    found, bad = fast.process_isolated(batch_of(frames))
    assert found is not None
    assert expected is not None
    agree(found.arrays, expected.arrays)
    np.testing.assert_array_equal(found.seq, expected.seq)
    assert [f.seq for f in bad] == [f.seq for f in failed] == [3, 9]
    assert (
        bad[0].error == failed[0].error == "frame: all pixels invalid (negative, saturated or NaN)"
    )
    assert bad[1].error == "pattern: constant or of no positive area, minmax is not possible"


def test_what_the_source_has_done_is_not_done_twice(folder: Path) -> None:
    done = RUN.evolve(settings={"baseline": BASELINE})
    config = configure(folder, classify=False, device="torch-cpu")
    plain, (fast,) = Chain(reduce_stages(config, done)), accelerated_stages(config, done)
    assert_same_start(fast.start(done), plain.start(done))
    agree(fast.process(batch_of(FRAMES)).arrays, plain.process(batch_of(FRAMES)).arrays)


def test_patterns_are_left_to_the_single_stages(folder: Path) -> None:
    config = configure(folder, device="torch-cpu")
    patterns = integrate_stage(config).start(RUN)
    names = [stage.name for stage in accelerated_stages(config, patterns)]
    assert names == ["baseline", "normalise", "classify"]


@pytest.mark.parametrize(
    ("reduce", "classifier", "said"),
    [
        (
            {"baseline": {"method": "arpls"}},
            {},
            "baseline method: 'arpls' is not known on a device",
        ),
        ({"normalise": "monitor"}, {}, "normalise: 'monitor' is not known on a device"),
        ({"variance": True}, {}, r'\[reduce\] variance: only with \[reduce\] device = "cpu"'),
        ({}, {"regrid": True}, r'\[classifier\] regrid: only with \[reduce\] device = "cpu"'),
        ({}, {"device": "cuda:1"}, r"\[classifier\] device: cuda:1, but .* classifies on cpu"),
    ],
)
def test_what_only_the_single_stages_can_do_is_refused(
    folder: Path, reduce: dict[str, Any], classifier: dict[str, Any], said: str
) -> None:
    config = configure(folder, device="torch-cpu", **reduce)
    assert config.classifier is not None
    config = config.model_copy(
        update={"classifier": config.classifier.model_copy(update=classifier)}
    )
    with pytest.raises(ValueError, match=said):
        accelerated_stages(config, RUN)


def test_the_device_is_a_name_torch_knows(folder: Path) -> None:
    known = {"cpu": None, "torch-cpu": "cpu", "cuda": "cuda", "cuda:3": "cuda:3"}
    for name, torch_name in known.items():
        assert configure(folder, device=name).reduce.torch_device == torch_name
    for name in ("gpu", "cuda:", "cpu:0", ""):
        with pytest.raises(PipelineError, match=r"test: \[reduce\] device: "):
            configure(folder, device=name)


def test_auto_takes_a_cuda_device_that_can_do_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    auto = configure(folder, device="auto")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert settled(auto).reduce.device == "cpu"
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert settled(auto).reduce.device == "cuda:0"
    assert settled(configure(folder, device="auto", normalise="monitor")).reduce.device == "cpu"
    assert settled(configure(folder)).reduce.device == "cpu"


def test_one_process_takes_the_place_of_reducers_and_classifier(folder: Path) -> None:
    assert roles(configure(folder)) == ["receiver", "reducer-0", "classifier", "tracker", "sink"]
    fast = configure(folder, device="cuda:0")
    assert roles(fast) == ["receiver", "accelerator", "tracker", "sink"]


def run_as_processes(config: Config, folder: Path) -> tuple[Any, dict[str, Any]]:
    folder.mkdir(exist_ok=True)
    sink = config.sink[0].model_copy(update={"path": str(folder / "lines.json")})
    outcome = supervise(config.model_copy(update={"sink": (sink,)}))
    assert outcome.error is None
    lines = [json.loads(line) for line in (folder / "lines.json").read_text().splitlines()]
    items = [d for d in lines if "seq" in d]
    types = {"intensity": "f4", "probability": "f4", "label": "i4", "novelty": "f4"}
    arrays = {
        name: np.stack([np.frombuffer(bytes.fromhex(d["arrays"][name]), kind) for d in items])
        for name, kind in types.items()
        if items and name in items[0]["arrays"]
    }
    ids = [(d["seq"], d["id"]) for d in items]
    start = next(d["start"] for d in lines if "start" in d)
    return outcome, {"arrays": arrays, "ids": ids, "start": start}


@pytest.mark.usefixtures("thirdparty")
def test_a_run_of_processes_gives_what_the_plain_one_gives(folder: Path, tmp_path: Path) -> None:
    outcomes = {}
    for device in ("cpu", "torch-cpu"):
        outcome, outcomes[device] = run_as_processes(
            configure(folder, device=device), tmp_path / device
        )
        assert outcome.stop.loss.classified == outcome.stop.loss.received == len(FRAMES)
        assert "classify" in outcome.stop.latency_ms["per_stage"]
    plain, fast = outcomes["cpu"], outcomes["torch-cpu"]
    assert fast["ids"] == plain["ids"]
    agree(fast["arrays"], plain["arrays"])
    for start in (plain["start"], fast["start"]):
        del start["run_id"], start["digests"]["configuration"], start["settings"]["configuration"]
    assert fast["start"] == plain["start"]


@pytest.mark.usefixtures("thirdparty")
def test_an_accelerator_that_dies_is_told(folder: Path, tmp_path: Path) -> None:
    pids: dict[str, int] = {}

    def update(view: View) -> None:
        if pids and "accelerator" in view.book.heard_ns:
            os.kill(pids.pop("accelerator"), signal.SIGKILL)
            pids.clear()

    config = configure(folder, classify=False, device="torch-cpu")
    outcome = supervise(
        config.model_copy(update={"sink": ()}), on_update=update, on_start=pids.update
    )
    assert outcome.error == "accelerator ended unexpectedly (exit code -9)"


@pytest.mark.usefixtures("thirdparty")
def test_without_a_classifier_the_run_ends_with_patterns(folder: Path, tmp_path: Path) -> None:
    config = configure(folder, classify=False, device="torch-cpu")
    outcome, found = run_as_processes(config, tmp_path)
    assert found["arrays"]["intensity"].shape == (len(FRAMES), 64)
    assert outcome.stop.loss.classified == len(FRAMES)
