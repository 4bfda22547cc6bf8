"""The configuration: every mistake is one line that names file and key."""

from pathlib import Path

import pytest

from phasewatch.pipeline.config import load_config, parse_config
from phasewatch.pipeline.errors import PipelineError

WHOLE = """
[source]
uri = "lambda-nexus:data/run42"
[calibration]
poni = "L2.poni"
mask = "mask.tif"
[reduce]
n_bins = 4023
range = [9.6, 25.5]
polarization = 0.99
baseline = {method = "asls", lam = 1e5, p = 0.002, n_iter = 10}
normalise = "minmax"
[classifier]
model = "models/fe-cnn"
max_batch = 64
max_wait_ms = 2
[track]
reversal = 0.01
[runtime]
mode = "lossless"
reducers = 1
[[sink]]
type = "nexus"
path = "result.nxs"
[[sink]]
type = "zmq"
address = "tcp://127.0.0.1:5556"
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "run.toml"
    path.write_text(text)
    return path


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "data" / "run42").mkdir(parents=True)
    config = load_config(write(tmp_path, WHOLE))
    assert config.source.uri == f"lambda-nexus:{tmp_path}/data/run42"
    assert config.calibration is not None
    assert config.calibration.poni == str(tmp_path / "L2.poni")
    assert config.calibration.mask == str(tmp_path / "mask.tif")
    assert config.classifier is not None
    assert config.classifier.model == tmp_path / "models/fe-cnn"
    assert config.sink[0].options == {"path": str(tmp_path / "result.nxs")}
    assert config.sink[1].options == {"address": "tcp://127.0.0.1:5556"}
    assert config.reduce.baseline.settings()["lam"] == 1e5


def test_the_command_line_wins(tmp_path: Path) -> None:
    path = write(tmp_path, WHOLE)
    config = load_config(path, source="xy:there", out=tmp_path / "other.nxs")
    assert config.source.uri == "xy:there"
    assert [s.type for s in config.sink] == ["zmq", "nexus"]
    assert config.sink[1].options == {"path": str(tmp_path / "other.nxs")}


def test_what_is_left_out_has_a_default(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, '[source]\nuri = "series:a.npz"'))
    assert config.classifier is None
    assert config.sink == ()
    assert config.reduce.baseline.settings() == {
        "method": "asls", "lam": 1e5, "p": 0.002, "n_iter": 10,
    }  # fmt: skip
    assert config.runtime.mode == "lossless"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[source]", "[source", "run.toml: not TOML"),
        ('uri = "lambda-nexus:data/run42"', "", r"run.toml: \[source\] uri: it is missing"),
        (
            "n_bins = 4023",
            "n_bin = 4023",
            r"run.toml: \[reduce\] n_bin: no such key; did you mean n_bins\?",
        ),
        (
            "n_bins = 4023",
            'model = "m"',
            r"\[reduce\] model: no such key; it belongs in \[classifier\]",
        ),
        ("n_bins = 4023", "xyz = 1", r"run.toml: \[reduce\] xyz: no such key$"),
        ("n_bins = 4023", "n_bins = 0", r"\[reduce\] n_bins: Input should be greater"),
        ("[reduce]", '[reduce]\nunit = "deg"', r"\[reduce\] unit: Input should be '2th_deg'"),
        ("[reduce]", '[reduce]\nsplit = "some"', r"\[reduce\] split"),
        ('normalise = "minmax"', 'normalise = "max"', r"\[reduce\] normalise"),
        ("polarization = 0.99", "polarization = 99", r"\[reduce\] polarization"),
        ("reversal = 0.01", "reversal = 0.9", r"\[track\] reversal"),
        ('mode = "lossless"', 'mode = "fast"', r"\[runtime\] mode"),
        ("reducers = 1", "reducers = 0", r"\[runtime\] reducers"),
        ('type = "zmq"', "", r"\[sink\] 1.type: it is missing"),
        ("[track]", "[tracker]", r"run.toml: \[tracker\]: no such key; did you mean track\?"),
    ],
)
def test_mistakes_name_file_and_key(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in WHOLE
    with pytest.raises(PipelineError, match=said) as caught:
        load_config(write(tmp_path, WHOLE.replace(old, new, 1)))
    assert "\n" not in str(caught.value)


def test_a_source_on_the_command_line_is_relative_to_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("here", "there"):
        (tmp_path / folder / "x.npz").parent.mkdir()
        (tmp_path / folder / "x.npz").touch()
    monkeypatch.chdir(tmp_path / "here")
    config = load_config(write(tmp_path / "there", WHOLE), source="series:x.npz")
    assert config.source.uri == f"series:{tmp_path}/here/x.npz"


def test_one_sink_is_a_list_too(tmp_path: Path) -> None:
    text = '[source]\nuri = "xy:a"\n[sink]\ntype = "nexus"'
    with pytest.raises(PipelineError, match=r"write \[\[sink\]\]"):
        load_config(write(tmp_path, text), out=tmp_path / "x.nxs")


def test_paths_of_plug_ins_are_relative_to_the_file(tmp_path: Path) -> None:
    tables = {
        "source": {"uri": "zmq:tcp://127.0.0.1:5", "keys": "k"},
        "runtime": {"keys": "k"},
        "sink": [{"type": "zmq", "address": "tcp://127.0.0.1:6", "keys": "k", "policy": "drop"}],
        "heartbeat": {"address": "tcp://127.0.0.1:7", "keys": "k"},
    }
    config = parse_config(tables, name="c.toml", folder=tmp_path)
    wanted = str(tmp_path / "k")
    assert config.source.options["keys"] == config.runtime.keys == wanted
    assert config.sink[0].options == {"address": "tcp://127.0.0.1:6", "keys": wanted}
    assert config.sink[0].policy == "drop"
    assert config.observers["heartbeat"]["keys"] == wanted


@pytest.mark.parametrize("listen", ["tcp://h", "tcp://h:99999", "tcp://h:65534", "ipc:///a", "h:5"])
def test_where_workers_may_join_is_an_address_with_three_ports(tmp_path: Path, listen: str) -> None:
    tables = {"source": {"uri": "a:b"}, "runtime": {"listen": listen}}
    with pytest.raises(
        PipelineError, match=rf"c: \[runtime\] listen: .*{listen} is not tcp://HOST"
    ):
        parse_config(tables, name="c", folder=tmp_path)
