"""The names of the architectures, and how to make one.

An architecture is one module with a function
``build(*, n_points, n_classes, **options) -> torch.nn.Module`` that maps patterns
(n, n_points) float32 to logits (n, 1) for two classes or (n, n_classes) for more, and one line
below. Its module, and with it torch, is imported when the first network is made. One that sees
windows of earlier patterns too is described in `phasewatch.models.networks.sequence`.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from inspect import Parameter, signature
from types import ModuleType
from typing import TYPE_CHECKING, Any

from phasewatch.models.errors import ModelError

if TYPE_CHECKING:
    from torch import nn

# What `train` gives to every architecture; all else that one takes is an option of its own.
GIVEN = {"n_points", "n_classes", "series", "axis", "recipe", "seed", "progress"}

KINDS: dict[Any, tuple[tuple[type, ...], str]] = {
    int: ((int,), "a whole number"),
    bool: ((bool,), "true or false"),
    float: ((float, int), "a number"),
}

_modules: dict[str, str] = {}


def register(name: str, module: str) -> None:
    """Offer the function ``build`` of `module` as architecture `name`.

    Raises
    ------
    ModelError
        The name is taken.
    """
    if name in _modules:
        raise ModelError(f"model {name!r} is registered twice: {_modules[name]} and {module}")
    _modules[name] = module


register("binned-fcnn", "phasewatch.models.networks.binned_fcnn")
register("binned-mlp", "phasewatch.models.networks.binned_mlp")
register("cnn", "phasewatch.models.networks.cnn")
register("conv-sc", "phasewatch.models.networks.conv_sc")
register("conv-sct", "phasewatch.models.networks.conv_sct")
register("fcnn", "phasewatch.models.networks.fcnn")
register("lstm", "phasewatch.models.networks.lstm")
register("pca-spectral", "phasewatch.models.networks.pca_spectral")
register("resnet", "phasewatch.models.networks.resnet")
register("transformer", "phasewatch.models.networks.transformer")


def names() -> tuple[str, ...]:
    """Return the architectures' names, sorted."""
    return tuple(sorted(_modules))


def create(name: str, *, n_points: int, n_classes: int, **options: Any) -> "nn.Module":
    """Make a network with fresh weights, drawn from torch's global generator.

    Parameters
    ----------
    name
        One of `names`.
    n_points
        Points of a pattern.
    n_classes
        At least 2; 2 means one sigmoid output.
    **options
        The architecture's own.

    Raises
    ------
    ModelError
        Unknown name or option, fewer than two classes, or too few points for the architecture.
    """
    if n_classes < 2:
        raise ModelError(f"n_classes is {n_classes}: a classifier needs at least 2")
    build = module(name).build
    check_options(name, build, options)
    net: nn.Module = build(n_points=n_points, n_classes=n_classes, **options)
    return net


def module(name: str) -> ModuleType:
    """Import and return the module of an architecture.

    Beside ``build`` it may have its own training ``fit`` (see `phasewatch.models.fit`), and a text
    ``NOTE`` for the card.
    """
    if name not in _modules:
        raise ModelError(f"model {name!r} is not known; there are: {', '.join(names())}")
    return import_module(_modules[name])


def check_options(name: str, function: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Refuse options that `function`, the ``build`` or ``fit`` of `name`, does not take.

    Or not so: of what kind one is, its annotation says.
    """
    parameters = signature(function).parameters
    known = [p.name for p in parameters.values() if p.kind == Parameter.KEYWORD_ONLY]
    for option, value in options.items():
        if option not in known:
            own = ", ".join(k for k in known if k not in GIVEN) or "none"
            raise ModelError(f"model {name!r} has no option {option!r}; it has: {own}")
        kinds, said = KINDS.get(parameters[option].annotation, ((type(value),), ""))
        if type(value) not in kinds:
            raise ModelError(f"{name}: {option}={value!r}: {said}")


def n_outputs(n_classes: int) -> int:
    """Return the number of logits for `n_classes`: one for two classes, else one per class."""
    return 1 if n_classes == 2 else n_classes
