import subprocess
import sys

import numpy as np
import pytest
import torch

from phasewatch.models import ModelError, create, names
from phasewatch.models.predict import probabilities
from phasewatch.models.registry import register

# thesis table 5.1, 4023 points, two classes; the binned ones of 15 bins: 1058 B + 1 and 752 B;
# pca-spectral learns no weight by gradient
TABLE_5_1 = {
    "binned-fcnn": 15_871,
    "binned-mlp": 11_280,
    "cnn": 23_307,
    "fcnn": 1_204_335,
    "pca-spectral": 0,
}


def count(net: torch.nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def test_every_architecture_has_its_published_size():
    assert set(TABLE_5_1) == set(names())
    for name, expected in TABLE_5_1.items():
        assert count(create(name, n_points=4023, n_classes=2)) == expected


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("n_points", [71, 160, 1007, 2073])
@pytest.mark.parametrize("n_classes", [2, 3, 5])
def test_shapes(name, n_points, n_classes):
    net = create(name, n_points=n_points, n_classes=n_classes).eval()
    x = torch.randn(3, n_points)
    logits = net(x)
    assert logits.shape == (3, 1 if n_classes == 2 else n_classes)
    p = probabilities(logits.detach())
    assert p.shape == (3, n_classes)
    assert p.dtype == np.float32
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize("name", names())
def test_every_parameter_is_used(name):
    torch.manual_seed(0)
    net = create(name, n_points=200, n_classes=3)
    net(torch.randn(8, 200, requires_grad=True)).square().sum().backward()
    assert [k for k, p in net.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("name", names())
def test_scale_of_a_pattern_does_not_matter(name):
    torch.manual_seed(0)
    net = create(name, n_points=200, n_classes=2).eval()
    x = torch.rand(4, 200) * 100
    torch.testing.assert_close(net(x), net(7 * x + 3), rtol=1e-3, atol=1e-3)


def test_fcnn_starts_alive():
    torch.manual_seed(0)
    net = create("fcnn", n_points=4023, n_classes=2)
    hidden = net[:-1](torch.randn(64, 4023))
    assert (hidden > 0).float().mean() > 0.3


def test_two_logits_and_one_agree():
    z = torch.tensor([[-3.0], [0.0], [2.0]])
    np.testing.assert_allclose(
        probabilities(z), probabilities(torch.cat([torch.zeros_like(z), z, z - 1e9], 1))[:, :2]
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"name": "vgg", "n_points": 100, "n_classes": 2},
            "'vgg' is not known; there are: ",
        ),
        ({"name": "cnn", "n_points": 100, "n_classes": 1}, "n_classes is 1"),
        ({"name": "cnn", "n_points": 70, "n_classes": 2}, "n_points=70 is too short; at least 71"),
        ({"name": "fcnn", "n_points": 1, "n_classes": 2}, "n_points=1 "),
        (
            {"name": "cnn", "n_points": 100, "n_classes": 2, "width": 3},
            "no option 'width'",
        ),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(ModelError, match=message):
        create(**arguments)


def test_a_name_is_registered_once():
    with pytest.raises(ModelError, match="'cnn' is registered twice"):
        register("cnn", "somewhere.else")


def test_importing_the_package_and_its_commands_stays_light():
    code = (
        "import sys, phasewatch.models, phasewatch.models.commands, phasewatch.models.confidence\n"
        "print([m for m in ('torch', 'matplotlib', 'h5py', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_lazy_names():
    import phasewatch.models as models

    for name in models.__all__:
        assert getattr(models, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = models.nonsense
