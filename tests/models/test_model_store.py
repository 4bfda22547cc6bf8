import hashlib
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from phasewatch.models import ModelError
from phasewatch.models.predict import Predictor
from phasewatch.models.store import load, save

FILES = {"model.safetensors", "card.json"}


@pytest.fixture
def folder(trained, tmp_path):
    save(tmp_path / "model", *trained)
    return tmp_path / "model"


def rewrite_tensors(folder, change) -> None:
    """Change the tensors, and the card's digest with them."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    rewrite_card(folder, sha256=digest)


def rewrite_card(folder, **changes) -> None:
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps({**card, **changes}))


def test_round_trip_is_bit_identical(trained, folder):
    net, card, novelty = trained
    loaded = load(folder)
    assert {p.name for p in folder.iterdir()} == FILES
    for key, tensor in net.state_dict().items():
        assert torch.equal(loaded[0].state_dict()[key], tensor)
    assert not loaded[0].training
    assert loaded[1] == card.model_copy(update={"sha256": loaded[1].sha256})
    for name, array in novelty.arrays().items():
        assert np.array_equal(loaded[2].arrays()[name], array)
    x = np.random.default_rng(0).random((5, card.axis.n), np.float32)
    a, b = Predictor(net, card, novelty, device="cpu")(x), Predictor.load(folder, device="cpu")(x)
    assert np.array_equal(a.probability, b.probability)
    assert np.array_equal(a.novelty, b.novelty)


def test_card_is_complete(folder):
    card = load(folder)[1]
    assert card.n_parameters > 0
    assert len(card.sha256) == 64
    assert set(card.versions) == {"phasewatch", "torch", "numpy"}
    assert set(card.training.recipe) >= {"name", "epochs", "shown", "rate", "augmentation"}
    assert card.training.labels
    assert card.baseline == {"method": "asls", "lam": 1e5}


@pytest.mark.parametrize("name", sorted(FILES))
def test_missing_file(folder, name):
    (folder / name).unlink()
    with pytest.raises(ModelError, match=f"{name} is missing"):
        load(folder)


def test_missing_folder(tmp_path):
    with pytest.raises(ModelError, match="is missing: a model is a folder with"):
        load(tmp_path / "nowhere")


@pytest.mark.parametrize("size", [0, 7, 100, -1])
def test_truncated_weights(folder, size):
    path = folder / "model.safetensors"
    content = path.read_bytes()[:size]
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"card.json: sha256: .* but model.safetensors has"):
        load(folder)
    rewrite_card(folder, sha256=hashlib.sha256(content).hexdigest())
    with pytest.raises(ModelError, match=r"model\.safetensors: not a safetensors file"):
        load(folder)


def test_flipped_bit(folder):
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-10] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelError, match="sha256"):
        load(folder)


def test_a_pickle_is_not_opened(folder):
    torch.save({"net.0.weight": torch.zeros(3)}, folder / "model.safetensors")
    content = (folder / "model.safetensors").read_bytes()
    rewrite_card(folder, sha256=hashlib.sha256(content).hexdigest())
    with pytest.raises(ModelError, match="not a safetensors file"):
        load(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_parameters": 5}, "card.json: n_parameters: 5, but the network has"),
        ({"architecture": "vgg"}, "card.json: model 'vgg' is not known"),
        ({"options": {"depth": 3}}, r"card.json: model '\w+' has no option 'depth'"),
        ({"classes": ["a", "b", "c", "d"]}, "does not match: tensor net"),
        (
            {"axis": {"start": 0, "stop": 1, "n": 161, "unit": "2th_deg"}},
            "does not match: tensor net",
        ),
        ({"sha256": ""}, "sha256: empty"),
    ],
)
def test_card_of_another_model(folder, change, message):
    rewrite_card(folder, **change)
    with pytest.raises(ModelError, match=message):
        load(folder)


def test_card_of_another_architecture(folder):
    other = "cnn" if load(folder)[1].architecture == "fcnn" else "fcnn"
    rewrite_card(folder, architecture=other)
    with pytest.raises(ModelError, match="does not match: tensor net"):
        load(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("net.0.weight"), "tensor net.0.weight is in only one of them"),
        (lambda t: t.update({"net.more": torch.zeros(2)}), "tensor net.more is in only one"),
        (lambda t: t.update({"net.0.weight": t["net.0.weight"].double()}), "float64"),
        (lambda t: t["net.0.weight"].fill_(float("nan")), "net.0.weight is not finite"),
        (lambda t: t.pop("novelty.mean"), "novelty statistics: .* not "),
        (lambda t: t["novelty.limits"].fill_(0), "must be positive"),
        (lambda t: t["novelty.axes"].fill_(float("inf")), "not finite"),
        (lambda t: t.update({"novelty.mean": torch.zeros(3)}), "shapes of mean"),
    ],
)
def test_tampered_tensors(folder, change, message):
    rewrite_tensors(folder, change)
    with pytest.raises(ModelError, match=message) as error:
        load(folder)
    assert "model.safetensors" in str(error.value)


def test_card_without_tensors_is_never_left(trained, folder, monkeypatch):
    from pathlib import Path

    def full(self, content):
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="no space"):
        save(folder, *trained)
    assert not (folder / "card.json").exists()
