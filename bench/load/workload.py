"""What a load runs through: a chain, and the items that are stored for it.

Built-in: ``frames``, full LAMBDA 2M frames of the digital twin, uncompressed; ``patterns``, 4023
points each, already clean, so that classifier and tracker are what is measured. The network of a
built-in chain has seeded but untrained weights unless a model is given: good for its speed, its
labels mean nothing.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from phasewatch.bench.load.store import gather, write_store
from phasewatch.models.card import read_card
from phasewatch.pipeline.batch import Batch
from phasewatch.pipeline.build import reduce_stages
from phasewatch.pipeline.chain import Chain
from phasewatch.pipeline.config import (
    ClassifierConfig,
    Config,
    SinkConfig,
    SourceConfig,
    load_config,
)
from phasewatch.pipeline.documents import RunStart
from phasewatch.pipeline.plugin import open_source

What = Literal["frames", "patterns"]
EXPERIMENT = "fe-ramp"
# Kept apart in memory: 32 frames of 4.8 MB are 155 MB, more than any cache; 256 patterns are 4 MB.
STORED = {"frames": 32, "patterns": 256}
FEW_CORES = 4  # up to here a process less is worth more than a batch for the classifier
# What the kernels take together; more only waits longer.
AT_ONCE = {"frames": 8, "patterns": 64}
CLASSES = ("before", "during", "after")
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Workload:
    """A configuration (source and times' sink still to come), and the store for it."""

    config: Config
    store: Path
    stored: int
    at_once: int
    kind: str
    note: str


def prepare(
    folder: Path,
    *,
    what: What = "patterns",
    config: Path | None = None,
    network: str | None = None,
    model: Path | None = None,
    clean: bool = True,
    seed: int = 0,
    stored: int | None = None,
    progress: Progress = lambda what, done, total: None,
) -> Workload:
    """Fill a store in `folder` and return what is to run.

    Parameters
    ----------
    what
        The built-in chain; not used with `config`.
    config
        A configuration file: its source fills the store, its chain and sinks run.
    network, model
        Architecture of an untrained network, or the folder of a model; neither: no classifier.
    clean
        Store built-in patterns as the reducer would hand them on, so that it has nothing to do.
    stored
        Items in the store; as many as the source has, `STORED` at most, where None.
    """
    chosen = _built_in(folder, what, seed, stored) if config is None else load_config(config)
    source = open_source(chosen.source.uri, **chosen.source.options)
    limit = stored or STORED["patterns"]
    if config is None:
        limit = stored or STORED[what]
    run, batch = gather(source, limit, lambda n: progress("items", n, limit))
    kind = "frames" if "frame" in run.items else "patterns"
    if kind == "frames" and stored is None:
        batch = batch.select(slice(0, STORED["frames"]))
    note = f"{len(batch)} different {kind} of {run.source}, again and again"
    if config is None and what == "patterns" and clean:
        run, batch = _reduced(chosen, run, batch)
        note += ", cleaned beforehand"
    if model is None and network is not None:
        model = folder / "model"
        _untrained(model, network, chosen, run, batch, seed)
        note += f"; {network} with seeded, untrained weights"
    if model is not None:
        # Only a process of its own sees the items in order, as a model that looks back needs them.
        own = len(os.sched_getaffinity(0)) > FEW_CORES or read_card(model).context > 0
        classifier = ClassifierConfig(model=model.absolute(), own_process=own)
        chosen = chosen.model_copy(update={"classifier": classifier})
        note += "" if own else "; the reducer classifies"
    if chosen.classifier is None:
        note += "; no classifier"
    write_store(run, batch, folder / "store")
    return Workload(chosen, folder / "store", len(batch), AT_ONCE[kind], kind, note)


def loaded(workload: Workload, folder: Path, times: Path, *, answer: bool) -> Config:
    """Return the configuration whose source is the load in `folder`, with a sink of times.

    The configuration's own sinks write beside their files, to `scratch` names: nothing that was
    measured before is in the way, and no result is taken for a real one.
    """
    options: dict[str, Any] = {"path": str(times), "answer": str(folder) if answer else ""}
    sink = SinkConfig(type="latency", **options)
    source = SourceConfig(uri=f"load:{folder}")
    own = [
        SinkConfig(
            type=s.type,
            policy=s.policy,
            **{**s.options, "path": str(scratch(Path(s.options["path"])))},
        )
        if isinstance(s.options.get("path"), str)
        else s
        for s in workload.config.sink
    ]
    sinks = (*own, sink)
    return workload.config.model_copy(update={"source": source, "sink": sinks})


def scratch(path: Path) -> Path:
    """Return the name beside `path` under which a sink writes while it is measured."""
    return path.with_name(f"{path.stem}.bench{path.suffix}")


def discard(config: Config) -> None:
    """Remove what the sinks of a loaded `config` wrote under scratch names."""
    for sink in config.sink:
        path = Path(str(sink.options.get("path", "")))
        if path.stem.endswith(".bench"):
            path.unlink(missing_ok=True)


def _built_in(folder: Path, what: What, seed: int, stored: int | None) -> Config:
    from phasewatch.bench.simulate import write_run
    from phasewatch.bench.twin.run import open_run

    run = open_run(EXPERIMENT, seed=seed, frames=stored or STORED[what])
    write_run(run, folder / "twin", kind=what, with_data=False, labels=1)
    return load_config(folder / "twin" / "run.toml").model_copy(update={"sink": ()})


def _reduced(config: Config, run: RunStart, batch: Batch) -> tuple[RunStart, Batch]:
    chain = Chain(reduce_stages(config, run))
    return chain.start(run), chain.process(batch)


def _untrained(
    folder: Path, network: str, config: Config, run: RunStart, batch: Batch, seed: int
) -> None:
    """Save a network with fresh weights that fits what the reducers hand on."""
    from phasewatch.models import fresh

    reduced, some = _reduced(config, run, batch.select(slice(0, 16)))
    fresh.save(
        folder,
        network,
        patterns=np.asarray(some.arrays["intensity"], np.float32),
        axis=reduced.constants["axis"],
        unit=str(reduced.unit),
        baseline=reduced.settings["baseline"],
        normalise=reduced.settings["normalise"],
        classes=CLASSES,
        seed=seed,
    )
