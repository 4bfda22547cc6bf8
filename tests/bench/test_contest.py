"""`phasewatch compare`: data, jobs, one training, the journal, the tables, and the whole."""

import csv
import io
import json

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from phasewatch.bench.contest import choose, data, hand_over, sweeps, table, trial
from phasewatch.bench.contest.commands import compare
from phasewatch.bench.contest.jobs import NO_RECIPE, OUTSIDE, Job, chosen, recipes, table_jobs
from phasewatch.bench.contest.journal import Journal
from phasewatch.bench.contest.runner import Runner
from phasewatch.models import ModelError, create, names
from phasewatch.pipeline.errors import PipelineError

N, POINTS = 60, 120


def command(*arguments):
    app = typer.Typer()
    app.command()(compare)
    return CliRunner().invoke(app, list(map(str, arguments)))


def patterns(seed, change):
    """Peaks that move, and others from `change` on."""
    rng = np.random.default_rng(seed)
    x = np.arange(POINTS)
    places = (
        np.where(np.arange(N)[:, None] < change, [30, 80], [45, 95]) + np.arange(N)[:, None] / N
    )
    peaks = np.exp(-(((x - places[:, :, None]) / 2.5) ** 2)).sum(axis=1)
    return (10 * peaks + 2 + rng.normal(0, 0.2, (N, POINTS))).astype(np.float32)


def write_run(folder, *, seed, change):
    folder.mkdir()
    np.savez(
        folder / "series.npz",
        x=np.linspace(10, 25, POINTS),
        intensity=patterns(seed, change),
        order=np.linspace(5, 20, N),
        x_name="2th_deg",
        order_name="pressure (GPa)",
    )
    fraction = np.clip((np.arange(N) - change + 2.5) / 4, 0, 1)
    with (folder / "truth.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("index", "pressure_gpa", "fraction", "label"))
        rows.writerows((i, 5 + i / 4, x, "-") for i, x in enumerate(fraction))
    return folder


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    root = tmp_path_factory.mktemp("pair")
    return write_run(root / "a", seed=0, change=28), write_run(root / "b", seed=1, change=36)


@pytest.fixture
def real(tmp_path):
    path = tmp_path / "heating.npz"
    label = np.repeat([3, 5], [30, 30])
    np.savez(
        path,
        x=np.linspace(1, 5, POINTS),
        intensity=patterns(2, 30),
        x_name="q (1/A)",
        labels_derived=label,
    )
    return path


def test_a_simulated_pair(pair):
    found = data.simulated("a-b", *pair)
    assert found.labels.classes == ("before", "after")
    assert not found.same
    assert not len(found.seen)
    assert np.flatnonzero(found.truth)[0] == 36  # the first frame with half of it transformed
    labelled = found.labels.index
    assert ((labelled < 27) == (found.labels.label == 0)).all()
    assert found.train.baseline["method"] == "asls"
    assert found.train.intensity.min() == 0
    assert found.train.intensity.max() == 1


def test_a_pair_on_two_axes_is_refused(pair, tmp_path):
    other = write_run(tmp_path / "c", seed=1, change=30)
    with np.load(other / "series.npz") as archive:
        arrays = dict(archive)
    np.savez(other / "series.npz", **(arrays | {"x": arrays["x"] + 1}))
    with pytest.raises(PipelineError, match="axis is not that of"):
        data.simulated("a-c", pair[0], other)


def test_a_run_without_transition_is_refused(pair, tmp_path):
    flat = write_run(tmp_path / "flat", seed=1, change=500)
    with pytest.raises(PipelineError, match="no pattern clear of the transition"):
        data.simulated("flat", flat, pair[1])


def test_a_truth_that_does_not_fit_is_refused(pair, tmp_path):
    short = write_run(tmp_path / "short", seed=1, change=30)
    text = (short / "truth.csv").read_text().splitlines()
    (short / "truth.csv").write_text("\n".join(text[:-2]) + "\n")
    with pytest.raises(PipelineError, match=f"58 rows, not {N}"):
        data.simulated("short", short, pair[1])
    (short / "truth.csv").write_text("index,label\n0,a\n")
    with pytest.raises(PipelineError, match="column fraction"):
        data.simulated("short", short, pair[1])


def test_a_real_series(real):
    found = data.real(real)
    assert found.labels.classes == ("3", "5")
    assert np.bincount(found.labels.label).tolist() == [5, 5]
    assert found.same
    assert found.seen.tolist() == found.labels.index.tolist()
    assert found.train.baseline == {"method": "none"}


def test_a_real_series_with_a_table(real, tmp_path):
    labels = tmp_path / "labels.csv"
    labels.write_text("index,label\n" + "".join(f"{i},{'ab'[i > 20]}\n" for i in range(0, N, 4)))
    found = data.real(real, labels)
    assert found.truth_index.tolist() == list(range(0, N, 4))
    assert set(found.labels.index) <= set(found.truth_index)
    labels.write_text("index,label\n0,a\n10,b\n20,a\n")
    with pytest.raises(ModelError, match="do not follow each other"):
        data.real(real, labels)


def test_a_real_series_without_labels_is_refused(real):
    with np.load(real) as archive:
        arrays = dict(archive)
    del arrays["labels_derived"]
    np.savez(real, **arrays)
    with pytest.raises(ModelError, match=r"labels_derived.*--labels"):
        data.real(real)
    np.savez(real, **arrays, labels_derived=np.zeros(N, int))
    with pytest.raises(ModelError, match="one class only"):
        data.real(real)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nonsense", "not one of the experiments"),
        ("fe-ramp:1:1", "two different seeds"),
        ("fe-ramp:1", "two different seeds"),
        ("a:b:c", "not one of the experiments"),
    ],
)
def test_data_that_name_nothing(spec, message, tmp_path):
    with pytest.raises(PipelineError, match=message):
        choose.open_data(spec, tmp_path, labels=None, progress=lambda *a: None)


