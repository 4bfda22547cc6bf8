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
    "fcnn": 1_204_335,
    "cnn": 23_307,
    "resnet": 2_354_535,
    "lstm": 6_273_391,
    "transformer": 1_830_511,
    "conv-sc": 659_525,
    "conv-sct": 1_953_353,
    "binned-fcnn": 15_871,
    "binned-mlp": 11_280,
    "pca-spectral": 0,
}
NEVER_CALLED = {"resnet": 4023 * 512 + 512}  # a linear layer that the table counts
SHORTEST = {"resnet": 69, "cnn": 71, "conv-sc": 27, "conv-sct": 27}  # others: 2


def count(net: torch.nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize("name", TABLE_5_1)
def test_every_architecture_has_its_published_size(name):
    expected = TABLE_5_1[name] - NEVER_CALLED.get(name, 0)
    assert count(create(name, n_points=4023, n_classes=2)) == expected


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("n_points", [71, 160, 1007])
@pytest.mark.parametrize("n_classes", [2, 3, 5])
def test_shapes(name, n_points, n_classes, synthetic):
    net = create(name, n_points=n_points, n_classes=n_classes).eval()
    logits = net(synthetic.as_input(net, torch.randn(3, n_points)))
    assert logits.shape == (3, 1 if n_classes == 2 else n_classes)
    p = probabilities(logits.detach())
    assert p.shape == (3, n_classes)
    assert p.dtype == np.float32
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize("name", [k for k in TABLE_5_1 if k[:3] not in ("bin", "pca")])
def test_the_shortest_pattern(name, synthetic):
    shortest = SHORTEST.get(name, 2)
    net = create(name, n_points=shortest, n_classes=2).train()
    assert net(synthetic.as_input(net, torch.randn(4, shortest))).isfinite().all()
    with pytest.raises(ModelError, match=f"{name}: .*n_points={shortest - 1} .*least {shortest}"):
        create(name, n_points=shortest - 1, n_classes=2)


@pytest.mark.parametrize("name", names())
def test_every_parameter_is_used(name, synthetic):
    torch.manual_seed(0)
    net = create(name, n_points=200, n_classes=3)
    x = torch.randn(8, 200, requires_grad=True)
    net(synthetic.as_input(net, x)).square().sum().backward()
    assert [k for k, p in net.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("name", ["cnn", "fcnn", "resnet", "lstm", "transformer"])
def test_scale_of_a_pattern_does_not_matter(name, synthetic):
    torch.manual_seed(0)
    net = create(name, n_points=200, n_classes=2).eval()
    x = synthetic.as_input(net, torch.rand(4, 200) * 100)
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
        ({"name": "cnn", "n_points": 99, "n_classes": 2, "pools": (2, 2)}, "pools="),
        (
            {"name": "cnn", "n_points": 102, "n_classes": 2, "pools": [2, 3, 2]},
            "n_points=102 is too short; at least 103",
        ),
        *(
            (
                {"name": name, "n_points": 99, "n_classes": 2, "context": context},
                f"{name}: context={context}: a whole number",
            )
            for name, context in (("lstm", 0), ("transformer", 2.5), ("conv-sct", True))
        ),
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


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("binned-mlp", "bins", "15"),
        ("binned-fcnn", "bins", None),
        ("binned-mlp", "smooth", 5.0),
        ("binned-mlp", "bins", True),
        ("binned-mlp", "soft", 1),
        ("conv-sc", "standardise", "no"),
        ("lstm", "context", [3]),
        ("pca-spectral", "n_fitted", 1.5),
    ],
)
def test_an_option_of_another_kind_is_refused(name, option, value):
    with pytest.raises(ModelError, match=f"{name}: {option}=.*: (a whole number|true or false)"):
        create(name, n_points=200, n_classes=2, **{option: value})
