"""The models of `phasewatch.models`, as contenders."""

from collections.abc import Callable
from typing import Any

from phasewatch.bench.contest.contender import Answer, Contender, Progress, usable
from phasewatch.bench.contest.data import Data
from phasewatch.models import create, train
from phasewatch.models.evaluate import evaluate
from phasewatch.models.predict import Predictor
from phasewatch.models.series import Series


def prepare(data: Data, model: str) -> None:
    """Import what `model` needs, so that no measurement of time or memory contains it."""
    create(model, n_points=len(data.train.axis), n_classes=len(data.labels.classes))


def learn(
    data: Data, model: str, *, recipe: str, seed: int, options: dict[str, Any], progress: Progress
) -> Contender:
    """Train `model` by the recipe of that name.

    Raises
    ------
    ModelError
        The model, the recipe or an option is unknown, or the labels cannot be learnt from.
    """
    net, card, novelty = train(
        data.train,
        data.labels,
        model=model,
        seed=seed,
        recipe=recipe,
        progress=progress,
        **options,
    )
    predictor = Predictor(net, card, novelty, device="cpu")

    def classify(series: Series) -> Answer:
        found = evaluate(predictor, series)
        return Answer(found.index, found.label, found.probability)

    def one(series: Series) -> Callable[[int], object]:
        return _one_by_one(predictor, series)

    return Contender(
        classify,
        one,
        n_parameters=card.n_parameters,
        epochs=card.training.epochs,
        notes={"loss": card.training.loss, "temperature": card.temperature, **card.training.notes},
    )


def _one_by_one(predictor: Predictor, series: Series) -> Callable[[int], object]:
    patterns = series.intensity[usable(series)]
    memory: dict[str, Any] = {}

    def call(i: int) -> object:
        said = predictor(patterns[i : i + 1], **memory)
        if predictor.card.context:
            memory["earlier"] = said.memory
        return said

    return call