def test_nothing_is_left_of_what_was_refused(tmp_path):
    for wrong in (("--data", "nothing"), ("--data", "fe-ramp", "--models", "svm")):
        done = command(*wrong, "--out", tmp_path / "out")
        assert done.exit_code == 1
        assert isinstance(done.exception, PipelineError)
    assert not (tmp_path / "out").exists()


def test_labels_of_a_simulated_run_are_refused(tmp_path):
    with pytest.raises(PipelineError, match="is simulated"):
        choose.open_data("fe-ramp", tmp_path, labels=tmp_path, progress=lambda *a: None)


@pytest.mark.parametrize("make", ["pair", "real"])
def test_data_survive_the_hand_over(make, request, tmp_path):
    value = request.getfixturevalue(make)
    found = data.simulated("p", *value) if make == "pair" else data.real(value)
    hand_over.write(found, tmp_path / "x.npz")
    again = hand_over.read(tmp_path / "x.npz")
    assert again.describe() == found.describe()
    assert again.same == found.same
    np.testing.assert_array_equal(again.test.intensity, found.test.intensity)
    np.testing.assert_array_equal(again.truth, found.truth)
    assert (again.test.order is None) == (found.test.order is None)


def test_all_means_ours_and_those_from_outside():
    assert chosen("all") == (*names(), *OUTSIDE)
    assert chosen("cnn, nearest-centroid,cnn") == ("cnn", "nearest-centroid")
    with pytest.raises(PipelineError, match="'svm': not known"):
        chosen("svm")
    with pytest.raises(PipelineError, match="'mine': not known"):
        recipes("thesis,mine")


def test_what_no_seed_changes_is_done_once():
    jobs = table_jobs("d", ("cnn", *OUTSIDE), ("phasewatch", "thesis"), 3)
    count = {name: sum(job.name == name for job in jobs) for name in ("cnn", *OUTSIDE)}
    assert count == {"cnn": 6, **dict.fromkeys(OUTSIDE, 1), "gradient-boosting": 3}
    assert len({job.slug for job in jobs}) == len(jobs)


def learnt(found, job, tmp_path, monkeypatch):
    """Run one training in this process; return its lines and its arrays."""
    hand_over.write(found, tmp_path / "data.npz")
    lines = io.StringIO()
    monkeypatch.setattr("sys.stdout", lines)
    monkeypatch.setattr(trial, "_restart_peak", lambda: None)  # the tests' own process
    fields = {"data": "d", "recipe": NO_RECIPE, "seed": 0, **job}
    code = trial.main([str(tmp_path / "data.npz"), str(tmp_path / "out.npz"), json.dumps(fields)])
    said = [json.loads(line) for line in lines.getvalue().splitlines()]
    return code, said, tmp_path / "out.npz"


