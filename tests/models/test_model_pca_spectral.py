import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from phasewatch.models import ModelError, create, spectral
from phasewatch.models.confidence import classification_confidence
from phasewatch.models.networks import pca_spectral
from phasewatch.models.predict import eager
from phasewatch.models.training import Recipe

FEW = [1, 12, 25, 37]


def fitted(synthetic, *, n=40, n_classes=2, index=FEW, seed=0, **options):
    series, truth = synthetic.series(n=n, n_classes=n_classes)
    fit = pca_spectral.fit(
        series.intensity[index],
        truth[index].astype(np.int64),
        series=series.intensity,
        axis=series.axis,
        n_classes=n_classes,
        recipe=Recipe(),
        seed=seed,
        progress=None,
        **options,
    )
    return fit, series, truth


@pytest.mark.parametrize("n_classes", [2, 3])
def test_clusters_take_the_names_of_the_labels(synthetic, n_classes):
    index = [2, 7, 27, 37, 50, 57]
    fit, series, truth = fitted(synthetic, n=60, n_classes=n_classes, index=index)
    p = eager(fit.net, series.intensity)
    assert np.array_equal(p.argmax(axis=1), truth)
    assert np.array_equal(p.argmax(axis=1), fit.net.labels.argmax(dim=1))
    assert fit.notes["labels_kept"] == 1
    assert fit.notes["variance"] > 0.99
    assert 0 < fit.loss < 0.2
    other, other_truth = synthetic.series(n=30, n_classes=n_classes, seed=5, noise=0.03)
    assert np.mean(eager(fit.net, other.intensity).argmax(axis=1) == other_truth) > 0.9


def test_labels_may_be_in_another_order_than_the_series(synthetic):
    series, truth = synthetic.series()
    more = {"series": series.intensity, "axis": series.axis, "n_classes": 2, "recipe": Recipe()}
    net = pca_spectral.fit(series.intensity[FEW], 1 - truth[FEW], seed=0, progress=None, **more).net
    assert np.array_equal(eager(net, series.intensity).argmax(axis=1), 1 - truth)


def test_every_fitted_pattern_keeps_its_cluster_in_a_gradual_transition():
    """Also where clusters touch: noise alone, split into three."""
    rows = np.random.default_rng(0).random((90, 50), np.float32)
    fit = pca_spectral.fit(
        rows[[0, 40, 80]],
        np.array([0, 1, 2]),
        series=rows,
        axis=np.arange(50.0),
        n_classes=3,
        recipe=Recipe(),
        seed=1,
        progress=None,
    )
    p = eager(fit.net, rows)
    assert np.array_equal(p.argmax(axis=1), fit.net.labels.argmax(dim=1))
    assert len(fit.net.labels.argmax(dim=1).unique()) == 3
    assert p.max() < 0.92  # ten votes after Laplace are never sure
    assert p.max(axis=1).min() > 0.55


