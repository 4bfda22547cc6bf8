import json

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from phasewatch.models import ModelError, store
from phasewatch.models.explain.command import explain
from phasewatch.models.networks import pca_spectral
from phasewatch.models.training import Recipe, train

app = typer.Typer()
app.command("explain")(explain)


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def folder(synthetic, tmp_path_factory):
    """Write an FCNN, the series it was trained on with empty bins, and the series' true peaks."""
    folder = tmp_path_factory.mktemp("explain")
    series, truth = synthetic.series(n=30)
    labels = synthetic.labels(truth, [0, 4, 8, 12, 16, 20, 24, 28])
    store.save(folder / "model", *train(series, labels, model="fcnn", recipe=Recipe(epochs=5)))
    card = store.read_card(folder / "model")
    plain = card.model_copy(update={"baseline": {"method": "none"}, "normalise": "none"})
    (folder / "model" / "card.json").write_text(plain.to_json())
    intensity = series.intensity.copy()
    intensity[3, 10:13] = np.nan
    intensity[7] = np.nan
    np.savez(folder / "series.npz", x=series.axis, intensity=intensity, x_name="2th_deg")
    peaks = ((30, 62, 120), (45, 90, 135))
    regions = np.zeros((30, 160), bool)
    for i, k in enumerate(truth):
        for peak in peaks[k]:
            regions[i, peak - 3 : peak + 6] = True
    other = folder / "true"
    other.mkdir()
    np.savez(other / "peaks.npz", axis=series.axis, low=np.packbits(regions, axis=1))
    return folder


def test_writes_pictures_arrays_and_figures(folder, tmp_path):
    out, peaks = tmp_path / "out", folder / "true" / "peaks.npz"
    methods = ("gradient", "absolute", "integrated")
    chosen = [word for method in methods for word in ("--method", method)]
    arguments = (folder / "model", folder / "series.npz", "--out", out, "--peaks", peaks)
    done = run(*arguments, "--steps", 8, *chosen)
    assert done.exit_code == 0, done.output
    pictures = {*(f"importance-{m}.png" for m in methods), "weights.png"}
    assert {p.name for p in out.iterdir()} == pictures | {"explanation.npz", "explanation.json"}
    assert all((out / p).stat().st_size > 10_000 for p in pictures)

    figures = json.loads((out / "explanation.json").read_text())
    assert figures["model"] == store.read_card(folder / "model").sha256
    assert figures["n_patterns"] == 29
    assert set(figures["pictures"]) == pictures
    shares = figures["methods"]["integrated"]["peaks"]["present"]
    assert set(shares) >= {"overall", "class before"}
    assert shares["overall"]["ratio"] > 1.5
    integrated = figures["methods"]["integrated"]
    assert integrated["largest_gap"] < integrated["mean_rise"]

    with np.load(out / "explanation.npz", allow_pickle=False) as found:
        assert 7 not in found["index"]
        for method in ("gradient", "integrated"):
            assert found[method].shape == (2, 29, 160)
            assert np.isfinite(found[method]).all()
        assert found["absolute.mean"].shape == (2, 160)
        assert found["integrated.peak-fraction"].shape == (29,)
        assert found["weights.composed"].shape == (2, 160)
        np.testing.assert_allclose(found["peak-coverage"], 27 / 160)
    assert "peaks in the pattern" in done.output


def test_peaks_beside_the_series_are_found(folder, tmp_path):
    run_folder = tmp_path / "run"
    run_folder.mkdir()
    for name, source in (("series.npz", folder), ("peaks.npz", folder / "true")):
        (run_folder / name).write_bytes((source / name).read_bytes())
    arguments = (folder / "model", run_folder / "series.npz", "--method", "gradient")
    done = run(*arguments, "--every", 10, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    figures = json.loads((tmp_path / "out" / "explanation.json").read_text())
    assert figures["peaks"] == "peaks.npz"
    assert figures["n_patterns"] == 3
    assert list(figures["methods"]) == ["gradient"]


def test_without_peaks(folder, tmp_path):
    done = run(
        folder / "model",
        folder / "series.npz",
        *("--method", "absolute", "--every", 10, "--baseline", "zero"),
        *("--out", tmp_path / "out"),
    )
    assert done.exit_code == 0, done.output
    assert "on Bragg peaks" not in done.output
    figures = json.loads((tmp_path / "out" / "explanation.json").read_text())
    assert figures["methods"] == {"absolute": {"peaks": None}}
    with np.load(tmp_path / "out" / "explanation.npz") as found:
        assert found["absolute"].min() >= 0
        assert not found["baseline"].any()


def test_errors(folder, tmp_path):
    model, series = folder / "model", folder / "series.npz"
    (tmp_path / "file").write_text("")
    for arguments, message in (
        ((model, series, "--out", tmp_path / "file"), "is a file; --out is the folder"),
        ((model, series, "--peaks", tmp_path / "none.npz"), "none.npz: no file"),
        ((model, tmp_path / "none.npz"), "none.npz: no such file"),
        ((tmp_path / "none", series), "card.json is missing"),
    ):
        error = run(*arguments).exception
        assert isinstance(error, ModelError)
        assert message in str(error)
    assert run(model, series, "--method", "magic").exit_code == 2


def test_votes_say_what_they_can_show(synthetic, folder, tmp_path):
    series, truth = synthetic.series(n=30)
    label = truth[[2, 12, 20, 27]]
    fit = pca_spectral.fit(
        series.intensity[[2, 12, 20, 27]],
        label,
        series=series.intensity,
        axis=series.axis,
        n_classes=2,
        recipe=None,
        seed=0,
        progress=None,
    )
    _, card, novelty = store.load(folder / "model")
    update = {
        "architecture": "pca-spectral",
        "options": fit.options,
        "classes": ("before", "after"),
        "n_parameters": 0,
    }
    store.save(tmp_path / "votes", fit.net, card.model_copy(update=update), novelty)
    np.savez(tmp_path / "run.npz", x=series.axis, intensity=series.intensity, x_name="2th_deg")
    done = run(tmp_path / "votes", tmp_path / "run.npz", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert "pca-spectral votes and has no gradient: its loadings" in " ".join(done.output.split())
    names = {"components.png", "explanation.npz", "explanation.json"}
    assert {p.name for p in (tmp_path / "out").iterdir()} == names
    with np.load(tmp_path / "out" / "explanation.npz") as found:
        assert found["components.contributions"].sum() == pytest.approx(1, abs=1e-5)
        peaks = found["components.contributions"][[30, 45, 62, 90, 120, 135]]
        assert peaks.min() > 1 / 160
    figures = json.loads((tmp_path / "out" / "explanation.json").read_text())
    assert figures["methods"] == {}
    assert figures["weights"] == ["components"]