@pytest.mark.parametrize("name", OUTSIDE)
def test_baselines_find_a_clear_change(name, pair, tmp_path, monkeypatch):
    found = data.simulated("a-b", *pair)
    code, said, out = learnt(found, {"name": name}, tmp_path, monkeypatch)
    assert code == 0
    result = said[-1]["result"]
    assert result["boundary_true"] == [36.0]
    assert result["error_frames"] <= 1
    assert result["accuracy"] >= 0.98
    assert result["error_order"] == pytest.approx(result["error_frames"] * 15 / 59)
    unlabelled = name.startswith("change-points")
    assert (result["ece"] is None) == (result["prediction_ms"] is None) == unlabelled
    with np.load(out) as arrays:
        assert ("probability" not in arrays) == unlabelled
        assert arrays["label"].shape == (N,)


def test_a_network_is_judged(real, tmp_path, monkeypatch):
    job = {"name": "pca-spectral", "recipe": "phasewatch", "options": {"variance": 0.9}}
    code, said, _ = learnt(data.real(real), job, tmp_path, monkeypatch)
    assert code == 0
    assert any("done" in message for message in said)
    result = said[-1]["result"]
    assert result["n_judged"] == N - 10
    assert result["error_frames"] == 0
    assert result["epochs"] == 1
    assert result["peak_memory_mib"] > 0


def test_a_training_that_fails_says_why(real, tmp_path, monkeypatch):
    job = {"name": "pca-spectral", "recipe": "phasewatch", "options": {"variance": 2.0}}
    code, said, out = learnt(data.real(real), job, tmp_path, monkeypatch)
    assert code == 1
    assert "variance is 2.0" in said[-1]["error"]
    assert not out.exists()


def test_the_journal_goes_on(real, tmp_path):
    found, job = data.real(real), Job("heating", "cnn", "phasewatch", 0)
    journal = Journal(tmp_path)
    journal.enter(found)
    assert journal.done(job) is None
    journal.add(job, {"confidence": 0.5})
    journal.add(Job("heating", "fcnn", "phasewatch", 0), {"error": "no"})

    again = Journal(tmp_path)
    again.enter(found)
    assert again.done(job)["confidence"] == 0.5
    assert again.done(Job("heating", "cnn", "phasewatch", 1)) is None
    failed = Job("heating", "fcnn", "phasewatch", 0)
    assert again.record(failed)["error"] == "no"
    assert again.done(failed) is None  # it is tried again

    with np.load(real) as archive:
        arrays = dict(archive)
    np.savez(real, **(arrays | {"intensity": arrays["intensity"] * 2}))
    again.enter(data.real(real))
    assert again.done(job) is None  # other data of that name


def test_a_file_that_is_no_journal_is_refused(tmp_path):
    (tmp_path / "comparison.json").write_text('{"data": {}}')
    with pytest.raises(PipelineError, match="not the record of a comparison"):
        Journal(tmp_path)


def record(name, recipe, **more):
    fields = {"n_parameters": 1000, "boundary": [10.0], "confidence": 1.0}
    return {"data": "d", "name": name, "recipe": recipe, **fields, **more}


def test_mean_and_spread_over_seeds():
    shown = table.columns("T (K)")
    records = [
        record("nearest-centroid", NO_RECIPE),
        record("cnn", "phasewatch", boundary=[10.0], confidence=0.9),
        record("cnn", "phasewatch", boundary=[14.0], confidence=0.7),
        record("cnn", "phasewatch", error="diverged"),
    ]
    rows = table.rows(records, [c.field for c in shown])
    assert [row.name for row in rows] == ["cnn", "nearest-centroid"]
    cnn = dict(zip(table.headings(shown), table.cells(rows[0], shown), strict=True))
    assert cnn["seeds"] == "2 (1 failed)"
    assert cnn["parameters"] == "1,000"
    assert cnn["boundary"] == f"12.0 ± {2 * 2**0.5:.1f}"
    assert cnn["confidence %"] == f"80.00 ± {10 * 2**0.5:.2f}"
    assert cnn["error K"] == "-"
    assert table.markdown(rows, shown).count("\n") == 4


def test_the_width_of_all_boundaries_is_said():
    shown = table.columns("index")
    records = [
        record("cnn", "thesis", boundary=[10.0]),
        record("fcnn", "thesis", boundary=[14.0]),
        record("nearest-centroid", NO_RECIPE, boundary=[90.0]),
    ]
    said = table.remarks(table.rows(records, [c.field for c in shown]), 100, [12.0])
    assert said[0] == "true boundary: 12 of 100 frames"
    assert "thesis: boundaries of our 2 models lie within 4.0 %" in said[1]


