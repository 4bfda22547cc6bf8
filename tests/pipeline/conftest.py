"""A third party's plug-ins, as a distribution of its own beside the project."""

import os
from pathlib import Path

import pytest

MODULE = '''
import json
import os
import numpy as np
from phasewatch.pipeline.batch import Batch, Failure
from phasewatch.pipeline.documents import ItemSpec, RunStart


def open_source(
    target, *, endless: bool = False, bad="", t_acq=False, announce=True, size: int = 1,
    stream: bool = False
):
    return (Stream if stream else Ramp)(
        int(target), endless, json.loads(bad or "{}"), t_acq, announce, size
    )


class Ramp:
    """Patterns of a peak that moves; `bad` maps an index to what is wrong with it."""

    def __init__(self, n, endless, bad, t_acq, announce, size):
        self.n, self.endless, self.t_acq, self.size = n, endless, t_acq, size
        self.announce = announce and not endless
        self.bad = {int(k): v for k, v in bad.items()}
        self.open, self.first = True, 0

    def start(self):
        return RunStart(
            run_id="ramp",
            source=f"ramp:{self.n}",
            items={"intensity": ItemSpec.of((64,), "f4")},
            unit="2th_deg",
            expected=self.n if self.announce else None,
            constants={"axis": np.linspace(5.0, 20.0, 64)},
        )

    def __iter__(self):
        axis = np.linspace(5.0, 20.0, 64)
        i = self.first
        while self.open and (self.endless or i < self.n):
            kind = self.bad.get(i)
            if kind == "unreadable":
                yield Failure(i, i, "source", f"item {i}: cannot be read")
            elif kind != "skip":
                y = np.exp(-((axis - 8 - i % 64 / 16) ** 2)).astype(np.float32)[None]
                y = y + np.random.default_rng(i).random((1, 64), np.float32) / 50
                if kind == "nan":
                    y[:] = np.nan
                elif kind == "shape":
                    y = y[:, :63]
                elif kind == "dtype":
                    y = y.astype(np.float64)
                elif kind == "raise":
                    raise OSError(f"disk gone at item {i}")
                elif kind == "bug":
                    raise KeyError("no such thing")
                ids = np.arange(i, i + self.size)
                y = np.repeat(y, self.size, axis=0)
                yield Batch(ids, ids, 10 * ids if self.t_acq else None, {"intensity": y})
                yield Batch(ids[:0], ids[:0], None, {"intensity": y[:0]})
            i += self.size

    def resume(self, run, n):
        self.first = n

    def close(self):
        self.open = False


class Stream(Ramp):
    """As from a detector: who comes again has missed what came meanwhile."""

    resume = None

    def start(self):
        with open(os.environ["RAMP_STARTS"], "a+") as file:
            file.seek(0)
            self.first = 100_000 * len(file.read())
            file.write("x")
        return super().start()


def open_sink(*, path, fail_at=-1):
    return Lines(path, fail_at)


class Lines:
    """Writes one JSON line per document."""

    def __init__(self, path, fail_at):
        self.file, self.fail_at, self.n = open(path, "w"), fail_at, 0

    def _write(self, **document):
        self.file.write(json.dumps(document) + "\\n")
        self.file.flush()

    def start(self, run):
        self._write(start=run.model_dump(mode="json"))

    def batch(self, batch):
        for i in range(len(batch)):
            if self.n == self.fail_at:
                raise OSError(28, "No space left on device", "lines.json")
            self.n += 1
            arrays = {k: v[i].tobytes().hex() for k, v in batch.arrays.items()}
            self._write(seq=int(batch.seq[i]), id=int(batch.ids[i]), arrays=arrays,
                        t_acq=None if batch.t_acq is None else int(batch.t_acq[i]))

    def failures(self, failures):
        for f in failures:
            self._write(failed=f.seq, id=f.id, stage=f.stage, error=f.error)

    def dropped(self, items, reason):
        for seq, i in items:
            self._write(dropped=seq, id=i, reason=reason)

    def event(self, event):
        self._write(event=event.model_dump(mode="json"))

    def stop(self, stop):
        self._write(stop=stop.model_dump(mode="json"))

    def close(self):
        self.file.close()
'''

METADATA = """Metadata-Version: 2.1
Name: thirdparty-phasewatch
Version: 1.0
"""

ENTRY_POINTS = """
[phasewatch.sources]
ramp = thirdparty_phasewatch:open_source
[phasewatch.sinks]
lines = thirdparty_phasewatch:open_sink
[phasewatch.commands]
broken = thirdparty_phasewatch:no_such_function
"""


@pytest.fixture
def thirdparty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install the plug-ins above for this process and its children."""
    site = tmp_path / "site"
    info = site / "thirdparty_phasewatch-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "thirdparty_phasewatch.py").write_text(MODULE)
    (info / "METADATA").write_text(METADATA)
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("PYTHONPATH", str(site), prepend=os.pathsep)
    monkeypatch.setenv("RAMP_STARTS", str(tmp_path / "starts"))
    return site
