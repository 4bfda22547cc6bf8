"""A plug-in of a third party is found by its entry point, with no change in the project."""

from pathlib import Path

import pytest

from phasewatch.pipeline.errors import PipelineError
from phasewatch.pipeline.plugin import found, open_sink, open_source

MODULE = """
import numpy as np
from phasewatch.pipeline.batch import Batch
from phasewatch.pipeline.documents import ItemSpec, RunStart


class Source:
    def __init__(self, target, n):
        self.target, self.n = target, n

    def start(self):
        return RunStart(run_id=self.target, source="beam7", expected=self.n,
                        items={"frame": ItemSpec.of((2, 3), np.uint16)})

    def __iter__(self):
        for seq in range(self.n):
            one = np.array([seq])
            yield Batch(one, one + 7, None, {"frame": np.full((1, 2, 3), seq, np.uint16)})

    def close(self):
        pass


def open_source(target, *, n=3):
    return Source(target, n)


def open_sink(*, colour):
    raise NotImplementedError
"""


@pytest.fixture
def beam7(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "beam7_plugin.py").write_text(MODULE)
    info = tmp_path / "beam7_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: beam7-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[phasewatch.sources]\nbeam7 = beam7_plugin:open_source\n"
        "[phasewatch.sinks]\nlamp = beam7_plugin:open_sink\n"
    )
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("beam7")
def test_third_party_source() -> None:
    assert "beam7" in found("sources")
    source = open_source("beam7:hutch", n=2)
    assert source.start().run_id == "hutch"
    batches = list(source)
    assert [int(b.ids[0]) for b in batches] == [7, 8]
    source.close()


@pytest.mark.usefixtures("beam7")
def test_options_are_checked_by_its_signature() -> None:
    with pytest.raises(PipelineError, match=r"beam7: unknown key 'm'; known: n"):
        open_source("beam7:hutch", m=2)
    with pytest.raises(PipelineError, match="lamp: key 'colour' is missing"):
        open_sink("lamp")


def test_without_it() -> None:
    with pytest.raises(
        PipelineError, match=r"source 'beam7' is not known; there are: .*hdf5, images"
    ):
        open_source("beam7:hutch")


def test_every_plugin_of_ours_loads() -> None:
    ours = {"asapo", "dectris", "extra-data", "hdf5", "images", "json", "karabo-bridge"}
    ours |= {"lambda-nexus", "series", "xy", "zmq"}
    sources, sinks = found("sources"), found("sinks")
    assert ours <= set(sources)
    assert {"karabo-bridge", "nexus", "zmq"} <= set(sinks)
    for points, names in ((sources, ours), (sinks, {"karabo-bridge", "nexus", "zmq"})):
        for name in names:
            assert callable(points[name].load())
