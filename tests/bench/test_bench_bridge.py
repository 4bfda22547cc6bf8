"""The comparison of a bridge alone with our source, on small frames; its speed is no test's."""

from pathlib import Path

import numpy as np
import pytest

from phasewatch.bench import bridge
from phasewatch.pipeline.batch import Batch
from phasewatch.pipeline.errors import PipelineError


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge, "SHAPE", (60, 40))


@pytest.mark.parametrize("kind", ["REP", "PUSH"])
def test_both_clients_have_every_frame(kind: bridge.Kind) -> None:
    told: list[str] = []
    found = bridge.measure(kind, 6, 1, told.append)
    assert found["rates_hz"].keys() == {"bridge alone", "into the ring"}
    assert [len(rates) for rates in found["rates_hz"].values()] == [1, 1]
    assert found["ratio"] == pytest.approx(found["ratios_of_rounds"][0])
    assert told[0] == "writing 6 frames"
    assert len(told) == 5


def test_frame_that_is_another_ends_it(tmp_path: Path) -> None:
    bridge.write_run(tmp_path, 4)

    def check(batch: Batch) -> None:
        with pytest.raises(PipelineError, match="frame of train 2 is not the one"):
            bridge.check_frame(Batch(batch.seq, np.full(len(batch), 10_002), None, batch.arrays))
        bridge.check_frame(batch)

    with bridge.serving(tmp_path, "REP") as endpoint:
        assert bridge.into_ring("REP", check)(endpoint, 4).rate_hz > 0


def test_server_that_does_not_start(tmp_path: Path) -> None:
    with (
        pytest.raises(PipelineError, match="did not start"),
        bridge.serving(tmp_path / "absent", "REP"),
    ):
        pass