def test_sweeps_are_drawn_with_their_arrays(tmp_path, monkeypatch):
    monkeypatch.setattr(sweeps, "BINS", (sweeps.Bins("4.6", "cnn", 3),))
    jobs = sweeps.jobs("d", ("phasewatch",), 2)
    assert len(jobs) == 2 * (1 + 3)
    variance = {"variance": [0.6, 0.9], "confidence": [0.5, 1.0]}

    def found(job):
        if job.name == "cnn":
            return None if job.options == {"bins": 2} else {"confidence": 0.25 + job.seed / 2}
        return variance

    drawn = sweeps.draw(tmp_path, "d", ("phasewatch",), 2, found)
    assert [path.name for path in drawn] == ["figure-3.7-d.png", "figure-4.6-d.png"]
    with np.load(tmp_path / "figure-4.6-d.npz") as arrays:
        assert arrays["phasewatch_x"].tolist() == [1, 2, 3]
        np.testing.assert_array_equal(arrays["phasewatch_confidence"][:, 0], [0.25, 0.75])
        assert np.isnan(arrays["phasewatch_confidence"][:, 1]).all()


def test_the_whole_and_its_second_call(pair, tmp_path, monkeypatch):
    out = tmp_path / "out"
    arguments = ("--data", f"{pair[0]}:{pair[1]}", "--seeds", 2, "--jobs", 2, "--out", out)
    arguments += ("--models", "nearest-centroid,change-points-rbf")
    first = command(*arguments)
    assert first.exit_code == 0, first.output
    assert "true boundary: 36 of 60 frames" in first.output
    files = {path.name for path in out.iterdir()}
    tables = {"comparison.json", "comparison.csv", "comparison.md"}
    assert files == {*tables, "a-b.png", "answers", "data"}
    document = json.loads((out / "comparison.json").read_text())
    assert document["machine"]["versions"]["numpy"] == np.__version__
    by_name = {record["name"]: record for record in document["trials"]}
    judged = by_name["nearest-centroid"]
    assert judged["error_frames"] <= 1
    assert judged["memory_before_mib"] > 0
    # of a process of its own, which has no torch, as this one may have
    assert judged["memory_before_mib"] <= judged["peak_memory_mib"] < 600
    with (out / "comparison.csv").open() as file:
        named = [row["model"] for row in csv.DictReader(file)]
    assert named == ["nearest-centroid", "change-points-rbf"]

    asked = []
    monkeypatch.setattr(Runner, "run", lambda self, jobs, tell: iter(asked.append(jobs) or ()))
    written = (out / "comparison.md").read_text()
    assert "2 done before" in command(*arguments).output
    assert asked == [[]]
    assert (out / "comparison.md").read_text() == written
    assert command(*arguments, "--models", "nearest-centroid,gradient-boosting").exit_code == 0
    assert [(job.name, job.seed) for job in asked[1]] == [
        ("gradient-boosting", 0),
        ("gradient-boosting", 1),
    ]


def test_a_failure_is_told_and_the_rest_goes_on(real, tmp_path, monkeypatch):
    def half(self, jobs, tell):
        for job in jobs:
            failed = job.name == "change-points-l2"
            yield job, {"error": "no change"} if failed else record("x", "y")

    monkeypatch.setattr(Runner, "run", half)
    names = "change-points-l2,change-points-rbf"
    done = command("--data", real, "--models", names, "--out", tmp_path / "out")
    assert done.exit_code == 1
    assert "heating--change-points-l2--0: no change" in done.output
    assert "(1 failed)" in done.output


def test_a_child_that_dies_is_a_failure(tmp_path):
    runner = Runner({"d": tmp_path / "missing.npz"}, tmp_path / "answers", at_once=1)
    jobs = [Job("d", "change-points-l2", NO_RECIPE, 3)]
    found = list(runner.run(jobs, lambda *a: None))
    assert [job.seed for job, _ in found] == [3]
    assert all("No such file" in result["error"] for _, result in found)


@pytest.mark.parametrize("figure", sweeps.BINS)
def test_what_is_swept_is_an_option_of_the_model(figure):
    jobs = [job for job in sweeps.jobs("d", ("thesis",), 1) if job.name == figure.model]
    nets = [create(job.name, n_points=POINTS, n_classes=2, **job.options) for job in jobs]
    assert [net.bins.bins for net in nets] == list(range(1, figure.most + 1))