def test_the_same_seed_gives_the_same_bits_and_options_make_room_for_them(synthetic):
    a, series, _ = fitted(synthetic)
    b, _, _ = fitted(synthetic)
    again = create("pca-spectral", n_points=160, n_classes=2, **b.options)
    again.load_state_dict(b.net.state_dict())
    for x, y in zip(a.net.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(x, y)
    together = eager(again.eval(), series.intensity)
    alone = np.concatenate([eager(a.net, row[None]) for row in series.intensity])
    np.testing.assert_allclose(alone, together, atol=1e-6)


def test_components_are_those_of_sklearn(synthetic):
    series, _ = synthetic.series()
    for variance in (0.55, 0.9, 0.99, 0.9999):
        kept = spectral.components(series.intensity).first(variance)
        pca = PCA(variance, svd_solver="full").fit(series.intensity.astype(np.float64))
        np.testing.assert_allclose(kept.axes, pca.components_)
        np.testing.assert_allclose(kept.variance, pca.explained_variance_)
        np.testing.assert_allclose(kept.scores, pca.transform(series.intensity), atol=1e-9)


def test_loadings_and_contributions(synthetic):
    fit, series, _ = fitted(synthetic)
    loadings = spectral.loadings(fit.net.components.numpy(), fit.net.variance.numpy())
    assert loadings.shape == (160, fit.options["n_components"])
    # with all components L L^T is the covariance of the points
    whole = spectral.components(series.intensity)
    every = spectral.loadings(whole.axes, whole.variance)
    np.testing.assert_allclose(every @ every.T, np.cov(series.intensity.T), atol=1e-6)
    share = spectral.contributions(loadings)
    assert share.sum() == pytest.approx(1)
    assert {int(share.argmax()) in range(p - 4, p + 8) for p in (30, 62, 120, 45, 90, 135)} == {
        True,
        False,
    }


def test_names():
    count = np.array([0, 0, 1, 1, 1])
    assert spectral.names(count, np.array([1, 1, 0, 0, 1]), 2).tolist() == [1, 0]
    assert spectral.names(count[:0], count[:0], 3).tolist() == [0, 1, 2]
    assert spectral.names(np.array([2]), np.array([0]), 3)[2] == 0
    # as many for either: the order of the series decides
    assert spectral.names(np.array([0, 0]), np.array([0, 1]), 2).tolist() == [0, 1]


def test_sweep(synthetic):
    series, _ = synthetic.series()
    found = spectral.sweep(series.intensity, variances=spectral.VARIANCES[::6])
    assert found.variance.shape == found.confidence.shape == (7,)
    assert (np.diff(found.n_components) >= 0).all()
    for n, confidence in zip(found.n_components, found.confidence, strict=True):
        scores = spectral.components(series.intensity).scores[:, :n]
        label = spectral.clusters(scores, 2, seed=0)
        assert label[0] == 0
        assert classification_confidence(label, 2) == confidence
    assert found.confidence.max() == 1


def test_variances_of_figure_3_7():
    v = spectral.VARIANCES
    assert (v[0], v[22], v[23]) == (0.55, pytest.approx(0.99), 0.999)
    assert (v[-1], len(v)) == (pytest.approx(0.9999), 42)


def test_a_long_series_is_thinned(synthetic, monkeypatch):
    monkeypatch.setattr(pca_spectral, "MOST", 20)
    fit, series, truth = fitted(synthetic)
    assert fit.options["n_fitted"] == 20
    assert np.mean(eager(fit.net, series.intensity).argmax(axis=1) == truth) > 0.95


def test_progress(synthetic):
    series, truth = synthetic.series()
    calls = []
    fit = pca_spectral.fit(
        series.intensity[FEW],
        truth[FEW],
        series=series.intensity,
        axis=series.axis,
        n_classes=2,
        recipe=Recipe(),
        seed=0,
        progress=lambda *call: calls.append(call),
    )
    assert calls == [(1, 1, fit.loss)]


@pytest.mark.parametrize(
    ("n", "options", "message"),
    [
        (10, {"index": [1, 8]}, "has 10 usable patterns; each needs 10 .* at least 11"),
        (40, {"variance": 1.0}, "variance is 1.0"),
        (40, {"variance": 0.0}, "variance is 0.0"),
    ],
)
def test_refusals(synthetic, n, options, message):
    with pytest.raises(ModelError, match=message):
        fitted(synthetic, n=n, **options)


def test_too_few_clusters_and_no_difference_are_refused(synthetic, monkeypatch):
    series, truth = synthetic.series()
    more = {"axis": series.axis, "n_classes": 2, "recipe": Recipe(), "seed": 0, "progress": None}
    same = np.repeat(series.intensity[:1], 15, axis=0)
    with pytest.raises(ModelError, match="all patterns of the series are the same"):
        pca_spectral.fit(same[:2], np.array([0, 1]), series=same, **more)
    monkeypatch.setattr(spectral, "clusters", lambda scores, *_, **__: np.zeros(len(scores), int))
    with pytest.raises(ModelError, match="1 clusters were found for 2 classes"):
        pca_spectral.fit(series.intensity[FEW], truth[FEW], series=series.intensity, **more)


def test_build_refuses():
    with pytest.raises(ModelError, match="n_components=0"):
        create("pca-spectral", n_points=30, n_classes=2, n_components=0)
    with pytest.raises(ModelError, match="n_fitted=10: at least 11"):
        create("pca-spectral", n_points=30, n_classes=2, n_fitted=10)
