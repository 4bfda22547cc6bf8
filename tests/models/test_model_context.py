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
from phasewatch.models.predict import Memory, Predictor, eager, windows
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
    assert len(setting.whole.memory.features) == setting.context
    assert setting.whole.memory.features.dtype == np.float32


@settings(deadline=None, max_examples=4)
@given(cuts=st.sets(st.integers(0, BLOCK + 9), max_size=6))
def test_any_cut_gives_the_same_bits(setting, cuts):
    memory, parts = None, []
    for part in np.split(setting.series.intensity, sorted(cuts)):
        parts.append(setting.predictor(part, memory))
        memory = parts[-1].memory
        assert len(memory.features) == min(sum(len(p.probability) for p in parts), setting.context)
    probability = np.concatenate([part.probability for part in parts])
    assert np.array_equal(probability, setting.whole.probability)
    assert np.array_equal(np.concatenate([part.novelty for part in parts]), setting.whole.novelty)
    assert np.array_equal(memory.features, setting.whole.memory.features)
    assert np.array_equal(memory.position, setting.whole.memory.position)


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
    holed = np.insert(setting.series.intensity, [30, 30], np.nan, axis=0)
    index = np.arange(len(holed))
    found = evaluate(setting.predictor, replace(setting.series, intensity=holed, index=index))
    assert np.array_equal(found.probability[:30], setting.whole.probability[:30])
    # The windows of those behind the holes are shorter by them, and nobody older comes in.
    after = 30 + setting.context
    assert np.array_equal(found.probability[after:], setting.whole.probability[after:])
    behind = setting.series.intensity[30 - setting.context + 2 : 31]
    assert np.array_equal(found.probability[30], setting.predictor(behind).probability[-1])


def test_a_call_that_raises_changes_nothing(setting):
    first = setting.predictor(setting.series.intensity[:10])
    kept = first.memory.features.copy()
    bad = setting.series.intensity[10:20].copy()
    bad[4] = np.nan
    with pytest.raises(ModelError, match="pattern 4: only 0 of 160 bins"):
        setting.predictor(bad, first.memory)
    assert np.array_equal(first.memory.features, kept)
    found = setting.predictor(setting.series.intensity[10:20], first.memory)
    assert np.array_equal(found.probability, setting.whole.probability[10:20])


def test_memory_that_does_not_fit(setting):
    e = setting.whole.memory.features.shape[1]
    for bad in (np.zeros((3, e)), np.zeros((2, e - 1)), np.zeros(e)):
        memory = Memory(bad.astype(np.float32), np.arange(2))
        with pytest.raises(ModelError, match=rf"earlier: shape .* at 2 positions, not \(m, {e}\)"):
            setting.predictor(setting.series.intensity[:2], memory)
    for position in ([3, 3], [4, 3], [1]):
        with pytest.raises(ModelError, match="position: one for each pattern, rising"):
            setting.predictor(setting.series.intensity[:2], position=np.array(position))


def test_a_card_with_another_context(setting):
    net, card, novelty = load(setting.folder)
    with pytest.raises(ModelError, match=f"context: the card has 5, the network {card.context}"):
        Predictor(net, card.model_copy(update={"context": 5}), novelty)


def test_windows():
    features = torch.arange(6.0)[:, None]

    def of(*first):
        return [[w[:, 0].tolist() for w in part] for part in windows(features, np.array(first))]

    assert of(0, 0, 1, 2, 3) == [[[0, 1]], [[0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 5]]]
    assert of(4, 5) == [[[4], [5]]]
    assert list(windows(features, np.empty(0, np.int64))) == []


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
