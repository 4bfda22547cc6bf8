import pickle
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from phasewatch.models import ModelError, create, device, gaps
from phasewatch.models.novelty import Novelty
from phasewatch.models.predict import Predictor

PATTERNS = np.random.default_rng(3).random((24, 160), np.float32)
PATTERNS[4, 10:30] = np.nan


@pytest.fixture(scope="module")
def predictor(trained):
    return Predictor(*trained, device="cpu")


@pytest.fixture(scope="module")
def expected(predictor):
    return predictor(PATTERNS)


def test_a_tensor_gives_what_the_array_does(predictor, expected):
    found = predictor(torch.from_numpy(PATTERNS))
    # bridging may round otherwise; what has no gap is the same to the last bit
    whole = np.isfinite(PATTERNS).all(axis=1)
    assert np.array_equal(found.probability[whole], expected.probability[whole])
    np.testing.assert_allclose(found.probability, expected.probability, atol=1e-6)
    np.testing.assert_allclose(found.novelty, expected.novelty, rtol=1e-6)
    assert found.probability.dtype == found.novelty.dtype == np.float32
    assert predictor(torch.from_numpy(PATTERNS[:0])).novelty.shape == (0,)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), share=st.floats(0, 0.9), scale=st.sampled_from([1, 1e17]))
def test_tensors_are_bridged_and_refused_as_arrays_are(seed, share, scale):
    rng = np.random.default_rng(seed)
    rows = (rng.random((4, 30)) * scale).astype(np.float32)
    rows[rng.random(rows.shape) < share] = rng.choice([np.nan, np.inf])
    try:
        wanted = gaps.bridge(rows)
    except ModelError as error:
        with pytest.raises(ModelError, match=re.escape(str(error))):
            device.bridge(torch.from_numpy(rows))
    else:
        found = device.bridge(torch.from_numpy(rows)).numpy()
        assert np.array_equal(found[np.isfinite(rows)], wanted[np.isfinite(rows)])
        np.testing.assert_allclose(found, wanted, rtol=1e-6)


@pytest.mark.parametrize("m", [20, 160, 256])
def test_the_novelty_of_a_tensor_is_that_of_the_array(m):
    rng = np.random.default_rng(m)
    patterns = rng.random((5, 256), np.float32)
    patterns[4] = 3.0
    axes = np.linalg.qr(rng.normal(size=(m, 7)))[0].T
    arrays = (rng.normal(size=m), axes, rng.uniform(0.1, 9, 7), np.array([1.5, 0.4]))
    score = Novelty(*(a.astype(np.float32) for a in arrays))
    found = device.novelty(score, torch.from_numpy(patterns))
    np.testing.assert_allclose(found.numpy(), score(patterns), rtol=1e-6)


@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_a_pattern_gives_the_same_bits_in_any_batch(predictor, expected, data):
    order = data.draw(st.permutations(range(len(PATTERNS))))
    cuts = sorted(data.draw(st.sets(st.integers(1, len(PATTERNS) - 1), max_size=5)))
    for part in np.split(np.array(order), cuts):
        # another memory layout and alignment must not matter either
        offset = data.draw(st.integers(0, 3))
        padded = np.zeros((len(part), 160 + offset), np.float32)
        padded[:, offset:] = PATTERNS[part]
        found = predictor(padded[:, offset:])
        assert np.array_equal(found.probability, expected.probability[part])
        assert np.array_equal(found.novelty, expected.novelty[part])


def test_batch_of_many_points_gives_the_same_bits(trained):
    """At 4023 points torch's matrix product does differ from its sum over single rows."""
    torch.manual_seed(0)
    _, card, novelty = trained
    net = create(card.architecture, n_points=4023, n_classes=2)
    axis = card.axis.model_copy(update={"n": 4023, "points": None})
    card = card.model_copy(update={"axis": axis, "classes": ("a", "b")})
    predictor = Predictor(net, card, novelty, device="cpu")
    x = np.random.default_rng(0).random((9, 4023), np.float32)
    together = predictor(x).probability
    apart = np.concatenate([predictor(row[None]).probability for row in x])
    assert np.array_equal(together, apart)


