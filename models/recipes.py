"""The two recipes of training: the values of each, by name. Free of torch.

`Recipe` is ours, ``phasewatch``. `Thesis` holds what Sun (2023) used: Adam with L2 weight decay,
all patterns in one batch, a fixed number of steps, and replicas that are a pattern plus uniform
noise [0, 1) times an amplitude. That was 1/6 (1/12 for binned networks) for corrected counts of
which the largest in the set was 45.9, the smallest about 0; `Thesis.noise` is the amplitude as a
fraction of the range of intensities of the series, 0.00363, whatever unit or normalisation they
have.
"""

from dataclasses import dataclass, field, replace

from phasewatch.models.augment import Augmentation
from phasewatch.models.errors import ModelError

NAMES = ("phasewatch", "thesis")
LARGEST = 45.90664283740434  # corrected intensity of the published set


def _at_least_1(recipe: "Recipe | Thesis", names: tuple[str, ...]) -> None:
    for name in names:
        if getattr(recipe, name) < 1:
            raise ModelError(f"{name} is {getattr(recipe, name)}: at least 1")


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to train; our own.

    Attributes
    ----------
    epochs
        At most so many.
    replicas
        Of each labelled pattern in an epoch.
    shown
        At most so many replicas in an epoch, of labelled patterns in turn, but one of each.
    batch
        Replicas in a step.
    rate
        Of Adam, at its largest; it falls along a cosine, for networks that look back after it rose.
    mixed
        About so large a part of them is mixed with replicas of the other of two classes.
    patience
        Epochs without a lower validation loss, after which training stops.
    enough, steady
        It stops as well when that loss was below `enough` in as many epochs as `steady`, one after
        the other.
    """

    name: str = "phasewatch"
    epochs: int = 40
    replicas: int = 8
    shown: int = 96
    batch: int = 16
    rate: float = 2e-3
    patience: int = 12
    enough: float = 0.01
    steady: int = 4
    mixed: float = 0.5
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        if self.name != "phasewatch":
            raise ModelError(
                f"recipe: the values of {self.name!r} depend on the model: give the name alone, "
                f"one of {', '.join(NAMES)}"
            )
        _at_least_1(self, ("epochs", "replicas", "shown", "batch", "patience", "steady"))


@dataclass(frozen=True, slots=True)
class Thesis:
    """How the thesis trained one of its models.

    Attributes
    ----------
    epochs
        Steps, each with all patterns.
    replicas
        Of each labelled pattern, beside the pattern itself.
    noise
        Amplitude of the uniform noise, as a fraction of the series' range of intensities.
    rate, decay
        Of Adam, and the L2 penalty in its gradient.
    """

    epochs: int
    name: str = "thesis"
    replicas: int = 50
    noise: float = 1 / 6 / LARGEST
    rate: float = 2e-3
    decay: float = 2e-5

    def __post_init__(self) -> None:
        _at_least_1(self, ("epochs",))


# Table 5.1 and sections 4.2, 5.1.1; the ResNet's 4 are those of the code (its table says 6).
THESIS = {
    "fcnn": Thesis(300),
    "cnn": Thesis(5),
    "resnet": Thesis(4),
    "lstm": Thesis(25),
    "transformer": Thesis(30),
    "conv-sc": Thesis(8, rate=8e-3, decay=2e-4),
    "conv-sct": Thesis(5, rate=8e-3, decay=2e-4),
    "binned-mlp": Thesis(700, replicas=10, noise=1 / 12 / LARGEST, rate=8e-3),
    "binned-fcnn": Thesis(550, replicas=15, noise=1 / 12 / LARGEST),
    "pca-spectral": Thesis(1, replicas=0, noise=0.0),
}


def named(name: str, model: str, *, epochs: int | None = None) -> Recipe | Thesis:
    """Return the recipe `name` for the architecture `model`, perhaps with other `epochs`.

    Raises
    ------
    ModelError
        Unknown recipe, or the thesis has no such model.
    """
    if name not in NAMES:
        raise ModelError(f"recipe {name!r} is not known; there are: {', '.join(NAMES)}")
    if name == "thesis" and model not in THESIS:
        raise ModelError(f"recipe: the thesis has no model {model!r}; use phasewatch")
    recipe = THESIS[model] if name == "thesis" else Recipe()
    return recipe if epochs is None else replace(recipe, epochs=epochs)
