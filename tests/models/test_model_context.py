"""A predictor with temporal context: any cut of a series gives the same bits."""

import pickle
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from phasewatch.models import ModelError, fresh
from phasewatch.models.evaluate import BLOCK, evaluate
from phasewatch.models.predict import Predictor, eager, windows
from phasewatch.models.store import load

CONTEXT = {"lstm": 15, "transformer": 30, "conv-sct": 30}
N = 160


@pytest.fixture(scope="module", params=CONTEXT)
def setting(request, synthetic, tmp_path_factory):
    series, _ = synthetic.series(n=BLOCK + 9)
    folder = tmp_path_factory.mktemp("model")
    fresh.save(
        folder,
        request.param,
        patterns=series.intensity,
        axis=series.axis,
        unit=series.unit,
        baseline=series.baseline,
        normalise=series.normalise,
        classes=("a", "b", "c"),
        seed=1,
    )
    predictor = Predictor.load(folder, device="cpu")
    return SimpleNamespace(
        folder=folder,
        series=series,
        predictor=predictor,
        context=CONTEXT[request.param],
        whole=predictor(series.intensity),
    )


def test_the_card_says_how_much(setting):
    assert setting.predictor.card.context == setting.context
    assert setting.whole.memory.shape[0] == setting.context
    assert setting.whole.memory.dtype == np.float32


@settings(deadline=None, max_examples=4)
@given(cuts=st.sets(st.integers(0, BLOCK + 9), max_size=6))
def test_any_cut_gives_the_same_bits(setting, cuts):
    memory, parts = None, []
    for part in np.split(setting.series.intensity, sorted(cuts)):
        parts.append(setting.predictor(part, memory))
        memory = parts[-1].memory
        assert len(memory) == min(sum(len(p.probability) for p in parts), setting.context)
    probability = np.concatenate([part.probability for part in parts])
    assert np.array_equal(probability, setting.whole.probability)
    assert np.array_equal(np.concatenate([part.novelty for part in parts]), setting.whole.novelty)
    assert np.array_equal(memory, setting.whole.memory)


def test_one_at_a_time_in_another_process(setting):
    predictor = pickle.loads(pickle.dumps(setting.predictor))
    memory = None
    for i, pattern in enumerate(setting.series.intensity[:40]):
        found = predictor(pattern[None], memory)
        memory = found.memory
        assert np.array_equal(found.probability[0], setting.whole.probability[i])


def test_no_later_pattern_matters_and_only_the_context_does(setting):
    changed = setting.series.intensity.copy()
    changed[20] = changed[20, ::-1]
    found = setting.predictor(changed).probability
    differs = (found != setting.whole.probability).any(axis=1)
    assert not differs[:20].any()
    assert differs[20 : 21 + setting.context].all()
    assert not differs[21 + setting.context :].any()


def test_it_is_what_torch_gives_a_whole_series(setting):
    net, _, _ = load(setting.folder)
    expected = eager(net, setting.series.intensity)
    np.testing.assert_allclose(setting.whole.probability, expected, atol=1e-5)
    forward = fresh.plain_forward(setting.folder)
    logits = np.concatenate([forward(p) for p in np.split(setting.series.intensity, [1, 5, 50])])
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    np.testing.assert_allclose(odds / odds.sum(axis=1, keepdims=True), expected, atol=1e-5)


def test_evaluation_hands_the_memory_on_and_skips_what_cannot_be_used(setting):
    found = evaluate(setting.predictor, setting.series)
    assert np.array_equal(found.probability, setting.whole.probability)
    holed = np.insert(setting.series.intensity, [3, 30, 30], np.nan, axis=0)
    found = evaluate(setting.predictor, replace(setting.series, intensity=holed))
    assert np.array_equal(found.probability, setting.whole.probability)


def test_a_call_that_raises_changes_nothing(setting):
    first = setting.predictor(setting.series.intensity[:10])
    kept = first.memory.copy()
    bad = setting.series.intensity[10:20].copy()
    bad[4] = np.nan
    with pytest.raises(ModelError, match="pattern 4: only 0 of 160 bins"):
        setting.predictor(bad, first.memory)
    assert np.array_equal(first.memory, kept)
    found = setting.predictor(setting.series.intensity[10:20], first.memory)
    assert np.array_equal(found.probability, setting.whole.probability[10:20])


def test_memory_that_does_not_fit(setting):
    e, c = setting.whole.memory.shape[1], setting.context
    for bad in (np.zeros((c + 1, e)), np.zeros((2, e - 1)), np.zeros(e)):
        with pytest.raises(ModelError, match=rf"earlier: shape .*, not \(m, {e}\) with m at most"):
            setting.predictor(setting.series.intensity[:2], bad.astype(np.float32))


def test_a_card_with_another_context(setting):
    net, card, novelty = load(setting.folder)
    with pytest.raises(ModelError, match=f"context: the card has 5, the network {card.context}"):
        Predictor(net, card.model_copy(update={"context": 5}), novelty)


def test_windows():
    features = torch.arange(6.0)[:, None]
    found = [[w[:, 0].tolist() for w in part] for part in windows(features, first=1, context=2)]
    assert found == [[[0, 1]], [[0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 5]]]
    assert list(windows(features, first=6, context=2)) == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_gives_the_same_bits_for_any_cut(setting):
    predictor = Predictor.load(setting.folder, device="cuda")
    whole = predictor(setting.series.intensity)
    memory, parts = None, []
    for part in np.split(setting.series.intensity, [1, 2, 40]):
        parts.append(predictor(part, memory))
        memory = parts[-1].memory
    assert np.array_equal(np.concatenate([p.probability for p in parts]), whole.probability)
    np.testing.assert_allclose(whole.probability, setting.whole.probability, atol=1e-3)