def test_threads_do_not_matter_and_are_left_alone(predictor, expected):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert np.array_equal(predictor(PATTERNS).probability, expected.probability)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_it_travels_to_another_process(predictor, expected):
    found = pickle.loads(pickle.dumps(predictor))(PATTERNS)
    assert np.array_equal(found.probability, expected.probability)
    assert np.array_equal(found.novelty, expected.novelty)


def test_what_comes_out(predictor, expected):
    assert expected.probability.shape == (24, len(predictor.card.classes))
    assert expected.probability.dtype == expected.novelty.dtype == np.float32
    np.testing.assert_allclose(expected.probability.sum(axis=1), 1, rtol=1e-6)
    assert expected.novelty.shape == (24,)
    assert (expected.novelty >= 0).all()
    none = predictor(PATTERNS[:0])
    assert none.probability.shape == (0, len(predictor.card.classes))
    assert none.novelty.shape == (0,)


def test_integers_and_doubles_are_taken(predictor):
    counts = np.random.default_rng(0).integers(0, 4000, (2, 160))
    a, b = predictor(counts.astype(np.uint16)), predictor(counts.astype(np.float64))
    assert np.array_equal(a.probability, b.probability)


def test_temperature_scales_the_logits(trained):
    net, card, novelty = trained
    hot = Predictor(net, card.model_copy(update={"temperature": 2.0}), novelty, device="cpu")
    cold = Predictor(net, card, novelty, device="cpu")
    p, q = cold(PATTERNS[:3]).probability, hot(PATTERNS[:3]).probability
    ratio = np.log(p[:, 1] / p[:, 0]) / np.log(q[:, 1] / q[:, 0])
    np.testing.assert_allclose(ratio, 2 / card.temperature, rtol=1e-3)


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (PATTERNS[:, :-1], r"shape \(24, 159\), not \(n, 160\)"),
        (PATTERNS[0], "shape"),
        (np.full((1, 160), np.nan), "pattern 0: only 0 of 160 bins"),
        (np.ones((1, 160)), "pattern 0: all bins are 1"),
        (
            np.where(np.arange(160) == 5, 3e38, PATTERNS[:1]),
            "pattern 0: a bin is 3e\\+38, above 1e\\+16",
        ),
    ],
)
def test_refusals(predictor, patterns, message):
    with pytest.raises(ModelError, match=message):
        predictor(patterns)
    with pytest.raises(ModelError, match=message):
        predictor(torch.from_numpy(patterns))


def test_a_network_that_overflows(trained):
    _, card, novelty = trained

    class Overflow(torch.nn.Module):
        def forward(self, x):
            return torch.full((len(x), len(card.classes)), float("nan"))

    with pytest.raises(ModelError, match="pattern 0: the network gives no finite value"):
        Predictor(Overflow(), card, novelty, device="cpu")(PATTERNS)


@pytest.mark.parametrize("device", ["tpu", "", "cuda:999", "meta"])
def test_unknown_device(trained, device):
    with pytest.raises(ModelError, match="device "):
        Predictor(*trained, device=device)


def test_context_is_refused(trained):
    net, card, novelty = trained
    with pytest.raises(ModelError, match="context: the card has 5, the network 0"):
        Predictor(net, card.model_copy(update={"context": 5}), novelty)


def test_memory_is_for_models_with_context(predictor, expected):
    assert expected.memory is None
    with pytest.raises(ModelError, match="earlier: the model has no context"):
        predictor(PATTERNS, np.zeros((1, 4), np.float32))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_gives_the_same_bits_in_any_batch(trained, expected):
    predictor = Predictor(*trained, device="cuda")
    together = predictor(PATTERNS).probability
    apart = np.concatenate([predictor(row[None]).probability for row in PATTERNS])
    assert np.array_equal(together, apart)
    np.testing.assert_allclose(together, expected.probability, atol=1e-3)


def test_replace_keeps_novelty_apart(trained):
    """The score is that of the statistics alone: twice the limits, half the score."""
    net, card, novelty = trained
    wide = replace(novelty, limits=2 * novelty.limits)
    a = Predictor(net, card, novelty, device="cpu")(PATTERNS).novelty
    b = Predictor(net, card, wide, device="cpu")(PATTERNS).novelty
    np.testing.assert_allclose(a, 2 * b, rtol=1e-6)
