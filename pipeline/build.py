"""From a configuration to stages. Imports what is heavy only where it is built."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from phasewatch.pipeline.config import Config
from phasewatch.pipeline.documents import ItemSpec, RunStart
from phasewatch.pipeline.errors import PipelineError
from phasewatch.pipeline.stage import Stage
from phasewatch.pipeline.transport.ring import default_slots

if TYPE_CHECKING:
    from phasewatch.calibration.calibration import Calibration
    from phasewatch.pipeline.stages.classify import Classify


def reduce_stages(config: Config, run: RunStart) -> list[Stage]:
    """Return integrate (where frames come), baseline and normalise."""
    from phasewatch.pipeline.stages.reduce import Baseline, Normalise

    baseline = config.reduce.baseline.settings()
    clean: list[Stage] = [
        Baseline(baseline.pop("method"), **baseline),
        Normalise(config.reduce.normalise),
    ]
    if "frame" in run.items:
        return [integrate_stage(config), *clean]
    if config.reduce.variance:
        raise PipelineError("[reduce] variance: only where the source gives frames")
    return clean


def worker_stages(config: Config, run: RunStart) -> list[Stage]:
    """Return what a reducer does: to reduce, and to classify where no other process does."""
    alone = config.classifier is not None and not config.classifier.own_process
    return [*reduce_stages(config, run), *([classify_stage(config)] if alone else [])]


def integrate_stage(config: Config) -> Stage:
    """Return the integrate stage; imports pyFAI."""
    from phasewatch.pipeline.stages.integrate import Integrate

    reduce = config.reduce
    calibration, n_bins = calibration_of(config)
    return Integrate(
        calibration,
        n_bins=n_bins,
        unit=reduce.unit,
        split=reduce.split,
        range=reduce.range,
        variance=reduce.variance,
    )


def calibration_of(config: Config) -> "tuple[Calibration, int]":
    """Return the calibration that `config` names and its number of bins."""
    from phasewatch.calibration.calibration import Calibration

    if config.calibration is None:
        raise PipelineError("[calibration] poni is missing: the source gives frames")
    if config.reduce.n_bins is None:
        raise PipelineError("[reduce] n_bins is missing: the source gives frames")
    keys = config.calibration.model_dump()
    polarization = config.reduce.polarization
    return Calibration.load(
        keys.pop("poni"), **keys, polarization=polarization
    ), config.reduce.n_bins


def settled(config: Config) -> Config:
    """Return `config` with ``[reduce] device = "auto"`` decided; imports torch to decide it."""
    if config.reduce.device != "auto":
        return config
    from phasewatch.calibration.gpu.device import pick

    device = str(pick("auto"))
    if device != "cpu":
        try:
            _check_accelerated(config, device)
        except ValueError:  # what only the CPU can do
            device = "cpu"
    return config.model_copy(update={"reduce": config.reduce.model_copy(update={"device": device})})


def check_model(config: Config) -> None:
    """Refuse a model that is not there or was trained on patterns that were cleaned otherwise.

    The axis is known, and looked at, once there is a source.
    """
    if config.classifier is None:
        return
    from phasewatch.models.card import check_settings, read_card
    from phasewatch.models.errors import ModelError

    folder, reduce = config.classifier.model, config.reduce
    card = read_card(folder)
    try:
        check_settings(card, baseline=reduce.baseline.settings(), normalise=reduce.normalise)
    except ModelError as error:
        raise PipelineError(f"[classifier] model {folder}: {error}") from None


def context_of(config: Config) -> int:
    """Return how many earlier items the model of `config` looks at; without a model none.

    Raises
    ------
    PipelineError
        The items do not come to it in order, as it needs them.
    """
    if config.classifier is None:
        return 0
    from phasewatch.models.card import read_card

    context = read_card(config.classifier.model).context
    needs = f"[classifier] model {config.classifier.model} looks at {context} items before: "
    if context and config.reduce.torch_device is not None:
        raise PipelineError(f'{needs}only with [reduce] device = "cpu"')
    if context and not config.classifier.own_process:
        raise PipelineError(f"{needs}only with own_process = true")
    return context


def slots_of(config: Config, items: Mapping[str, ItemSpec]) -> int:
    """Return how many slots the ring of a run of `config` has for `items` of the source.

    Raises
    ------
    PipelineError
        The model looks at more earlier items than there are slots, or as `context_of`.
    """
    context = context_of(config)
    slots = config.runtime.ring or default_slots(items) + context
    if slots <= context:
        raise PipelineError(
            f"[runtime] ring: {slots} slots, but the model looks at {context} items before: "
            f"at least {context + 1}"
        )
    return slots


def accelerated_stages(config: Config, run: RunStart) -> list[Stage]:
    """Return all stages up to classify, as one on ``[reduce] device`` where frames come."""
    if "frame" not in run.items:
        last = [] if config.classifier is None else [classify_stage(config)]
        return [*reduce_stages(config, run), *last]
    from phasewatch.pipeline.stages.accelerated import ReduceClassify

    reduce, device = config.reduce, config.reduce.torch_device
    if device is None:
        raise RuntimeError("an accelerator process without a [reduce] device")
    _check_accelerated(config, device)
    calibration, n_bins = calibration_of(config)
    return [
        ReduceClassify(
            calibration,
            n_bins=n_bins,
            unit=reduce.unit,
            split=reduce.split,
            range=reduce.range,
            baseline=reduce.baseline.settings(),
            normalise=reduce.normalise,
            model=None if config.classifier is None else config.classifier.model,
            device=device,
        )
    ]


def _check_accelerated(config: Config, device: str) -> None:
    from phasewatch.calibration.gpu.reduce import can

    can(config.reduce.baseline.settings(), config.reduce.normalise)
    if config.reduce.variance:
        raise PipelineError('[reduce] variance: only with [reduce] device = "cpu"')
    if config.classifier is None:
        return
    if config.classifier.regrid:
        raise PipelineError('[classifier] regrid: only with [reduce] device = "cpu"')
    if config.classifier.device not in ("auto", device):
        raise PipelineError(
            f"[classifier] device: {config.classifier.device}, but [reduce] device = "
            f'"{config.reduce.device}" classifies on {device}: leave it out'
        )


def classify_stage(config: Config) -> "Classify":
    """Return the classify stage; imports torch."""
    from phasewatch.pipeline.stages.classify import Classify

    if config.classifier is None:
        raise PipelineError("[classifier] model is missing")
    c = config.classifier
    return Classify(c.model, device=c.device, regrid=c.regrid)
