"""From a configuration to stages. Imports what is heavy only where it is built."""

from phasewatch.pipeline.config import Config
from phasewatch.pipeline.documents import RunStart
from phasewatch.pipeline.errors import PipelineError
from phasewatch.pipeline.stage import Stage


def reduce_stages(config: Config, run: RunStart) -> list[Stage]:
    """Return integrate (where frames come), baseline and normalise."""
    from phasewatch.pipeline.stages.reduce import Baseline, Normalise

    baseline = config.reduce.baseline.settings()
    clean: list[Stage] = [
        Baseline(baseline.pop("method"), **baseline),
        Normalise(config.reduce.normalise),
    ]
    return [integrate_stage(config), *clean] if "frame" in run.items else clean


def integrate_stage(config: Config) -> Stage:
    """Return the integrate stage; imports pyFAI."""
    from phasewatch.calibration.calibration import Calibration
    from phasewatch.pipeline.stages.integrate import Integrate

    reduce = config.reduce
    if config.calibration is None:
        raise PipelineError("[calibration] poni is missing: the source gives frames")
    if reduce.n_bins is None:
        raise PipelineError("[reduce] n_bins is missing: the source gives frames")
    keys = config.calibration.model_dump()
    return Integrate(
        Calibration.load(keys.pop("poni"), **keys, polarization=reduce.polarization),
        n_bins=reduce.n_bins,
        unit=reduce.unit,
        split=reduce.split,
        range=reduce.range,
    )


def classify_stage(config: Config) -> Stage:
    """Return the classify stage; imports torch."""
    from phasewatch.pipeline.stages.classify import Classify

    if config.classifier is None:
        raise PipelineError("[classifier] model is missing")
    c = config.classifier
    return Classify(c.model, device=c.device, regrid=c.regrid)
